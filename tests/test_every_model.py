"""What holds for every row of the catalog, each on a small checkpoint in its own upstream's layout.

Each row matches its reference; all else is seen once for rows that are one model here.
"""

from __future__ import annotations

import io
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)

from st_modules import CheckpointError, InputError, SentenceTransformer, Side, get_model, list_models
from tests.helpers.references import (
    ONE_A_MODEL,
    SEVERAL_IMAGES,
    TOLERANCE,
    Case,
    Reference,
    case_ids,
    load_once,
    mixed,
    reference,
)
from tests.helpers.training_checkpoints import CLIP_SF, clip_sf_weights, save_run

ROWS = [spec.name for spec in list_models() if spec.repo_id]
ATTENTIONS = ["eager", "sdpa"]
# Packed rows have no batch that is too large; padded ones, as with the eager attention, take long in such.
BATCHES = [("eager", 7), ("sdpa", 7), ("sdpa", 1000)]


def case_names() -> list[Any]:
    loaded = [*((row, "sdpa") for row in ROWS), *((row, "eager") for row in ONE_A_MODEL)]
    return [
        pytest.param((row, attention), case, id=f"{row}-{attention}-{case}")
        for row, attention in loaded
        for case in case_ids(row)
    ]


def close(left: Any, right: Any) -> bool:
    return bool(np.abs(np.asarray(left) - np.asarray(right)).max() <= TOLERANCE)


# In random order a fixture of the module with these parameters would be made again for almost every test.
@pytest.fixture
def loaded(request: pytest.FixtureRequest) -> tuple[str, SentenceTransformer]:
    row, attention = request.param
    return row, load_once(row, attention)


@pytest.fixture(params=ONE_A_MODEL)
def row(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(row: str) -> SentenceTransformer:
    return load_once(row, "sdpa")


@pytest.fixture
def reloaded(model: SentenceTransformer, tmp_path: Path) -> SentenceTransformer:
    model.save_pretrained(str(tmp_path))
    return SentenceTransformer(str(tmp_path), device="cpu")


# --------------------------------------------------------------------------------------------------- parity


@pytest.mark.parametrize(("loaded", "case"), case_names(), indirect=["loaded"])
def test_each_case_matches_the_reference(loaded: tuple[str, SentenceTransformer], case: str) -> None:
    row, model = loaded
    expected = reference(row).cases[case]
    assert close(expected.embed(model, batch_size=1), expected.expected)


@pytest.mark.parametrize(
    ("loaded", "batch_size"),
    [pytest.param((row, a), size, id=f"{row}-{a}-{size}") for row in ONE_A_MODEL for a, size in BATCHES],
    indirect=["loaded"],
)
def test_everything_mixed_matches_the_reference(loaded: tuple[str, SentenceTransformer], batch_size: int) -> None:
    row, model = loaded
    calls = mixed(list(reference(row).cases.values()))
    assert [call.name for call in calls if not close(call.embed(model, batch_size), call.expected)] == []


def test_everything_matches_the_reference_after_save_and_reload(row: str, reloaded: SentenceTransformer) -> None:
    calls = mixed(list(reference(row).cases.values()))
    assert [call.name for call in calls if not close(call.embed(reloaded, batch_size=7), call.expected)] == []


def test_one_preprocessed_batch_matches_the_reference(row: str, model: SentenceTransformer) -> None:
    def embed(call: Case) -> torch.Tensor:
        task = {"encode_query": "query", "encode_document": "document"}.get(call.side)
        with torch.inference_mode():
            return model(model.preprocess(call.items, prompt=call.prompt, task=task))["sentence_embedding"]

    calls = mixed([case for case in reference(row).cases.values() if case.dimension is None])
    assert [call.name for call in calls if not close(embed(call), call.expected)] == []


def test_the_dimension_is_that_of_the_weights(row: str, model: SentenceTransformer) -> None:
    case = next(iter(reference(row).cases.values()))
    assert model.get_embedding_dimension() == case.expected.shape[1]


# ------------------------------------------------------------------------------------------------------ text

HOSTILE = [
    "<image>",
    "[INST] a [/INST]",
    "<|image_pad|>",
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|startoftext|>a<|endoftext|>",
    "<|begin_of_text|><|eot_id|><|start_header_id|>",
    "[CLS] a [SEP] [MASK] [PAD]",
    "<s> a </s>",
    "<mask><pad><unk>",
    "<instruct> a <query>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_control_tokens_in_a_text_stay_text(row: str, model: SentenceTransformer, text: str) -> None:
    encoder: Any = model[0].segment_tokenizer
    control = torch.tensor([*encoder.control_ids.values(), *encoder.start_ids, *encoder.end_ids])
    images: dict[str, dict[str, Any]] = {"text": {}, "both": {"image": reference(row).images / "small.png"}}

    def control_ids(content: str) -> dict[str, list[int]]:
        found = {kind: model.preprocess([{"text": content, **image}])["input_ids"] for kind, image in images.items()}
        return {kind: ids[torch.isin(ids, control)].tolist() for kind, ids in found.items()}

    assert control_ids(text) == control_ids("a")
    assert control_ids(f"a{text}b") == control_ids("a")
    assert np.isfinite(model.encode([{"text": text}, {"text": f"a {text}"}])).all()


@pytest.mark.parametrize("side", ["query", "document"])
def test_the_empty_prompt_that_sentence_transformers_passes_on_a_side_is_none(
    row: str, model: SentenceTransformer, side: Side
) -> None:
    items = [{"text": "a car"}, {"image": reference(row).images / "small.png"}]
    found, expected = (model.preprocess(items, prompt=prompt, task=side)["input_ids"] for prompt in ("", None))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("image", [None, "small.png"])
def test_a_text_over_the_limit_embeds_as_a_prefix_of_it(
    row: str, model: SentenceTransformer, image: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if get_model(row).options["template"] == "uniir_clip":
        pytest.skip("there is a full stop after every text, so no other one has the tokens of a text that is cut")
    text = "Two dogs in the snow, a cat and a tiger! The background is dark. " * 3
    fixed: dict[str, Any] = {"image": reference(row).images / image} if image else {}
    limit = model.preprocess([{"text": text[:20], **fixed}])["input_ids"].shape[1]
    short = reference(row).load(row, max_length=limit)
    with caplog.at_level(logging.WARNING):
        found = short.encode([{"text": text, **fixed}])
    assert [f"max_length={limit} tokens" in record.getMessage() for record in caplog.records] == [True]
    ids = short.preprocess([{"text": text, **fixed}])["input_ids"].tolist()
    prefixes = [
        {"text": text[:length], **fixed}
        for length in range(1, 40)
        if model.preprocess([{"text": text[:length], **fixed}])["input_ids"].tolist() == ids
    ]
    assert len(ids[0]) >= limit - 2
    assert close(found, model.encode(prefixes[:1]))


def test_images_that_exceed_the_limit_by_themselves_are_refused_by_position(
    row: str, model: SentenceTransformer
) -> None:
    if get_model(row).backbone == "clip":
        pytest.skip("CLIP reads images apart from the text")
    limit = model.preprocess([{"text": "a"}])["input_ids"].shape[1] + 3
    short = reference(row).load(row, max_length=limit)
    with pytest.raises(InputError, match=rf"^item 1: its \d+ image tokens .*max_length={limit}"):
        short.encode([{"text": "a"}, {"image": reference(row).images / "square.png"}])


# ---------------------------------------------------------------------------------------------------- images

RANDOM = np.random.default_rng(5)
COLOURS = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)
RGB = Image.fromarray(COLOURS).resize((150, 100), Image.Resampling.BICUBIC)
ALPHA = Image.fromarray(RANDOM.integers(0, 256, (10, 15), dtype=np.uint8)).resize((150, 100))
EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned by a quarter


def file_of(image: Image.Image, image_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def with_alpha() -> Image.Image:
    image = RGB.copy()
    image.putalpha(ALPHA)
    return image


MODES: dict[str, Callable[[], bytes]] = {
    "1 bit": lambda: file_of(RGB.convert("1"), "PNG"),
    "gray": lambda: file_of(RGB.convert("L"), "PNG"),
    "gray with alpha": lambda: file_of(with_alpha().convert("LA"), "PNG"),
    "gray of 16 bits": lambda: file_of(Image.fromarray(np.asarray(RGB.convert("L")).astype(np.uint16) * 3), "PNG"),
    "palette": lambda: file_of(RGB.quantize(16), "PNG"),
    "palette with transparency": lambda: file_of(RGB.quantize(16), "PNG", transparency=3),
    "palette with alpha a colour": lambda: file_of(RGB.quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
    "RGB with a transparent colour": lambda: file_of(RGB, "PNG", transparency=RGB.getpixel((0, 0))),
    "RGBA": lambda: file_of(with_alpha(), "PNG"),
    "CMYK": lambda: file_of(RGB.convert("CMYK"), "JPEG", quality=95),
    "JPEG turned by EXIF": lambda: file_of(RGB, "JPEG", exif=EXIF, quality=95),
    "GIF with transparency": lambda: file_of(RGB.quantize(16), "GIF", transparency=2),
    "WebP with alpha": lambda: file_of(with_alpha(), "WEBP", lossless=True),
}


def rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def square_then_rgb(image: Image.Image) -> Image.Image:
    return image.resize((512, 512)).convert("RGB")


def middle_then_rgb(image: Image.Image) -> Image.Image:
    """The shorter side to 224 pixels, the middle square of that, then RGB."""
    width, height = image.size
    size = (int(224 * width / height), 224) if width > height else (224, int(224 * height / width))
    resized = image.resize(size, Image.Resampling.BICUBIC)
    left, top = int(round((size[0] - 224) / 2.0)), int(round((size[1] - 224) / 2.0))
    return resized.crop((left, top, left + 224, top + 224)).convert("RGB")


def rgb_on_white(image: Image.Image) -> Image.Image:
    """On white by the alpha of RGBA, which other modes lose."""
    if image.mode != "RGBA":
        return rgb(image)
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def page_then_rgb(image: Image.Image) -> Image.Image:
    return image.resize((1344, 1344)).convert("RGB")


def originals_first_steps(row: str) -> Callable[[Image.Image], Image.Image]:
    if row.startswith("dse-phi3"):
        return page_then_rgb
    if row.startswith("bge-vl-") and get_model(row).backbone == "llava_next":
        return square_then_rgb
    if get_model(row).backbone == "qwen3_vl":
        return rgb_on_white
    return middle_then_rgb if row.startswith("bge-visualized") else rgb


# Pillow's own advice about the conversion that the originals do.
@pytest.mark.filterwarnings("ignore:Palette images with Transparency expressed in bytes")
@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_every_mode_embeds_as_the_originals_first_steps_make_it(
    row: str, model: SentenceTransformer, mode: str
) -> None:
    data = MODES[mode]()
    # Handed over as an array, the result has no mode, palette or transparency left to be treated in any way.
    expected = np.asarray(originals_first_steps(row)(Image.open(io.BytesIO(data))))
    assert close(model.encode(data), model.encode(expected))


def test_the_picture_of_those_modes_makes_a_difference(model: SentenceTransformer) -> None:
    assert np.abs(model.encode(RGB) - model.encode(RGB.rotate(180))).max() > 1e-3


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 150), (150, 1), (27, 29)])
def test_tiny_and_thin_images_embed_beside_others(row: str, model: SentenceTransformer, size: tuple[int, int]) -> None:
    items = [Image.new("RGB", size, "teal"), {"text": "a"}, {"image": RGB, "text": "a"}]
    vectors = model.encode(items)
    assert np.isfinite(vectors).all()
    assert close(vectors[0], model.encode(items[0]))


def test_more_than_one_image_is_refused_by_position_where_the_model_takes_one(
    row: str, model: SentenceTransformer
) -> None:
    if get_model(row).options["template"] in SEVERAL_IMAGES:
        pytest.skip("it has a block for each image")
    with pytest.raises(InputError, match="item 1: 2 images"):
        model.encode(["a", {"image": [RGB, RGB]}])


# ---------------------------------------------------------------------------------- training, copies, precision


def gradients(model: SentenceTransformer, images: Path, loss: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gradients of a batch of texts, images and both, in which no two rows of a column are alike."""
    columns = [
        model.preprocess(["a car", {"text": "a cat", "image": images / "small.png"}, images / "gray.png", "a b c"]),
        model.preprocess([images / "small.png", "a red cat", {"text": "tiger", "image": images / "tall.png"}, "dogs"]),
    ]
    model.zero_grad()
    loss(columns, None).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_a_training_batch_split_by_rows_has_the_gradients_of_the_whole(row: str) -> None:
    # In evaluation mode, since dropout would differ between the two.
    model = reference(row).load(row).eval()
    images = reference(row).images
    expected = gradients(model, images, MultipleNegativesRankingLoss(model))
    largest = max(gradient.abs().max() for gradient in expected.values())
    assert largest > 1e-3
    for rows in (1, 3):
        found = gradients(model, images, CachedMultipleNegativesRankingLoss(model, mini_batch_size=rows))
        assert found.keys() == expected.keys()
        assert max((found[name] - expected[name]).abs().max() for name in expected) <= 1e-4 * largest


def test_a_pickled_copy_gives_the_same(row: str, model: SentenceTransformer) -> None:
    items = [{"image": reference(row).images / "small.png"}, {"text": "a"}]
    before = model.encode(items)
    copy = pickle.loads(pickle.dumps(model))
    assert close(copy.encode(items), before)
    assert close(model.encode(items), before)
    ids, expected = (
        {text: each.preprocess([{"text": text}])["input_ids"].tolist() for text in HOSTILE} for each in (copy, model)
    )
    assert ids == expected


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_pickled_copy_of_a_cast_model_keeps_its_precision_and_attention(row: str, attention: str) -> None:
    model = reference(row).load(row, attention).to(torch.bfloat16).train()
    copy = pickle.loads(pickle.dumps(model))
    assert {parameter.dtype for parameter in copy.parameters()} == {torch.bfloat16}
    assert [name for name, module in copy.named_modules() if not module.training] == []
    transformers: list[Any] = [each[0].model for each in (copy, model)]
    found, expected = (getattr(each, "text", each).config._attn_implementation for each in transformers)
    assert found == expected
    assert (found == "eager") == (attention == "eager")


def test_bfloat16_is_near_float32(row: str) -> None:
    source = reference(row)
    half = SentenceTransformer(
        row,
        weights=source.weights,
        base_weights=source.base_weights,
        device="cpu",
        model_kwargs={"dtype": torch.bfloat16},
    )
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    calls = mixed(list(source.cases.values()))
    cosines = {call.name: np.sum(call.embed(half, batch_size=7) * call.expected, axis=1) for call in calls}
    assert {name: found for name, found in cosines.items() if not (found > 0.99).all()} == {}


# ------------------------------------------------------------------------------------------ damaged checkpoints

Weights = dict[str, torch.Tensor]
# The ends of their names: what is before them depends on the layout.
WEIGHTS_IN_USE = {
    "qwen2_vl": ["visual.blocks.1.mlp.fc1.weight", "layers.0.self_attn.q_proj.bias", "model.norm.weight"],
    "qwen3_vl": [
        "visual.blocks.1.mlp.linear_fc1.weight",
        "layers.0.self_attn.k_norm.weight",
        "visual.pos_embed.weight",
    ],
    "llava_next": ["multi_modal_projector.linear_1.weight", "image_newline", "layers.1.input_layernorm.weight"],
    "phi3_v": ["sub_GN", "img_projection.0.weight", "layers.1.self_attn.qkv_proj.weight", "model.norm.weight"],
    "clip": ["visual_projection.weight", "text_model.final_layer_norm.bias"],
    "clip-sf-large": ["visual.proj", "visual.transformer.resblocks.1.attn.in_proj_bias", "ln_final.bias"],
    "visualized_bge": [
        "visual_proj.weight",
        "model_visual.visual.blocks.1.norm2.weight",
        "bge_encoder.layer.1.output.dense.weight",
    ],
}


def damage(source: Reference, folder: Path, change: Callable[[Weights], Weights]) -> Reference:
    """Copy a checkpoint and rewrite the file with the weights of the whole model."""
    copies = {
        part: Path(shutil.copytree(path, folder / part))
        for part, path in (("weights", source.weights), ("base_weights", source.base_weights))
        if path
    }
    (path,) = [path for copy in copies.values() for path in (*copy.glob("model.safetensors"), *copy.glob("*.pth"))]
    if path.name == CLIP_SF.name:
        save_run(change(clip_sf_weights()), path)
    elif path.suffix == ".pth":
        torch.save(change(torch.load(path, weights_only=True)), path)
    else:
        save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return Reference(copies["weights"], {}, copies.get("base_weights"))


def damages() -> list[Any]:
    return [
        pytest.param(row, name, id=f"{row}-{name}")
        for row in ONE_A_MODEL
        for name in WEIGHTS_IN_USE.get(row, WEIGHTS_IN_USE[get_model(row).backbone])
    ]


OWN_NAMES = {
    "visual.proj": "visual_projection.weight",
    "visual.transformer.resblocks.1.attn.in_proj_bias": "vision_model.encoder.layers.1.self_attn.v_proj.bias",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}


def own_part(name: str) -> str:
    """The part of a weight's name that stays the same in our layout, or its name there."""
    if name in OWN_NAMES:
        return OWN_NAMES[name]
    return ".".join(name.split(".")[-2:]).replace("visual_proj.", "projection.")


@pytest.mark.parametrize(("damaged_row", "name"), damages())
def test_a_missing_weight_is_refused_by_name(damaged_row: str, name: str, tmp_path: Path) -> None:
    def drop(weights: Weights) -> Weights:
        return {key: tensor for key, tensor in weights.items() if not key.endswith(name)}

    with pytest.raises(CheckpointError, match=f"missing: .*{own_part(name)}"):
        damage(reference(damaged_row), tmp_path, drop).load(damaged_row)


@pytest.mark.parametrize(("damaged_row", "name"), damages())
def test_a_weight_of_another_shape_is_refused_by_name(damaged_row: str, name: str, tmp_path: Path) -> None:
    def cut(weights: Weights) -> Weights:
        (key,) = [key for key in weights if key.endswith(name)]
        return {**weights, key: weights[key][..., :-1].contiguous()}

    with pytest.raises(CheckpointError, match=f"of another shape: .*{own_part(name)}"):
        damage(reference(damaged_row), tmp_path, cut).load(damaged_row)


@pytest.mark.parametrize("damaged_row", ONE_A_MODEL)
def test_a_superfluous_weight_is_refused_by_name(damaged_row: str, tmp_path: Path) -> None:
    def add(weights: Weights) -> Weights:
        return {**weights, "somewhere.extra.weight": torch.zeros(3)}

    with pytest.raises(CheckpointError, match=r"unexpected: .*extra\.weight"):
        damage(reference(damaged_row), tmp_path, add).load(damaged_row)


@pytest.mark.parametrize("damaged_row", ONE_A_MODEL)
def test_a_truncated_weights_file_is_refused(damaged_row: str, tmp_path: Path) -> None:
    copy = damage(reference(damaged_row), tmp_path, lambda weights: weights)
    for folder in filter(None, (copy.weights, copy.base_weights)):
        for path in (*folder.glob("model.safetensors"), *folder.glob("*.pth")):
            path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cannot be"):
        copy.load(damaged_row)


def test_a_folder_saved_from_another_model_is_refused(row: str, model: SentenceTransformer, tmp_path: Path) -> None:
    model.save_pretrained(str(tmp_path), create_model_card=False)
    template = get_model(row).options["template"]
    other = next(name for name in ONE_A_MODEL if get_model(name).options["template"] != template)
    with pytest.raises(CheckpointError, match=f"template '{template}'"):
        SentenceTransformer(other, weights=tmp_path, device="cpu")
    again = SentenceTransformer(row, weights=tmp_path, device="cpu")
    assert close(again.encode("a b"), model.encode("a b"))


# An image and a text, in another process, after the model has run in this one. GME's pool of two is in test_model.py.
@pytest.mark.parametrize("name", ["bge-vl-mllm-s1", "bge-vl-base", "bge-visualized-m3"])
def test_worker_processes_give_the_same(name: str) -> None:
    source = reference(name)
    model = source.load(name)
    items = [{"image": source.images / "small.png"}, {"text": "a"}] * 2
    expected = model.encode(items)
    assert close(model.encode(items, device=["cpu"], chunk_size=2), expected)
