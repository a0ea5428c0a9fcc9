"""Replicas on Ray answer as one process does, whichever of them is killed, and the limits hold in the proxy."""

from __future__ import annotations

import asyncio
import json
import re
import select
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import psutil
import pytest

from fuzz.ray_cluster import run_cluster
from st_modules import SentenceTransformer
from st_modules.errors import ArgumentError
from st_modules.serve.ray_engine import RayServeOptions, run_app
from tests.helpers.serving import KEY, data_uri, picture
from tests.helpers.serving_on_ray import LIMITS, hold_up, list_processes, load_held

ray = pytest.importorskip("ray")
HEADERS = {"Authorization": f"Bearer {KEY}"}
REPLICA = "ray::ServeReplica:st-modules:replica"
REPLICAS = RayServeOptions(replicas=2, cpus_per_replica=0.1)


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What holds the models of all replicas up."""
    lock = tmp_path_factory.mktemp("lock") / "lock"
    lock.touch()
    return lock


@pytest.fixture(scope="module")
def url(lock: Path, tiny: SentenceTransformer) -> Iterator[str]:
    """A server of two replicas, in a cluster that this process is connected to.

    At its end it finishes what is under way, and leaves the cluster as it was.
    """
    served = run_app(partial(load_held, lock), REPLICAS, LIMITS, "127.0.0.1", find_free_port(), 60)
    with run_cluster(nodes=0), ThreadPoolExecutor() as pool:
        with served as url:
            yield url
            holding = ExitStack()
            holding.enter_context(hold_up(lock))
            answer = pool.submit(embed, url, "a")
            wait_for_in_flight(url, 1, lambda: answer.result().text if answer.done() else None)
            late = pool.submit(let_go_at_the_end, url, holding)
        np.testing.assert_allclose(read_vector(answer.result()), tiny.encode("a"), atol=1e-5)
        assert late.result().status_code == 503
        assert late.result().json()["error"]["type"] == "server_error"
        assert ray.is_initialized()
        assert not ray.serve.status().proxies


def let_go_at_the_end(url: str, holding: ExitStack) -> httpx.Response:
    """Wait until a server takes no more requests, and let it go on with those that it has."""
    with holding:
        while (late := httpx.get(f"{url}/health", timeout=60)).is_success:
            pass
        return late


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def embed(url: str, text: str) -> httpx.Response:
    # With more patience than the server has, which then says what is wrong.
    patience = 2 * LIMITS.timeout
    return httpx.post(f"{url}/v1/embeddings", json={"input": text}, headers=HEADERS, timeout=patience)


def read_vector(answer: httpx.Response) -> list[float]:
    return answer.json()["data"][0]["embedding"]


def test_vectors_are_those_of_encode(url: str, tiny: SentenceTransformer) -> None:
    items: Any = ["a red circle", {"text": "make it blue", "image": data_uri(picture())}]
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
        answer = client.embeddings.create(model="tiny", input=items, extra_body={"side": "query"})
    expected = tiny.encode_query(["a red circle", {"text": "make it blue", "image": picture()}])
    np.testing.assert_allclose([each.embedding for each in answer.data], expected, atol=1e-5)


def test_what_a_killed_replica_had_is_saved_by_asking_again(url: str, tiny: SentenceTransformer) -> None:
    texts = [f"picture {number}" for number in range(160)]
    answered = threading.Semaphore(0)
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=30) as client, ThreadPoolExecutor(8) as pool:

        def ask(text: str) -> list[float]:
            found = client.embeddings.create(model="tiny", input=text).data[0].embedding
            answered.release()
            return found

        found = [pool.submit(ask, text) for text in texts]
        for _ in range(20):
            answered.acquire()
        victim = list_processes(REPLICA)[0]
        victim.kill()
        vectors = [each.result() for each in found]
    np.testing.assert_allclose(vectors, tiny.encode(texts), atol=1e-5)
    victim.wait(60)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the most memory")
def test_of_a_body_without_end_little_is_kept(url: str) -> None:
    async def pour() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b" " * LIMITS.max_body_bytes

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(timeout=60) as client:
            return await client.post(f"{url}/v1/embeddings", content=pour(), headers=HEADERS)

    (proxy,) = list_processes("ray::ProxyActor")
    before = read_most_memory(proxy)
    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert read_most_memory(proxy) - before < 100 * 2**20


def read_most_memory(process: psutil.Process) -> int:
    """The most bytes of memory that a process has had."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def test_headers_that_tell_rays_proxy_what_to_do_are_not_obeyed(url: str) -> None:
    told = {"x-request-timeout-seconds": "0.000001", "x-request-id": "\xff", "serve_multiplexed_model_id": "\xff"}
    sent: Any = {name: value.encode("latin-1") for name, value in {**HEADERS, **told}.items()}
    answer = httpx.post(f"{url}/v1/embeddings", json={"input": "a"}, headers=sent, timeout=60)
    assert answer.status_code == 200


def test_more_requests_than_are_taken_are_sent_away(url: str, lock: Path, tiny: SentenceTransformer) -> None:
    # Two replicas, or what is left of them, take four each, and four wait in the proxy.
    count, least = 30, 30 - 3 * LIMITS.max_requests
    texts = [f"picture {number}" for number in range(count)]
    with ThreadPoolExecutor(count) as pool:
        with hold_up(lock):
            asked = [pool.submit(embed, url, text) for text in texts]
            early = [each.result().status_code for each in islice(as_completed(asked), least)]
            assert early == [429] * least
        answers = dict(zip(texts, (each.result() for each in asked), strict=True))
    taken = {text: answer for text, answer in answers.items() if answer.status_code != 429}
    assert {text: answer.status_code for text, answer in taken.items()} == dict.fromkeys(taken, 200)
    np.testing.assert_allclose([read_vector(each) for each in taken.values()], tiny.encode(list(taken)), atol=1e-5)
    refused = [answer for text, answer in answers.items() if text not in taken]
    assert {each.headers["Retry-After"] for each in refused} == {"1"}
    assert {each.json()["error"]["code"] for each in refused} == {"rate_limit_exceeded"}


def test_a_client_that_goes_away_frees_its_place(url: str, lock: Path) -> None:
    replicas = list_processes(REPLICA)
    with hold_up(lock):
        replica = None
        # Again where the answer asks for that: the proxy may not know yet that a replica was killed.
        while replica is None:
            with socket.create_connection(read_address(url)) as client:
                body = json.dumps({"input": "a"}).encode()
                head = "POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nAuthorization: "
                client.sendall(f"{head}Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                with suppress(AskedAgain):
                    replica = wait_for_in_flight(url, 1, lambda: read_what_came(client))
        wait_for_in_flight(url, 0, lambda: describe_dead(replicas), replica)


class AskedAgain(Exception):
    """The answer is 503."""


def read_address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def read_what_came(client: socket.socket) -> str | None:
    """An answer that has come, or the end of the connection; ``None`` before that.

    Raises:
        AskedAgain: It is one after which clients ask again.
    """
    readable, _, _ = select.select([client], [], [], 0)
    if not readable:
        return None
    answer = client.recv(2**16)
    if answer.startswith(b"HTTP/1.1 503 "):
        raise AskedAgain
    return f"answered {answer!r}"


def describe_dead(processes: Sequence[psutil.Process]) -> str | None:
    dead = [each for each in processes if not each.is_running()]
    return f"dead: {dead}" if dead else None


def wait_for_in_flight(url: str, count: int, find_end: Callable[[], str | None], replica: str = r"\w+") -> str:
    """Wait until a replica has so many requests, and return its name.

    Args:
        url: The server.
        count: How many.
        find_end: Returns what has ended, the request or a replica, after which it cannot come to that.
        replica: What the replica's name has to match.
    """
    line = re.compile(rf'^st_modules_requests_in_flight{{replica="({replica})"}} {count}.0$', re.MULTILINE)
    # Several at a time: one after the other, they would all go to the replica that has nothing to do.
    asked = 2 * REPLICAS.replicas
    with ThreadPoolExecutor(asked) as pool:
        while True:
            end = find_end()  # asked first: what ends while the replica answers may be in its answer
            for figures in pool.map(read_figures, [url] * asked):
                if found := line.search(figures):
                    return found.group(1)
            if end is not None:
                pytest.fail(f"{count} requests in flight were never seen: {end}")


def read_figures(url: str) -> str:
    return httpx.get(f"{url}/metrics", timeout=60).text


def test_a_cluster_that_serves_already_is_refused(url: str, lock: Path) -> None:
    another = run_app(partial(load_held, lock), REPLICAS, LIMITS, "127.0.0.1", find_free_port(), 60)
    with pytest.raises(ArgumentError, match="runs on this cluster already"), another:
        pass
    assert embed(url, "a").is_success
