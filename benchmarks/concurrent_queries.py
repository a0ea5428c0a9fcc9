"""Time many queries awaited at once beside the same queries awaited one by one, through the adapters.

Run ``make bench``, or ``python benchmarks/concurrent_queries.py gme-2b`` for another model. The two are timed in turns
on equal vectors; one by one nothing is waited for. The last column is the median over several rounds of one round's
ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import numpy as np
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from langchain_gme import GMEEmbeddings
from llamaindex_gme import GMEEmbedding
from st_modules import SentenceTransformer
from st_modules.demo.scenes import random_scenes
from st_modules.demo.wording import caption

Embed = Callable[[str], Awaitable[list[float]]]


async def one_by_one(embed: Embed, queries: list[str]) -> list[list[float]]:
    return [await embed(query) for query in queries]


async def at_once(embed: Embed, queries: list[str]) -> list[list[float]]:
    return await asyncio.gather(*map(embed, queries))


async def compare(alone: Embed, gathered: Embed, queries: list[str], rounds: int) -> list[tuple[float, float]]:
    """Seconds of a round, one by one and at once."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        expected = await one_by_one(alone, queries)
        middle = time.perf_counter()
        found = await at_once(gathered, queries)
        seconds.append((middle - start, time.perf_counter() - middle))
        difference = np.abs(np.array(expected) - np.array(found)).max()
        assert difference <= 1e-5, f"the vectors differ by {difference}"
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()

    disable_progress_bar()
    model = SentenceTransformer(args.model)
    queries = [caption(scene) for scene in random_scenes(1, args.queries)]
    adapters: dict[str, Callable[[float], Embed]] = {
        "GMEEmbeddings.aembed_query": lambda delay: GMEEmbeddings(model=model, batch_delay=delay).aembed_query,
        "GMEEmbedding.aget_query_embedding": lambda delay: GMEEmbedding(model, batch_delay=delay).aget_query_embedding,
    }
    table = Table("Method", "batch_delay", f"{args.queries} one by one", f"{args.queries} at once", "times as fast")
    for name, adapter in adapters.items():
        for delay in (0.0, 0.005, 0.02):
            seconds = asyncio.run(compare(adapter(0.0), adapter(delay), queries, args.rounds))
            alone, together = (statistics.median(column) for column in zip(*seconds, strict=True))
            ratio = statistics.median(before / after for before, after in seconds)
            table.add_row(name, f"{delay * 1000:g} ms", f"{alone:.2f} s", f"{together:.2f} s", f"{ratio:.1f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
