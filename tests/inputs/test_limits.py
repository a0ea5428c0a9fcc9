"""``ImageLimits`` is made of limits that something can be within."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest

from st_modules import ImageLimits

TIMEOUTS = [
    *("max_decode_seconds", "max_video_seconds", "max_video_decode_seconds"),
    *("connect_timeout", "read_timeout", "total_timeout"),
]
NUMBERS = ["max_bytes", "max_pixels", "max_decode_bytes", "max_video_bytes", "max_video_frames"]
FLAGS = ["remote_images", "allow_private_hosts"]
NO_FOLDERS = ["no such folder", "", "\0", __file__, b"/", 0, 1, None]
BAD: dict[str, list[Any]] = {
    **dict.fromkeys(NUMBERS, [0, -1, 1.5, math.nan, math.inf, "5", None, True]),
    "max_redirects": [-1, 1.5, math.nan, "5", None, False],
    **dict.fromkeys(TIMEOUTS, [0, -1, math.nan, math.inf, 1e300, "5", None, True]),
    **dict.fromkeys(FLAGS, ["no", "", 0, 1, None]),
    "local_files": NO_FOLDERS,
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD for value in BAD[name]])
def test_a_value_that_is_no_limit_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}={re.escape(repr(value))}: pass "):
        ImageLimits(**{name: value})


def test_every_limit_is_checked() -> None:
    assert BAD.keys() == {field.name for field in dataclasses.fields(ImageLimits)}


@pytest.mark.parametrize("changes", [{"max_redirects": 0}, {"max_bytes": 1}, {"read_timeout": 0.01}, {"max_pixels": 1}])
def test_the_strictest_limits_are_limits(changes: dict[str, Any]) -> None:
    limits = ImageLimits(**changes)
    assert {name: getattr(limits, name) for name in changes} == changes
