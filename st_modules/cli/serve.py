"""``st-modules serve``: a model behind HTTP APIs."""

from __future__ import annotations

import ipaddress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from st_modules.cli.shared import (
    BaseWeights,
    Device,
    EngineName,
    Weights,
    check_model,
    first_line,
    one_line_errors,
    say,
    stop,
    tell,
)
from st_modules.errors import STModulesError

app = typer.Typer()


@app.command()
def serve(
    model_name: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A name that `st-modules list` shows, or a saved model's folder.",
            show_default="gme-2b, or the index's own",
        ),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option("--index", help="An index to be searched, by HTTP and on the page at /.", show_default=False),
    ] = None,
    weights: Weights = None,
    base_weights: BaseWeights = None,
    device: Device = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of the machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="ST_MODULES_API_KEY",
            help="What clients have to send, as Authorization: Bearer KEY.",
            show_default=False,
            show_envvar=True,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the model is called in answers.", show_default="the model's name")
    ] = None,
    allow_remote_images: Annotated[
        bool, typer.Option("--allow-remote-images", help="Fetch images from public addresses that requests name.")
    ] = False,
    least_dimension: Annotated[
        int | None,
        typer.Option(min=1, help="Fewest dimensions that requests may ask for, of a model trained for shorter ones."),
    ] = None,
    max_batch_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens in a batch.")] = None,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Largest body of a request.")] = 32 * 1024 * 1024,
    max_image_bytes: Annotated[int, typer.Option(min=1, help="Largest image, encoded.")] = 16 * 1024 * 1024,
    max_image_pixels: Annotated[int, typer.Option(min=1, help="Most pixels of an image.")] = 50_000_000,
    max_items: Annotated[int, typer.Option(min=1, help="Most items of a request.")] = 2048,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a request, those of images too.")] = 300_000,
    max_requests: Annotated[int, typer.Option(min=1, help="Most requests at a time; others get 429.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that a request may take.")] = 60.0,
    drain: Annotated[int, typer.Option(min=0, help="Seconds to finish requests in when asked to end.")] = 60,
    engine: Annotated[EngineName, typer.Option(help="Answer in this process, or on a Ray cluster.")] = EngineName.local,
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster; one on this machine by default.", show_default=False)
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="How many models Ray loads.")] = 1,
    gpus_per_replica: Annotated[float, typer.Option(min=0, help="GPUs that Ray gives each of them.")] = 0,
    cpus_per_replica: Annotated[float, typer.Option(min=0, help="Cores that Ray gives each of them.")] = 1,
) -> None:
    """Serve a model by HTTP, as OpenAI, vLLM, Jina, Cohere, TEI, DashScope and OpenSearch have it."""
    with one_line_errors():
        if api_key is not None and not api_key.strip():
            stop("--api-key is empty: give a key, or unset ST_MODULES_API_KEY to let everybody in.", 2)

        others = {"--address": address, "--gpus-per-replica": gpus_per_replica, "--replicas": replicas != 1}
        others["--cpus-per-replica"] = cpus_per_replica != 1
        if engine is EngineName.local and (given := [option for option, value in others.items() if value]):
            stop(f"{given[0]} is of replicas on Ray: add --engine ray.", 2)

        from st_modules._imports import require

        for package in ("fastapi", "uvicorn", "prometheus_client"):
            require(package, extra="serve")

        model_name = model_name or _find_model(index)
        check_model(model_name, device if engine is EngineName.local else None)

        from st_modules.inputs.limits import ImageLimits
        from st_modules.serve import ServeLimits
        from st_modules.serve.loading import load_app

        is_folder = Path(model_name).is_dir()
        limits = ServeLimits(max_body_bytes, max_items, max_tokens, max_requests, timeout)
        make_app = partial(
            load_app,
            str(Path(model_name).absolute()) if is_folder else model_name,
            device=device,
            weights=weights and weights.absolute(),
            base_weights=base_weights and base_weights.absolute(),
            max_batch_tokens=max_batch_tokens,
            index=index if index is None or "://" in index else str(Path(index).absolute()),
            name=name or (Path(model_name).resolve().name if is_folder else model_name),
            api_key=api_key,
            allow_remote_images=allow_remote_images,
            image_limits=ImageLimits(max_bytes=max_image_bytes, max_pixels=max_image_pixels),
            limits=limits,
            least_dimension=least_dimension,
        )
        if api_key is None and not _is_loopback(host):
            tell(f"Anybody who reaches {host} can use the model: --api-key KEY lets in those who know it.")

        def report(url: str) -> None:
            say(f"Serving {model_name} on {url}; open it to search, or see {url}/docs.")

        if engine is EngineName.ray:
            from st_modules.serve.ray_engine import RayServeOptions, run_replicas

            cluster = RayServeOptions(address, replicas, gpus_per_replica, cpus_per_replica)
            run_replicas(make_app, cluster, limits, host, port, drain, report)
        else:
            from st_modules.serve.process import run

            try:
                application = make_app()
            except STModulesError:
                raise
            except ValueError as error:
                stop(first_line(error), 2)
            run(application, host, port, drain, report)


def _find_model(index: str | None) -> str:
    """Return what loads the model of an index."""
    if index is None:
        return "gme-2b"
    from st_modules.index.index import Index

    return Index.open(index).model_name


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
