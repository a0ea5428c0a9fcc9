"""The drawings of the adapters' tests ask what neither a text nor a picture alone would find."""

from __future__ import annotations

from st_modules import SentenceTransformer
from tests.helpers.gallery import BLUE_CIRCLE, BLUE_STAR, CHANGE, RED_CIRCLE, Gallery


def test_only_picture_and_change_find_the_changed_picture(tiny: SentenceTransformer, gallery: Gallery) -> None:
    pictures = tiny.encode_document(list(gallery.paths))
    queries = [{"text": CHANGE}, {"image": gallery.query}, {"text": CHANGE, "image": gallery.query}]
    assert (tiny.encode_query(queries) @ pictures.T).argmax(axis=1).tolist() == [BLUE_STAR, RED_CIRCLE, BLUE_CIRCLE]
