"""The model card of the embedded model."""

from __future__ import annotations

from pathlib import Path

import sentence_transformers
import torch
import transformers
from safetensors import safe_open
from tiny_data import PROMPTS
from tiny_scores import Score, table

_CARD = """---
license: apache-2.0
language: en
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- multimodal
- qwen2_vl
---

# tiny

The model that ships with st-modules: a Qwen2-VL shrunk to {parameters:,} parameters with its own small tokenizer,
trained on nothing but drawings made by code. It embeds text, images, and images with a text into one space of
{dimension} dimensions, loads without network, and is what the demonstration, the documentation and the tests run on.

It knows drawings of one to three equal shapes of one colour on a plain background, as in
`st_modules/demo/scenes.py`, and English descriptions of them. Descriptions that leave out several of shape, colour,
size, count, place and background, and texts in capitals, are much less reliable than the complete ones that are scored
below. It has seen no photograph: for anything else use one of the published models.

## Use

```python
from st_modules import SentenceTransformer

model = SentenceTransformer("tiny")
pictures = model.encode(["red_circle.png", "blue_star.png"])
query = model.encode("a large blue star", prompt_name="t2i")
print(model.similarity(query, pictures))
```

Instructions (`prompt_name=`) say what a query looks for; items that are searched get none.

{prompts}

## Training

    python tools/tiny/train_tiny.py st_modules/assets/tiny --seed {seed}

took {minutes:.0f} minutes on {threads} CPU threads (torch {torch}, transformers {transformers},
sentence-transformers {sentence_transformers}): in-batch ranking, helped by a classification of the embeddings into
the attributes of their scenes, whose classifiers are dropped afterwards. The weights are stored as float16
({megabytes:.1f} MB, the whole folder {folder_megabytes:.1f} MB).

## Scores

On drawings that training held out: half of the queries are about scenes that join two attributes (shape and colour,
or colour and background) that no training picture shows together; the last column counts only these. R@1 is the
part of the queries whose best answer in the gallery is the right one. Queries about text and images, and galleries,
never share a drawing. The composed gallery also holds a picture of each query's scene before the change.

{scores}
"""


def write_card(folder: Path, scores: list[Score], *, seed: int, minutes: float, threads: int) -> None:
    """Write `README.md` into the model's folder.

    Args:
        folder: The saved model.
        scores: What it reached.
        seed: What it was trained with.
        minutes: How long that took.
        threads: On how many threads.
    """
    weights = folder / "model.safetensors"
    with safe_open(weights, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    (dimension,) = {shape[-1] for name, shape in shapes.items() if name.endswith("embed_tokens.weight")}
    card = _CARD.format(
        parameters=sum(torch.Size(shape).numel() for shape in shapes.values()),
        dimension=dimension,
        prompts="\n".join(f"- `{name}`: {prompt}" for name, prompt in PROMPTS.items()),
        seed=seed,
        minutes=minutes,
        threads=threads,
        torch=torch.__version__,
        transformers=transformers.__version__,
        sentence_transformers=sentence_transformers.__version__,
        megabytes=weights.stat().st_size / 1e6,
        folder_megabytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6,
        scores=table(scores),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
