"""One budget for the pixels of all threads: never more in use, everybody served, nothing left over."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from st_modules.errors import ImageError
from st_modules.inputs import image_decoding, pixel_budget
from st_modules.inputs.images import ImageSource
from st_modules.inputs.pixel_budget import PIXELS, PixelBudget, read_within_budget


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> PixelBudget:
    """A small budget in the place of the process's."""
    small = PixelBudget(30_000)
    for module in (pixel_budget, image_decoding):
        monkeypatch.setattr(module, "PIXELS", small)
    return small


def picture(side: int = 20) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (1, 2, 3)).save(stream, "PNG")
    return stream.getvalue()


def test_many_threads_never_hold_more_than_there_is() -> None:
    budget, lock = PixelBudget(100), threading.Lock()
    held, totals = [0], []
    sizes = [1, 30, 60, 99, 100, 500] * 20

    def use(size: int) -> int:
        with budget.hold(size):
            with lock:
                held[0] += min(size, 100)
                totals.append((held[0], budget.in_use))
            with lock:
                held[0] -= min(size, 100)
        return size

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(use, sizes)) == sizes
    assert max(total for total, _ in totals) <= 100
    assert max(in_use for _, in_use in totals) <= 100
    assert budget.in_use == 0


def test_a_thread_that_holds_some_does_not_wait_for_more() -> None:
    budget = PixelBudget(100)
    with budget.hold(60), budget.hold(100):
        assert budget.in_use == 60
    assert budget.in_use == 0


def test_who_asked_first_is_served_first() -> None:
    budget, order = PixelBudget(100), []
    asked = threading.Event()

    def use(size: int) -> None:
        with budget.hold(size):
            order.append(size)

    with ThreadPoolExecutor(2) as threads, budget.hold(50):
        large = threads.submit(lambda: (asked.set(), use(90)))
        asked.wait()
        while not budget.waiting and not large.done():
            pass
        assert not large.done()
        small = threads.submit(use, 10)  # there is room for it, but not before its turn
        while budget.waiting < 2 and not small.done():
            pass
        assert not small.done()
    assert (large.done(), small.done(), order[0]) == (True, True, 90)


def test_what_raises_gives_back() -> None:
    budget = PixelBudget(100)
    with pytest.raises(KeyError), budget.hold(100):
        raise KeyError
    assert budget.in_use == 0
    with budget.hold(100):
        assert budget.in_use == 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_the_whole_budget() -> None:
    with PIXELS.hold(10):
        child = os.fork()
        if not child:
            os._exit(0 if PIXELS.in_use == 0 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert PIXELS.in_use == 10


def test_images_read_in_many_threads_share_the_budget(budget: PixelBudget) -> None:
    sources = [ImageSource(picture(side)) for side in (10, 40, 50, 80) * 10]
    found: list[int] = []

    def read(image: ImageSource) -> int:
        pixels = image.load()
        found.append(budget.in_use)
        return pixels.width

    with ThreadPoolExecutor(16) as threads:
        widths = list(threads.map(lambda source: read_within_budget(read, source), sources))
    assert widths == [10, 40, 50, 80] * 10
    assert 0 < min(found) <= max(found) <= budget.capacity
    assert budget.in_use == 0


def test_the_memory_of_an_image_counts_its_pixels_and_their_copy() -> None:
    assert ImageSource(picture(20)).memory == ImageSource(Image.new("RGB", (20, 20))).memory == 2 * 4 * 400


def test_an_image_that_cannot_be_read_holds_nothing(budget: PixelBudget) -> None:
    with pytest.raises(ImageError):
        read_within_budget(ImageSource.load, ImageSource(picture()[:60]))
    assert budget.in_use == 0
