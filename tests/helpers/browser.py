"""A browser without a window."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, expect, sync_playwright


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium: the system's, or the one that playwright has; the test is skipped where there is none."""
    with sync_playwright() as playwright:
        found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
        path = next(
            (each for each in [*found, playwright.chromium.executable_path] if each and os.path.exists(each)), None
        )
        if path is None:
            pytest.skip("no Chromium: apt-get install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            timeout=120_000,
        )
        # The default is 5 s; a machine that is busy with other tests takes longer to no one's harm.
        expect.set_options(timeout=30_000)
        yield browser
        browser.close()
