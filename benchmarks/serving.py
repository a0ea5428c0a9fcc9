"""Measure the server over HTTP on this machine: throughput, latency, whose vector each answer has, and memory.

Run ``python benchmarks/serving.py``, or ``python benchmarks/serving.py gme-2b --clients 1 8 64`` for another model.
Every number of clients asks for the same items, a request each, texts and pictures mixed. All of them run in turns, and
every answer is compared with ``encode``. The plain server is what is written by hand most often: a FastAPI route that
calls ``encode`` for each request. The ratios are those of one round, and the median of the rounds, with the least and
the most. Then ``--mixed`` requests of several APIs are sent at once, and each answer is compared with ``encode``.

``--memory 20000`` sends so many requests instead, and shows what memory the server's process has meanwhile.

Each server is a process of its own. So are the clients, which take their share of the cores.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from fastapi import FastAPI
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from st_modules import SentenceTransformer
from st_modules.demo.drawings import draw
from st_modules.demo.scenes import random_scenes
from st_modules.demo.wording import caption
from st_modules.serve import ServeLimits, create_app
from st_modules.serve.process import run

_CONSOLE = Console(width=120)


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


def make_our_app(model: SentenceTransformer) -> FastAPI:
    return create_app(model, limits=ServeLimits(timeout=600, max_requests=1000))


def make_plain_app(model: SentenceTransformer) -> FastAPI:
    app = FastAPI()

    @app.post("/v1/embeddings")
    def embed(body: dict[str, Any]) -> dict[str, Any]:
        return {"data": [{"embedding": vector.tolist()} for vector in model.encode(body["input"])]}

    return app


def answer(make_app: Callable[[SentenceTransformer], FastAPI], model_name: str, report: Any) -> None:
    """What the process of a server does, until it is terminated."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    disable_progress_bar()
    run(make_app(SentenceTransformer(model_name, keep_prefixes=True)), "127.0.0.1", 0, 10, report.send)


@dataclass
class Server:
    """One that answers."""

    url: str
    process: psutil.Process


@contextmanager
def start(make_app: Callable[[SentenceTransformer], FastAPI], model_name: str) -> Generator[Server, None, None]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=answer, args=(make_app, model_name, there))
    process.start()
    try:
        yield Server(here.recv(), psutil.Process(process.pid))
    finally:
        process.terminate()
        process.join()


async def ask(url: str, bodies: list[tuple[str, Any]], clients: int) -> tuple[float, list[float], list[Any]]:
    """Seconds in all, those of each request, and the answers.

    Each client has a connection of its own. What HTTP libraries do for many of them costs more than the server does.
    """
    address = urlsplit(url)
    requests = [
        f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n".encode()
        + content
        for path, body in bodies
        for content in [json.dumps(body).encode()]
    ]
    answers: list[bytes] = [b""] * len(bodies)
    seconds = [0.0] * len(bodies)
    waiting = list(enumerate(requests))[::-1]

    async def work() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while waiting:
            number, request = waiting.pop()
            start = time.perf_counter()
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            answers[number] = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            seconds[number] = time.perf_counter() - start
            assert b" 200 " in head.split(b"\r\n")[0], answers[number]
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    total = time.perf_counter() - start
    return total, seconds, [json.loads(answer) for answer in answers]


def check(found: list[list[float]], expected: np.ndarray) -> float:
    """The largest difference, which is none."""
    difference = float(np.abs(np.array(found) - expected).max())
    assert difference <= 1e-5, f"the vectors differ by {difference}"
    return difference


def measure(args: argparse.Namespace, model: SentenceTransformer, ours: Server, plain: Server) -> None:
    items = make_items(args.items)
    bodies = [("/v1/embeddings", {"input": [item]}) for item in items]
    expected = model.encode(items)
    runs: dict[tuple[str, int], list[tuple[float, list[float]]]] = {}
    for _ in range(args.rounds):
        for clients in args.clients:
            for name, server in (("st-modules serve", ours), ("a plain loop", plain)):
                total, seconds, answers = asyncio.run(ask(server.url, bodies, clients))
                check([each["data"][0]["embedding"] for each in answers], expected)
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
    _CONSOLE.print(table)


def mix(args: argparse.Namespace, model: SentenceTransformer, server: Server) -> None:
    """Send requests of three APIs at once, of which no two ask for the same."""
    items = [{**item, "text": f"{number}: {item.get('text')}"} for number, item in enumerate(make_items(args.mixed))]
    kinds = [
        lambda item: ("/v1/embeddings", {"input": [item]}),
        lambda item: ("/v1/embeddings", {"input": [item], "side": "query", "instruction": "Find it."}),
        lambda item: ("/v2/embed", {"input_type": "search_document", "texts": [item["text"]]}),
        lambda item: ("/embed", {"inputs": item, "side": "query"}),
    ]
    bodies = [kinds[number % 4](item) for number, item in enumerate(items)]
    total, _, answers = asyncio.run(ask(server.url, bodies, args.mixed))
    expected = np.empty((len(items), model.get_embedding_dimension() or 0), np.float32)
    expected[0::4] = model.encode(items[0::4])
    expected[1::4] = model.encode_query(items[1::4], prompt="Find it.")
    expected[2::4] = model.encode_document([{"text": item["text"]} for item in items[2::4]])
    expected[3::4] = model.encode_query(items[3::4])
    takes = [
        lambda answer: answer["data"][0]["embedding"],
        lambda answer: answer["data"][0]["embedding"],
        lambda answer: answer["embeddings"]["float"][0],
        lambda answer: answer[0],
    ]
    difference = check([takes[number % 4](each) for number, each in enumerate(answers)], expected)
    _CONSOLE.print(
        f"{args.mixed} mixed requests at once: each has its own vector, to {difference:.0e}, in {total:.1f} s."
    )


def watch_memory(args: argparse.Namespace, server: Server) -> None:
    """Send many requests, no two of them alike, and show the server's memory."""
    items = make_items(256)
    table = Table("requests", "memory (RSS)", "since the first tenth")
    memory: list[float] = []
    for done in range(args.memory // 20, args.memory + 1, args.memory // 20):
        count = args.memory // 20
        bodies = []
        for number in range(done - count, done):
            item = items[number % len(items)]
            bodies.append(("/v1/embeddings", {"input": [{**item, "text": f"{number} {item.get('text', '')}"}]}))
        asyncio.run(ask(server.url, bodies, 16))
        memory.append(server.process.memory_info().rss / 2**20)
        grown = f"{memory[-1] - memory[1]:+.1f} MiB" if len(memory) > 2 else ""
        table.add_row(str(done), f"{memory[-1]:.1f} MiB", grown)
    _CONSOLE.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--items", type=int, default=512)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mixed", type=int, default=1000)
    parser.add_argument("--memory", type=int, default=0, help="send so many requests, at least 20, and nothing else")
    args = parser.parse_args()

    disable_progress_bar()
    _CONSOLE.print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with start(make_our_app, args.model) as ours:
        if args.memory:
            watch_memory(args, ours)
            return
        model = SentenceTransformer(args.model)
        with start(make_plain_app, args.model) as plain:
            measure(args, model, ours, plain)
        mix(args, model, ours)


if __name__ == "__main__":
    main()
