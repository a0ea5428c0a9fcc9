"""Time many clients of a server at once beside one that asks for one item after the other, and beside a plain loop.

Run ``python benchmarks/serving.py``, or ``python benchmarks/serving.py gme-2b --clients 1 8 64 256`` for another model.
Every number of clients asks for the same items, a request each, texts and pictures mixed, over HTTP on this machine.
All of them run in turns, and every answer is compared with ``encode``. The plain server is what is written by hand most
often: a FastAPI route that calls ``encode`` for each request. The ratios are those of one round, and the median of the
rounds, with the least and the most.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import statistics
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from st_modules import SentenceTransformer
from st_modules.demo.drawings import draw
from st_modules.demo.scenes import random_scenes
from st_modules.demo.wording import caption
from st_modules.serve import ServeLimits, create_app


def make_items(count: int) -> list[dict[str, str]]:
    """Two texts, a picture, and a picture with a text, in turns."""
    items = []
    for number, scene in enumerate(random_scenes(1, count)):
        stream = io.BytesIO()
        draw(scene, seed=number).save(stream, "PNG")
        picture = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
        text = caption(scene)
        items.append([{"text": text}, {"text": text}, {"image": picture}, {"text": text, "image": picture}][number % 4])
    return items


def make_plain_app(model: SentenceTransformer) -> FastAPI:
    app = FastAPI()

    @app.post("/v1/embeddings")
    def embed(body: dict[str, Any]) -> dict[str, Any]:
        return {"data": [{"embedding": vector.tolist()} for vector in model.encode(body["input"])]}

    return app


@contextmanager
def run(app: FastAPI) -> Generator[str, None, None]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    yield f"http://{host}:{port}"
    server.should_exit = True
    thread.join()


async def ask(url: str, items: list[dict[str, str]], clients: int) -> tuple[float, list[float], np.ndarray]:
    """Seconds in all, those of each request, and the vectors."""
    vectors: list[Any] = [None] * len(items)
    seconds = [0.0] * len(items)
    waiting = list(enumerate(items))[::-1]

    async def work(client: httpx.AsyncClient) -> None:
        while waiting:
            number, item = waiting.pop()
            start = time.perf_counter()
            answer = await client.post(f"{url}/v1/embeddings", json={"input": [item]})
            seconds[number] = time.perf_counter() - start
            vectors[number] = answer.raise_for_status().json()["data"][0]["embedding"]

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(timeout=600, limits=limits) as client:
        start = time.perf_counter()
        await asyncio.gather(*(work(client) for _ in range(clients)))
        return time.perf_counter() - start, seconds, np.array(vectors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--items", type=int, default=128)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    disable_progress_bar()
    model = SentenceTransformer(args.model, keep_prefixes=True)
    items = make_items(args.items)
    expected = model.encode(items)
    limits = ServeLimits(timeout=600, max_requests=max(*args.clients, 2))
    runs: dict[tuple[str, int], list[tuple[float, list[float]]]] = {}
    with run(create_app(model, limits=limits)) as ours, run(make_plain_app(model)) as plain:
        urls = {"st-modules serve": ours, "a plain loop": plain}
        for _ in range(args.rounds):
            for clients in args.clients:
                for name, url in urls.items():
                    total, seconds, vectors = asyncio.run(ask(url, items, clients))
                    difference = np.abs(vectors - expected).max()
                    assert difference <= 1e-5, f"the vectors differ by {difference}"
                    runs.setdefault((name, clients), []).append((total, seconds))
    alone = [total for total, _ in runs["a plain loop", args.clients[0]]]
    table = Table(
        "Server", "clients", "requests/s", "p50", "p95", f"times a plain loop with {args.clients[0]} (least-most)"
    )
    for (name, clients), found in sorted(runs.items()):
        totals = [total for total, _ in found]
        ratios = [before / total for before, total in zip(alone, totals, strict=True)]
        latencies = [second for _, seconds in found for second in seconds]
        p50, p95 = np.percentile(latencies, [50, 95])
        table.add_row(
            name,
            str(clients),
            f"{len(items) / statistics.median(totals):.1f}",
            f"{1000 * p50:.0f} ms",
            f"{1000 * p95:.0f} ms",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
