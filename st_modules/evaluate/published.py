"""The scores that the models' authors print, and whether a loaded model gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from st_modules.inputs.images import ImageSource

if TYPE_CHECKING:
    from st_modules.model import SentenceTransformer

Item = Mapping[str, str]

TOLERANCE = 0.02
"""How far a score may be from the published one, which may be that of a run in 16 bits."""


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


def _fuse(text: str, image: str) -> Item:
    return {"text": text, "image": image}


_TWO_CYBERTRUCKS = PublishedScores(
    "gme-Qwen2-VL-7B-Instruct's model card of December 2024 (float16); it does not say which size printed them",
    (
        *_pair("question · damaged window", _WHAT_CAR, _WINDOW, 0.2281, 0.2433),
        *_pair("description · front left", _CYBERTRUCK, _FRONT, 0.6001, 0.7051),
        Score("both fused", _fuse(_WHAT_CAR, _WINDOW), _fuse(_CYBERTRUCK, _FRONT), 0.6108),
    ),
)
_TRUCK_AND_OFFICE = PublishedScores(
    "public scripts that run gme-Qwen2-VL-2B-Instruct in float16 with the scores as comments",
    (
        *_pair("Cybertruck · Cybertruck", _CYBERTRUCK, _WINDOW, 0.3596, 0.4299),
        *_pair("Cybertruck · office", _CYBERTRUCK, _OFFICE, 0.0656, 0.1151),
        *_pair("office · Cybertruck", _ALIBABA, _WINDOW, 0.0418, 0.0498),
        *_pair("office · office", _ALIBABA, _OFFICE, 0.3748, 0.4094),
        Score("both fused", _fuse(_CYBERTRUCK, _WINDOW), _fuse(_ALIBABA, _OFFICE), 0.0551),
    ),
)

_EXAMPLE = "https://raw.githubusercontent.com/TIGER-AI-Lab/VLM2Vec/main/figures/example.jpg"
_WHAT_IS_IN = {"text": "What is in the image", "image": _EXAMPLE}
_QUESTION = "Represent the given image with the following question:"


def _ask_what_is_in(dog: float, tiger: float) -> tuple[Score, Score]:
    return (
        Score("picture with question · dog", _WHAT_IS_IN, {"text": "A cat and a dog"}, dog, _QUESTION),
        Score("picture with question · tiger", _WHAT_IS_IN, {"text": "A cat and a tiger"}, tiger, _QUESTION),
    )


_BEACH = "A woman playing with her dog on a beach at sunset."
_RETRIEVER = (
    "A woman shares a joyful moment with her golden retriever on a sun-drenched beach at sunset, as the dog offers its "
    "paw in a heartwarming display of companionship and trust."
)
_DEMO = "https://qianwen-res.oss-cn-beijing.aliyuncs.com/Qwen-VL/assets/demo.jpeg"
_RETRIEVE = "Retrieve images or text relevant to the user's query."
_WOMAN_AND_DOG = PublishedScores(
    "examples/embedding_vllm.ipynb of Qwen3-VL-Embedding (bfloat16, by vLLM, which has bounds of its own for pictures)",
    (
        Score("beach · text", {"text": _BEACH}, {"text": _RETRIEVER}, 0.7896, _RETRIEVE),
        Score("beach · picture", {"text": _BEACH}, {"image": _DEMO}, 0.7156, _RETRIEVE),
        Score("beach · picture and text", {"text": _BEACH}, _fuse(_RETRIEVER, _DEMO), 0.7236, _RETRIEVE),
    ),
)

_FIND_CAPTION = "Find me an everyday image that matches the given caption:"
_THE_PICTURE = {"image": _EXAMPLE}
_EXAMPLES = "experiments/examples of VLM2Vec (bfloat16)"

_VISUAL_BGE = "https://raw.githubusercontent.com/FlagOpen/FlagEmbedding/master/research/visual_bge/imgs"
_AT_NIGHT = "Make the background dark, as if the camera has taken the photo at night"
_NIGHT = _fuse(_AT_NIGHT, f"{_VISUAL_BGE}/cir_query.png")
_HORSE = _fuse("一匹马牵着这辆车", f"{_VISUAL_BGE}/cir_query.png")
_CANDIDATES = ({"image": f"{_VISUAL_BGE}/cir_candi_1.png"}, {"image": f"{_VISUAL_BGE}/cir_candi_2.png"})
_SIDEWALKS = {"text": "Are there sidewalks on both sides of the Mid-Hudson Bridge?"}
_MID_HUDSON = "The Mid-Hudson Bridge, spanning the Hudson River between Poughkeepsie and Highland."
_LANDMARK = (
    "The Mid-Hudson Bridge was designated as a New York State Historic Civil Engineering Landmark by the American "
    'Society of Civil Engineers in 1983. The bridge was renamed the "Franklin Delano Roosevelt Mid-Hudson Bridge" in '
    "1994."
)
_VISUALIZED_BASE = PublishedScores(
    "bge-visualized's model card",
    (
        Score("night · first candidate", _NIGHT, _CANDIDATES[0], 0.8750),
        Score("night · second candidate", _NIGHT, _CANDIDATES[1], 0.7816),
        Score("bridge · picture and text", _SIDEWALKS, _fuse(_MID_HUDSON, f"{_VISUAL_BGE}/wiki_candi_1.jpg"), 0.6932),
        Score("bridge · another", _SIDEWALKS, _fuse("Golden_Gate_Bridge", f"{_VISUAL_BGE}/wiki_candi_2.jpg"), 0.4441),
        Score("bridge · text", _SIDEWALKS, {"text": _LANDMARK}, 0.6415),
    ),
)
_VISUALIZED_M3 = PublishedScores(
    "bge-visualized's model card",
    (
        Score("horse · first candidate", _HORSE, _CANDIDATES[0], 0.7026),
        Score("horse · second candidate", _HORSE, _CANDIDATES[1], 0.8075),
    ),
)

_UNITE = "https://raw.githubusercontent.com/friedrichor/UNITE/main/inference/examples"
_REINDEER = (
    "The book titled 'Riding with Reindeer - A Bicycle Odyssey through Finland, Lapland, and the Arctic' provides a "
    "detailed account of a journey that explores the regions of Lapland and the Arctic, focusing on the experience of "
    "riding with reindeer."
)
_PLACE = "What is the name of this place?"

PUBLISHED: Mapping[str, PublishedScores] = {
    "gme-2b": _TRUCK_AND_OFFICE,
    "gme-7b": _TWO_CYBERTRUCKS,
    "qwen3-vl-embedding-2b": _WOMAN_AND_DOG,
    "unite-qwen2vl-2b": PublishedScores(
        "inference/inference_demo.py of UNITE (bfloat16)",
        (
            Score("book · cover", {"text": _REINDEER}, {"image": f"{_UNITE}/518L0uDGe0L.jpg"}, 0.7500),
            Score(
                "both fused",
                _fuse(_PLACE, f"{_UNITE}/oven_05011373.jpg"),
                _fuse("Marina Beach.", f"{_UNITE}/Q673659.jpg"),
                0.7695,
            ),
        ),
    ),
    "vlm2vec-qwen2vl-2b": PublishedScores(
        "VLM2Vec-Qwen2VL-2B's model card (bfloat16)", _ask_what_is_in(0.2500, 0.1865)
    ),
    "vlm2vec-qwen2vl-7b": PublishedScores(f"qwen2vl/demo_v1_image.py in {_EXAMPLES}", _ask_what_is_in(0.3281, 0.2871)),
    "vlm2vec-v2": PublishedScores(
        f"qwen2vl/demo_v2_image.py in {_EXAMPLES}, those of its batch; the others are the ones of the 7B's demo",
        _ask_what_is_in(0.2974, 0.2390),
    ),
    "vlm2vec-llava-next": PublishedScores(f"llava_next/demo.py in {_EXAMPLES}", _ask_what_is_in(0.4414, 0.3555)),
    "vlm2vec-phi3.5-v": PublishedScores(
        f"phi3_v/demo.py in {_EXAMPLES}, which sets num_crops=16; the README and the evaluation of the release have 4, "
        "as this package, so that scores may be further away than those of other models",
        (
            *_ask_what_is_in(0.3008, 0.2051),
            Score("caption · picture, dog", {"text": "A cat and a dog."}, _THE_PICTURE, 0.2930, _FIND_CAPTION),
            Score("caption · picture, tiger", {"text": "A cat and a tiger."}, _THE_PICTURE, 0.2012, _FIND_CAPTION),
        ),
    ),
    "bge-visualized-base": _VISUALIZED_BASE,
    "bge-visualized-m3": _VISUALIZED_M3,
}
"""Published scores by the catalog's names."""


@dataclass(frozen=True)
class Instead:
    """What to compare of a model whose authors print no similarities.

    Attributes:
        benchmark: The name that ``st-modules evaluate --benchmark`` takes.
        published: Where its scores are printed, and what they are.
    """

    benchmark: str
    published: str


def _circo(score: float) -> Instead:
    return Instead("circo", f"an mAP@5 of {score} in the paper of MegaPairs (arXiv:2412.14475)")


def _umrb(score: float) -> Instead:
    return Instead("umrb", f"an average of {score} in the paper of GME (arXiv:2412.16855)")


_MEGAPAIRS = Instead("mmeb", "the tables in the README of MegaPairs")

INSTEAD: Mapping[str, Instead] = {
    "qwen3-vl-embedding-8b": Instead("mmeb", "the overall score on images, 80.1, in the README of Qwen3-VL-Embedding"),
    **dict.fromkeys(("ops-mm-v1-2b", "ops-mm-v1-7b"), Instead("mmeb", "the MMEB scores of its model card")),
    "rzen-embed": Instead("mmeb", "the tables of RzenEmbed's paper (arXiv:2510.27350)"),
    "bge-vl-base": _circo(34.3),
    "bge-vl-large": _circo(39.2),
    "bge-vl-mllm-s1": _circo(42.2),
    "bge-vl-mllm-s2": _MEGAPAIRS,
    "bge-vl-v1.5-zs": _MEGAPAIRS,
    "bge-vl-v1.5-mmeb": _MEGAPAIRS,
    "clip-sf-large": _umrb(43.66),
    "e5-v": _umrb(42.52),
    "vlm2vec-phi3.5-v-lora": Instead("mmeb", "the tables in the README of VLM2Vec"),
    "vdr-2b-multi": Instead(
        "ViDoRe(v1)", "an average nDCG@5 of 84.0 in its author's post (huggingface.co/blog/vdr-2b-multilingual)"
    ),
    **dict.fromkeys(
        ("dse-qwen2-2b", "dse-phi3", "dse-phi3-docmatix"), Instead("ViDoRe(v1)", "the nDCG@5 of ViDoRe's leaderboard")
    ),
}
"""What to compare, by the catalog's names, of the models that are not in ``PUBLISHED``."""


def fetch_images(scores: Sequence[Score]) -> dict[str, Any]:
    """Fetch every picture that the scores are about.

    Returns:
        PIL images by URL.

    Raises:
        ImageError: A picture cannot be fetched.
    """
    urls = {item["image"] for score in scores for item in (score.query, score.document) if "image" in item}
    return {url: ImageSource(url, place="example picture").load() for url in sorted(urls)}


def measure(model: SentenceTransformer, score: Score, images: Mapping[str, Any]) -> float:
    """Compute the similarity that a model gives.

    Args:
        model: The model.
        score: What to compare.
        images: The pictures by URL.
    """
    query = model.encode_query(_fill(score.query, images), prompt=score.prompt)
    document = model.encode_document(_fill(score.document, images))
    return float(query @ document)


def _fill(item: Item, images: Mapping[str, Any]) -> dict[str, Any]:
    return {name: images[value] if name == "image" else value for name, value in item.items()}
