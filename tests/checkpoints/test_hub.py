"""Models that are to be downloaded where the Hub cannot be reached, and where it can."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from st_modules import CheckpointError, SentenceTransformer
from st_modules.checkpoints.hub import find_obstacle, has_snapshot, refuse_unreachable
from tests.helpers.loopback import Server


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Sets where the Hub is; the download cache is empty, and asking twice is an error."""

    def set_endpoint(url: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", url)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("asked again"))
    return set_endpoint


@pytest.fixture
def nowhere(endpoint: Callable[[str], None]) -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    endpoint(url)
    return url


def test_a_model_of_the_catalog_without_network(nowhere: str) -> None:
    with pytest.raises(CheckpointError, match=f"gme-2b: .* nor can it be downloaded .*{nowhere}.*pass weights="):
        SentenceTransformer("gme-2b")


def test_the_base_of_an_adapter_without_network(nowhere: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="nor can it be downloaded .*pass base_weights="):
        SentenceTransformer("vlm2vec-qwen2vl-2b", weights=tmp_path)


@pytest.mark.parametrize("name", ["owner/name", "all-MiniLM-L6-v2"])
def test_other_repositories_without_network(nowhere: str, name: str) -> None:
    with pytest.raises(OSError, match=f"{name}: no such folder, not in the download cache, .*{nowhere}"):
        SentenceTransformer(name)


@pytest.mark.parametrize("name", ["./modle", "../modle", "/no/modle", "a/b/c", "modle/", "my model"])
def test_a_folder_that_is_not_there(nowhere: str, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{name}: no such folder"):
        SentenceTransformer(name)


@pytest.mark.parametrize(
    ("name", "cached"), [("owner/name", "owner--name"), ("MiniLM", "sentence-transformers--MiniLM")]
)
def test_what_is_in_the_cache_needs_no_network(nowhere: str, tmp_path: Path, name: str, cached: str) -> None:
    with pytest.raises(OSError, match="not in the download cache"):
        refuse_unreachable(name, {}, str(tmp_path))
    folder = tmp_path / f"models--{cached}"
    for path, content in (("refs/main", "abc"), ("snapshots/abc/config.json", "{}")):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(content)
    refuse_unreachable(name, {}, str(tmp_path))
    assert has_snapshot(cached.replace("--", "/"), None, ["config.json"], str(tmp_path))


@pytest.mark.parametrize("offline", [False, True])
def test_a_caller_that_wants_no_network_is_told_the_name(
    tmp_path: Path, offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(OSError, match=r"^owner/name: no such folder, not in the download cache, and the Hub is not"):
        SentenceTransformer("owner/name", cache_folder=str(tmp_path), local_files_only=not offline)


@pytest.mark.parametrize("status", [200, 404, 503])
def test_whatever_answers_is_there(endpoint: Callable[[str], None], server: Server, status: int) -> None:
    endpoint(server.url(""))
    server.RequestHandlerClass.do_HEAD = lambda handler: handler.answer(b"", status)  # type: ignore[attr-defined]
    try:
        assert find_obstacle() is None
    finally:
        del server.RequestHandlerClass.do_HEAD  # type: ignore[attr-defined]


def test_proxies_are_asked(endpoint: Callable[[str], None], nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint("http://hub.invalid")
    monkeypatch.setenv("HTTP_PROXY", nowhere)
    huggingface_hub.close_session()  # which read the environment
    try:
        assert "refused" in str(find_obstacle())
    finally:
        huggingface_hub.close_session()


def test_offline_mode_asks_nobody(nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_obstacle() is None
