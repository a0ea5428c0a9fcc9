"""The scores that the models' authors print, and whether a loaded model gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from st_modules.images import ImageSource

if TYPE_CHECKING:
    from st_modules.model import SentenceTransformer

Item = Mapping[str, str]

TOLERANCE = 0.02
"""How far a score may be from the published one, which is that of a float16 run."""


@dataclass(frozen=True)
class Score:
    """One published similarity.

    Attributes:
        label: What is compared with what.
        query: Text and/or image URL of one side, which takes the instruction.
        document: Text and/or image URL of the other side.
        published: The score that the source prints.
        prompt: The query's instruction; ``None`` is the model's default.
    """

    label: str
    query: Item
    document: Item
    published: float
    prompt: str | None = None


@dataclass(frozen=True)
class PublishedScores:
    """The scores of one source.

    Attributes:
        source: Where they are printed, and anything that is uncertain about them.
        scores: The scores.
    """

    source: str
    scores: tuple[Score, ...]


_COMMONS = "https://upload.wikimedia.org/wikipedia/commons"
_WINDOW = f"{_COMMONS}/e/e9/Tesla_Cybertruck_damaged_window.jpg"
_FRONT = f"{_COMMONS}/9/95/2024_Tesla_Cybertruck_Foundation_Series%2C_front_left_%28Greenwich%29.jpg"
_OFFICE = f"{_COMMONS}/e/e0/TaobaoCity_Alibaba_Xixi_Park.jpg"
_WHAT_CAR = "What kind of car is this?"
_CYBERTRUCK = "The Tesla Cybertruck is a battery electric pickup truck built by Tesla, Inc. since 2023."
_ALIBABA = "Alibaba office."
_FIND_IMAGE = "Find an image that matches the given text."


def _pair(label: str, text: str, image: str, plain: float, instructed: float) -> tuple[Score, Score]:
    query, document = {"text": text}, {"image": image}
    return (
        Score(label, query, document, plain),
        Score(f"{label}, with instruction", query, document, instructed, _FIND_IMAGE),
    )


def _fused(text: str, image: str) -> Item:
    return {"text": text, "image": image}


_TWO_CYBERTRUCKS = PublishedScores(
    "gme-Qwen2-VL-7B-Instruct's model card of December 2024 (float16); it does not say which size printed them",
    (
        *_pair("question · damaged window", _WHAT_CAR, _WINDOW, 0.2281, 0.2433),
        *_pair("description · front left", _CYBERTRUCK, _FRONT, 0.6001, 0.7051),
        Score("both fused", _fused(_WHAT_CAR, _WINDOW), _fused(_CYBERTRUCK, _FRONT), 0.6108),
    ),
)
_TRUCK_AND_OFFICE = PublishedScores(
    "public scripts that run gme-Qwen2-VL-2B-Instruct in float16 with the scores as comments",
    (
        *_pair("Cybertruck · Cybertruck", _CYBERTRUCK, _WINDOW, 0.3596, 0.4299),
        *_pair("Cybertruck · office", _CYBERTRUCK, _OFFICE, 0.0656, 0.1151),
        *_pair("office · Cybertruck", _ALIBABA, _WINDOW, 0.0418, 0.0498),
        *_pair("office · office", _ALIBABA, _OFFICE, 0.3748, 0.4094),
        Score("both fused", _fused(_CYBERTRUCK, _WINDOW), _fused(_ALIBABA, _OFFICE), 0.0551),
    ),
)

PUBLISHED: Mapping[str, PublishedScores] = {"gme-2b": _TRUCK_AND_OFFICE, "gme-7b": _TWO_CYBERTRUCKS}
"""Published scores by the catalog's names."""


def fetch_images(scores: Sequence[Score]) -> dict[str, Any]:
    """Fetch every picture that the scores are about.

    Returns:
        PIL images by URL.

    Raises:
        ImageError: A picture cannot be fetched.
    """
    urls = {item["image"] for score in scores for item in (score.query, score.document) if "image" in item}
    return {url: ImageSource(url, label="example picture").load() for url in sorted(urls)}


def measure(model: SentenceTransformer, score: Score, images: Mapping[str, Any]) -> float:
    """Compute the similarity that a model gives.

    Args:
        model: The model.
        score: What to compare.
        images: The pictures by URL.
    """
    query = model.encode_query(_filled(score.query, images), prompt=score.prompt)
    document = model.encode_document(_filled(score.document, images))
    return float(query @ document)


def _filled(item: Item, images: Mapping[str, Any]) -> dict[str, Any]:
    return {name: images[value] if name == "image" else value for name, value in item.items()}
