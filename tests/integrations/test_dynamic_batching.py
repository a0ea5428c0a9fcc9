"""Calls that wait at the same time run together, and stay apart in everything else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from st_modules.integrations.dynamic_batching import DynamicBatcher

LONG = 1.0
Call = Callable[[list[Any], Mapping[str, Any], float], Coroutine[Any, Any, list[Any]]]


def gatherer(run: Callable[[list[Any], Mapping[str, Any]], list[Any]], **options: Any) -> Call:
    """A gatherer whose calls fail where they would be waited for without end."""
    gather = DynamicBatcher(run, **options)
    return lambda *call: asyncio.wait_for(gather(*call), 30)


class Stop(BaseException):
    """An exception that ``except Exception`` does not catch."""


class Doubler:
    """Doubles numbers and remembers the batches; it fails at what it is told, and can be held up."""

    def __init__(self, failing: BaseException | None = None) -> None:
        self.failing = failing
        self.batches: list[list[Any]] = []
        self.options: list[Mapping[str, Any]] = []
        self.entered = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, items: list[Any], options: Mapping[str, Any]) -> list[Any]:
        self.batches.append(items)
        self.options.append(options)
        self.entered.set()
        assert self.may_go_on.wait(30)
        if "bad" in items and self.failing:
            raise self.failing
        return [item * 2 for item in items]


async def test_calls_that_wait_together_run_as_one_and_get_their_own_results() -> None:
    double = Doubler()
    gather = gatherer(double)
    results = await asyncio.gather(*(gather([number, -number], {}, LONG) for number in range(64)))
    assert results == [[2 * number, -2 * number] for number in range(64)]
    assert len(double.batches) == 1


async def test_a_call_alone_runs_alone() -> None:
    double = Doubler()
    assert await gatherer(double)([1, 2, 3], {}, 0) == [2, 4, 6]
    assert double.batches == [[1, 2, 3]]


async def test_where_no_thread_starts_the_call_fails_and_the_next_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    double = Doubler()
    gather = gatherer(double)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            await gather([1], {}, 0.0)
    assert await gather([2], {}, 0.0) == [4]
    assert double.batches == [[2]]


async def test_calls_that_come_while_others_run_are_gathered_without_a_delay() -> None:
    double = Doubler()
    gather = gatherer(double)
    double.may_go_on.clear()
    first = asyncio.create_task(gather([0], {}, 0))
    await asyncio.to_thread(double.entered.wait)
    later = [asyncio.create_task(gather([number], {}, 0)) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    double.may_go_on.set()
    assert await asyncio.gather(first, *later) == [[0], [2], [4], [6]]
    assert double.batches == [[0], [1, 2, 3]]


async def test_the_event_loop_goes_on_while_a_call_runs() -> None:
    double = Doubler()
    double.may_go_on.clear()
    call = asyncio.create_task(gatherer(double)([1], {}, 0))
    await asyncio.to_thread(double.entered.wait)
    assert not call.done()
    double.may_go_on.set()
    assert await call == [2]


@pytest.mark.parametrize("failing", [ValueError("no"), KeyError("no"), Stop("no")], ids=repr)
async def test_one_bad_call_fails_alone_with_its_own_error(failing: BaseException) -> None:
    double = Doubler(failing)
    calls: list[list[Any]] = [[number] for number in range(9)] + [["bad"]] + [[number] for number in range(9)]
    gather = gatherer(double)
    results = await asyncio.gather(*(gather(call, {}, LONG) for call in calls), return_exceptions=True)
    assert results.pop(9) is failing
    assert results == [[2 * number] for number in range(9)] * 2


async def test_after_an_error_calls_go_on() -> None:
    gather = gatherer(Doubler(ValueError("no")))
    with pytest.raises(ValueError, match="no"):
        await gather(["bad"], {}, 0)
    assert await gather([1], {}, 0) == [2]


async def test_a_cancelled_call_is_left_out_and_the_others_run() -> None:
    double = Doubler()
    gather = gatherer(double)
    double.may_go_on.clear()
    first = asyncio.create_task(gather([0], {}, 0))
    await asyncio.to_thread(double.entered.wait)
    cancelled, kept = (asyncio.create_task(gather([number], {}, 0)) for number in (1, 2))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    double.may_go_on.set()
    assert await asyncio.gather(first, kept) == [[0], [4]]
    assert double.batches == [[0], [2]]


async def test_a_call_cancelled_while_it_runs_leaves_its_company_alone() -> None:
    double = Doubler()
    gather = gatherer(double)
    double.may_go_on.clear()
    cancelled, kept = (asyncio.create_task(gather([number], {}, LONG)) for number in (1, 2))
    await asyncio.to_thread(double.entered.wait)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    double.may_go_on.set()
    assert await kept == [4]
    assert await gather([3], {}, 0) == [6]


async def test_only_calls_with_equal_options_run_together() -> None:
    double = Doubler()
    gather = gatherer(double)
    await asyncio.gather(*(gather([number], {"prompt": "ab"[number % 2]}, LONG) for number in range(6)))
    assert double.batches == [[0, 2, 4], [1, 3, 5]]
    assert double.options == [{"prompt": "a"}, {"prompt": "b"}]


async def test_a_batch_has_a_limit_and_a_longer_call_runs_whole() -> None:
    double = Doubler()
    gather = gatherer(double, max_weight=5)
    await asyncio.gather(*(gather([number] * size, {}, LONG) for number, size in enumerate([3, 2, 1, 9, 4])))
    assert double.batches == [[0, 0, 0, 1, 1], [2, 4, 4, 4, 4], [3] * 9]


async def test_a_batch_has_a_limit_of_what_its_items_weigh() -> None:
    double = Doubler()
    gather = gatherer(double, max_weight=10, weigh=lambda number: number)
    await asyncio.gather(*(gather([number], {}, LONG) for number in (4, 5, 2, 20, 1)))
    assert double.batches == [[4, 5, 1], [2], [20]]


async def test_what_waits_is_counted_and_a_cancelled_call_weighs_nothing() -> None:
    double = Doubler()
    gather = DynamicBatcher(double, max_weight=2)
    double.may_go_on.clear()
    first = asyncio.create_task(gather([0], {}, 0))
    await asyncio.to_thread(double.entered.wait)
    cancelled, *kept = (asyncio.create_task(gather([number], {}, 0)) for number in (1, 2, 3))
    await asyncio.sleep(0)
    assert gather.waiting == 3
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert gather.waiting == 2
    double.may_go_on.set()
    assert await asyncio.wait_for(asyncio.gather(first, *kept), 30) == [[0], [4], [6]]
    assert double.batches == [[0], [2, 3]]


def test_it_serves_one_event_loop_after_another() -> None:
    gather = gatherer(Doubler())
    assert [asyncio.run(gather([number], {}, 0)) for number in (1, 2)] == [[2], [4]]


def test_it_serves_event_loops_in_several_threads() -> None:
    double = Doubler()
    gather = gatherer(double)
    results: dict[int, list[Any]] = {}

    def ask(number: int) -> None:
        results[number] = asyncio.run(gather([number], {}, LONG))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [2 * number] for number in range(8)}
    assert len(double.batches) < 8


async def test_no_thread_is_left_when_nothing_waits() -> None:
    double = Doubler()
    await gatherer(double)([1], {}, 0)
    batchers = [thread for thread in threading.enumerate() if thread.name == "st_modules-batcher"]
    for thread in batchers:
        thread.join(30)
    assert [thread for thread in batchers if thread.is_alive()] == []
