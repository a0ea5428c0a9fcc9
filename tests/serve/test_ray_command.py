"""``st-modules serve --engine ray``: what its options become, and what is refused before anything is loaded."""

from __future__ import annotations

import pickle
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from st_modules import cli, get_model
from st_modules.errors import ArgumentError, STModulesError
from st_modules.serve import ServeLimits, ray_engine
from st_modules.serve.ray_engine import RayServeOptions, run_app, run_replicas


def test_options_reach_the_replicas_in_a_form_that_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(ray_engine, "run_replicas", lambda *arguments: calls.append(arguments))
    (tmp_path / "my-model").symlink_to(str(get_model("tiny").path))
    monkeypatch.chdir(tmp_path)
    options = ["--engine", "ray", "--address", "auto", "--replicas", "3", "--gpus-per-replica", "0.5"]
    options += ["--max-items", "2", "--name", "mine", "--host", "0.0.0.0", "--port", "80", "--drain", "7"]
    result = CliRunner().invoke(cli.app, ["serve", "--model", "my-model", "--api-key", "sesame", *options])
    assert result.exit_code == 0, result.output
    ((make_app, cluster, limits, *rest),) = calls
    assert cluster == RayServeOptions("auto", 3, 0.5, 1)
    assert limits == ServeLimits(max_items=2)
    assert rest[:3] == ["0.0.0.0", 80, 7]
    monkeypatch.chdir(Path("/"))
    client = TestClient(pickle.loads(pickle.dumps(make_app))(), headers={"Authorization": "Bearer sesame"})
    assert client.get("/v1/models").json()["data"][0]["id"] == "mine"
    assert client.post("/v1/embeddings", json={"input": ["a", "b"]}).is_success
    assert client.post("/v1/embeddings", json={"input": ["a", "b", "c"]}).status_code == 422


def test_a_device_of_the_replicas_is_not_looked_for_here(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(ray_engine, "run_replicas", lambda make_app, *arguments: calls.append(make_app.keywords))
    command = ["serve", "--model", "tiny", "--engine", "ray", "--device", "cuda:99"]
    assert CliRunner().invoke(cli.app, command).exit_code == 0
    assert calls[0]["device"] == "cuda:99"


def test_an_unknown_model_is_refused_here() -> None:
    result = CliRunner().invoke(cli.app, ["serve", "--model", "tinny", "--engine", "ray"])
    assert (result.exit_code, result.stderr.startswith("Error: Unknown model 'tinny'")) == (2, True)


@pytest.mark.parametrize(
    "wrong",
    [{"replicas": 0}, {"replicas": 1.5}, {"gpus_per_replica": -1}, {"cpus_per_replica": "2"}],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        RayServeOptions(**wrong)


@pytest.fixture
def another(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A cluster that others use too."""
    statuses = SimpleNamespace(proxies={}, applications={})
    modules = {
        "ray": SimpleNamespace(is_initialized=lambda: True, cluster_resources=lambda: {"CPU": 2}),
        "ray.serve": SimpleNamespace(status=lambda: statuses),
    }
    modules["ray"].get_runtime_context = lambda: SimpleNamespace(gcs_address="10.0.0.1:6379")
    monkeypatch.setattr(ray_engine, "import_extra", lambda name, extra: modules[name])
    return statuses


def enter(**options: Any) -> None:
    with run_app(lambda: pytest.fail("loaded"), RayServeOptions(**options), ServeLimits(), "127.0.0.1", 0, 1):
        pass


def test_a_port_must_be_named_for_a_cluster_of_several(another: SimpleNamespace) -> None:
    with pytest.raises(ArgumentError, match="port=0"):
        enter()


def test_replicas_in_a_cluster_that_serves_already_are_refused(another: SimpleNamespace) -> None:
    another.proxies = {"a": "HEALTHY"}
    with pytest.raises(ArgumentError, match="runs on this cluster already"):
        enter()


def test_the_command_waits_until_it_is_asked_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    @contextmanager
    def run_nothing(*arguments: Any) -> Any:
        try:
            yield "http://127.0.0.1:80"
        finally:
            ended.append("ended")

    class Asked:
        def wait(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(ray_engine, "run_app", run_nothing)
    monkeypatch.setattr(ray_engine, "threading", SimpleNamespace(Event=Asked))
    urls: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run_replicas(lambda: pytest.fail("loaded"), RayServeOptions(), ServeLimits(), "127.0.0.1", 80, 1, urls.append)
    assert (urls, ended) == (["http://127.0.0.1:80"], ["ended"])


def test_what_a_replica_raised_at_its_start_is_told_in_a_line() -> None:
    def run(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("Deploying failed.")

    told = SimpleNamespace(message="Failed 3 times. Error:\n  File ...\nValueError: no such weights\n")
    statuses = SimpleNamespace(applications={"st-modules": SimpleNamespace(deployments={"replica": told})})
    replicas = SimpleNamespace(bind=lambda make_app: None)
    serve: Any = SimpleNamespace(
        start=lambda **options: None,
        deployment=lambda **options: lambda found: replicas,
        run=run,
        status=lambda: statuses,
    )
    arguments: Any = (lambda: None, RayServeOptions(), ServeLimits(), "127.0.0.1", 80, 1)
    with pytest.raises(STModulesError, match=r"^The replicas do not start. ValueError: no such weights$"):
        ray_engine._start(serve, *arguments)
    statuses.applications.clear()
    with pytest.raises(STModulesError, match=r"^The replicas do not start. Deploying failed.$"):
        ray_engine._start(serve, *arguments)


@pytest.mark.parametrize("own", [None, "7"])
def test_a_proxy_that_starts_slowly_is_waited_for(monkeypatch: pytest.MonkeyPatch, own: str | None) -> None:
    name = "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"
    monkeypatch.setenv(name, own) if own else monkeypatch.delenv(name, raising=False)
    started: dict[str, Any] = {}
    serve: Any = SimpleNamespace(
        start=started.update,
        deployment=lambda **options: lambda found: SimpleNamespace(bind=lambda make_app: None),
        run=lambda *arguments, **options: None,
    )
    ray_engine._start(serve, lambda: pytest.fail("loaded"), RayServeOptions(), ServeLimits(), "127.0.0.1", 80, 1)
    assert started["controller_options"]["runtime_env"]["env_vars"][name] == (own or "60")


def test_more_time_to_drain_than_ray_waits_for_is_waited_for() -> None:
    waited: list[str] = []

    def delete(name: str) -> None:
        waited.append(name)
        if len(waited) < 3:
            raise TimeoutError

    ray_engine._end(SimpleNamespace(delete=delete), 150, is_shared=False)
    assert len(waited) == 3


def test_a_replica_is_not_well_whose_last_batch_failed() -> None:
    from st_modules.serve.ray_replica import Replica

    replica: Any = SimpleNamespace(_service=SimpleNamespace(is_well=True))
    Replica.check_health(replica)
    replica._service.is_well = False
    with pytest.raises(STModulesError, match="The last batch failed"):
        Replica.check_health(replica)
