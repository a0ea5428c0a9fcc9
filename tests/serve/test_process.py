"""A server in a process of its own, by the clients that its APIs come from, until it is asked to end."""

from __future__ import annotations

import base64
import json
import queue
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cohere
import httpx
import numpy as np
import openai
import pytest
import uvicorn
from fastapi import FastAPI
from huggingface_hub import InferenceClient
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding
from pydantic import SecretStr
from typer.testing import CliRunner

from st_modules import SentenceTransformer, cli, get_model
from st_modules.serve.process import run
from tests.helpers.serving import KEY, HeldModel, Running, data_uri, picture, serve

TEXTS = ["a large red circle", "two small green stars"]


@pytest.fixture
def expected(tiny: SentenceTransformer) -> np.ndarray:
    return tiny.encode(TEXTS)


def assert_close(found: object, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.array(found), expected, atol=1e-5)


# ------------------------------------------------------------------------------------------------- clients


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_openai(running: Running, expected: np.ndarray, encoding: Any) -> None:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEY) as client:
        options = {"encoding_format": encoding} if encoding else {}
        answer = client.embeddings.create(model="text-embedding-3-small", input=TEXTS, **options)
    vectors = [each.embedding for each in answer.data]
    if encoding == "base64":
        vectors = [np.frombuffer(base64.b64decode(str(each)), "<f4") for each in vectors]
    assert_close(vectors, expected)
    assert answer.usage.prompt_tokens > 0


async def test_openai_awaited_with_fields_of_ours(running: Running, tiny: SentenceTransformer) -> None:
    async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=KEY) as client:
        item: Any = {"text": "make it blue", "image": data_uri(picture())}
        own = {"side": "query", "prompt_name": "it2i"}
        answer = await client.embeddings.create(model="tiny", input=[item], extra_body=own)
    item = {"text": "make it blue", "image": picture()}
    assert_close(answer.data[0].embedding, tiny.encode_query(item, prompt_name="it2i"))


def test_openai_raises_its_own_errors(running: Running) -> None:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="another", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match="Authorization: Bearer KEY"):
            client.embeddings.create(model="tiny", input="a")
        with pytest.raises(openai.BadRequestError, match=r"neither text nor image") as raised:
            client.with_options(api_key=KEY).embeddings.create(model="tiny", input=["a", {}])  # type: ignore[list-item]
        assert raised.value.param == "input[1]"
        assert [model.id for model in client.with_options(api_key=KEY).models.list()] == ["tiny"]


async def test_langchain(running: Running, expected: np.ndarray) -> None:
    with httpx.Client() as client:
        async with httpx.AsyncClient() as async_client:
            embeddings = OpenAIEmbeddings(
                base_url=f"{running.url}/v1",
                api_key=SecretStr(KEY),
                model="tiny",
                check_embedding_ctx_length=False,
                http_client=client,
                http_async_client=async_client,
            )
            assert_close(embeddings.embed_documents(TEXTS), expected)
            assert_close(embeddings.embed_query(TEXTS[0]), expected[0])
            assert_close(await embeddings.aembed_documents(TEXTS), expected)


def test_llama_index(running: Running, expected: np.ndarray) -> None:
    with httpx.Client() as client:
        model = OpenAIEmbedding(api_base=f"{running.url}/v1", api_key=KEY, model_name="tiny", http_client=client)
        assert_close(model.get_text_embedding_batch(TEXTS), expected)


@pytest.fixture
def cohere_client(running: Running) -> Iterator[cohere.ClientV2]:
    with httpx.Client() as client:
        yield cohere.ClientV2(api_key=KEY, base_url=running.url, httpx_client=client)


def test_cohere(cohere_client: cohere.ClientV2, tiny: SentenceTransformer) -> None:
    client = cohere_client
    answer = client.embed(
        model="embed-v4.0", input_type="search_query", texts=TEXTS, embedding_types=["float", "ubinary"]
    )
    assert_close(answer.embeddings.float_, tiny.encode_query(TEXTS))
    assert len((answer.embeddings.ubinary or [])[0]) == 16
    inputs: Any = [{"content": [{"type": "image_url", "image_url": {"url": data_uri(picture())}}]}]
    answer = client.embed(model="embed-v4.0", input_type="search_document", inputs=inputs)
    assert_close(answer.embeddings.float_, tiny.encode_document([picture()]))
    with pytest.raises(cohere.errors.BadRequestError, match="no http"):
        client.embed(model="embed-v4.0", input_type="search_document", images=["a.png"])


def test_hugging_face(running: Running, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    client = InferenceClient(model=f"{running.url}/embed", token=KEY)
    assert_close(client.feature_extraction(TEXTS[0]), expected[:1])


# ------------------------------------------------------------------------------------------------- its end

# Its model says that it was asked, and goes on when a line comes in.
HELD = """
import sys
from st_modules import SentenceTransformer, cli, get_model
encode = SentenceTransformer.encode_planned
def held(self, planned, batch_size):
    print("asked", flush=True)
    sys.stdin.readline()
    return encode(self, planned, batch_size)
SentenceTransformer.encode_planned = held
cli.app()
"""


def ask(url: str, body: object, **headers: str) -> Any:
    request = urllib.request.Request(
        f"{url}/v1/embeddings", json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_asked_to_end_it_finishes_what_is_under_way(expected: np.ndarray) -> None:
    answers: list[Any] = []
    with serve(code=HELD) as server:
        process = server.process
        assert process.stdin
        assert process.stdout
        thread = threading.Thread(target=lambda: answers.append(ask(server.url, {"input": TEXTS})))
        thread.start()
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGTERM)
        wait_until_closed(server.url)
        process.stdin.write("\n")
        process.stdin.flush()
        thread.join(60)
        assert_close([each["embedding"] for each in answers[0]["data"]], expected)
        assert process.wait(60) == 128 + signal.SIGTERM


def wait_until_closed(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=60).close()
        except ConnectionError:
            return


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request: pytest.FixtureRequest) -> str:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((request.param, 0))
        except OSError:
            pytest.skip(f"this machine has no {request.param}")
    return request.param


def test_what_is_not_done_in_time_is_broken_off(
    app: FastAPI, held: HeldModel, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    servers: list[uvicorn.Server] = []
    initialise = uvicorn.Server.__init__
    monkeypatch.setattr(
        uvicorn.Server, "__init__", lambda server, config: (servers.append(server), initialise(server, config))[1]
    )
    urls: queue.Queue[str] = queue.Queue()
    thread = threading.Thread(target=run, args=(app, host, 0, 1, urls.put))
    thread.start()
    url = urls.get(timeout=60)
    assert httpx.post(f"{url}/v1/embeddings", json={"input": "a"}).is_success
    held.may_go_on.clear()
    with ThreadPoolExecutor() as clients:
        answer = clients.submit(httpx.post, f"{url}/v1/embeddings", json={"input": "a"}, timeout=60)
        held.entered.acquire()
        held.entered.acquire()
        servers[0].handle_exit(signal.SIGTERM, None)
        thread.join(60)
        assert not thread.is_alive()
        broken = answer.exception() is not None or answer.result().status_code == 500
    held.may_go_on.set()
    assert broken


# ------------------------------------------------------------------------------------------------- options


def test_an_empty_key_is_a_wrong_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ST_MODULES_API_KEY", "")
    result = CliRunner().invoke(cli.app, ["serve", "--model", "tiny", "--api-key", " "])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: --api-key is empty")


@pytest.mark.parametrize("option", [["--replicas", "2"], ["--address", "auto"], ["--gpus-per-replica", "1"]])
def test_options_of_replicas_need_their_engine(option: list[str]) -> None:
    result = CliRunner().invoke(cli.app, ["serve", "--model", "tiny", *option])
    assert result.exit_code == 2
    assert result.stderr == f"Error: {option[0]} is of replicas on Ray: add --engine ray.\n"


def test_a_port_that_is_taken_is_said_in_a_line(running: Running) -> None:
    port = running.url.rpartition(":")[2]
    result = CliRunner().invoke(cli.app, ["serve", "--model", "tiny", "--port", port])
    assert result.exit_code == 1
    assert result.stderr == f"Error: Address already in use: 127.0.0.1:{port}\n"


@pytest.mark.parametrize(("host", "warns"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_an_open_server_is_warned_of(monkeypatch: pytest.MonkeyPatch, host: str, warns: bool) -> None:
    monkeypatch.setattr("st_modules.serve.process.run", lambda *arguments: None)
    result = CliRunner().invoke(cli.app, ["serve", "--model", "tiny", "--host", host])
    assert result.exit_code == 0, result.output
    assert ("--api-key KEY lets in" in result.stderr) == warns


def test_a_folder_is_called_by_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    apps: list[FastAPI] = []
    monkeypatch.setattr("st_modules.serve.process.run", lambda app, *arguments: apps.append(app))
    folder = get_model("tiny").path
    for options in ([], ["--name", "mine"]):
        assert CliRunner().invoke(cli.app, ["serve", "--model", str(folder), *options]).exit_code == 0
    assert [app.state.name for app in apps] == ["tiny", "mine"]


def test_its_help_imports_neither_torch_nor_fastapi() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from st_modules import serve; from st_modules.cli import app;"
        "assert CliRunner().invoke(app, ['serve', '--help']).exit_code == 0;"
        "sys.exit(bool({'torch', 'fastapi', 'uvicorn', 'prometheus_client'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
