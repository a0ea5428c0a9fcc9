"""What is decoded of a ``data:`` URI, and what is not."""

from __future__ import annotations

import random
from urllib.parse import unquote_to_bytes

import pytest

from st_modules.errors import ImageError
from st_modules.inputs import data_uris
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits


def test_escapes_of_a_data_uri_are_decoded_as_urllib_does(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(0)
    for _ in range(2000):
        monkeypatch.setattr(data_uris, "_UNQUOTED_AT_ONCE", chance.randrange(3, 9))
        data = bytes(chance.choices(b"%%%aF0g1Zz9", k=chance.randrange(30)))
        assert data_uris._unquote(data) == unquote_to_bytes(data)


@pytest.mark.parametrize("kind", ["data:image/png,", "data:image/png;base64,"])
def test_a_data_uri_that_is_over_the_limit_however_it_is_encoded_is_not_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_uris, "_unquote", lambda data: pytest.fail("it is decoded"))
    with pytest.raises(ImageError, match="401 characters, however they are encoded, are over the limit of 100; "):
        _ = ImageSource(kind + "%" * 401, limits=ImageLimits(max_bytes=100)).size
