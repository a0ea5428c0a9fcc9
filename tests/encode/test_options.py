"""What makes ``encode`` fast changes no embedding, and does what it is there for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from st_modules import EncodeOptions, SentenceTransformer
from st_modules.backbones.packing import PACKED_ATTENTION
from st_modules.backbones.pruning import PRUNED_ATTENTION
from st_modules.backbones.qwen2_vl_vision import cut_patches
from st_modules.encode.batching import share_prefix
from tests.helpers.inputs import OFF, PICTURES, texts, tokens
from tests.helpers.references import GOLDEN, TOLERANCE, Reference, mixed, reference

NAMES = [field.name for field in dataclasses.fields(EncodeOptions)]
SETTINGS = {
    "all": EncodeOptions(),
    "none": OFF,
    **{f"without_{name}": dataclasses.replace(EncodeOptions(), **{name: False}) for name in NAMES},
    **{f"only_{name}": dataclasses.replace(OFF, **{name: True}) for name in NAMES},
    "only_packing_and_shared_prefix": dataclasses.replace(OFF, packing=True, shared_prefix=True),
    "only_packing_and_pruning": dataclasses.replace(OFF, packing=True, pruning=True),
}
# One row of the catalog for each way of laying out, positioning and reading what there is.
ROWS = [
    "gme-2b",
    "qwen3-vl-embedding-2b",
    "vlm2vec-qwen2vl-2b",
    "ops-mm-v1-2b",
    "dse-qwen2-2b",
    "vdr-2b-multi",
    "bge-vl-mllm-s1",
    "vlm2vec-llava-next",
    "e5-v",
    "bge-vl-base",
    "bge-visualized-base",
    "bge-visualized-m3",
]


@pytest.fixture(scope="module", params=ROWS)
def row(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(row: str) -> SentenceTransformer:
    return reference(row).load(row)


# One way alone in small batches, one way less in large ones; all and none in both.
BATCHES = {"large": (32, None), "small": (3, 150)}
SETTINGS_AND_BATCHES = [
    (setting, size)
    for setting in SETTINGS
    for size in BATCHES
    if not setting.startswith({"large": "only", "small": "without"}[size])
]


@pytest.mark.parametrize(("setting", "size"), SETTINGS_AND_BATCHES)
def test_embeddings_are_the_originals_with_every_setting(
    row: str, model: SentenceTransformer, setting: str, size: str
) -> None:
    batch_size, max_batch_tokens = BATCHES[size]
    model.encode_options, model.max_batch_tokens = SETTINGS[setting], max_batch_tokens
    differences = {
        case.name: np.abs(case.embed(model, batch_size) - case.expected).max()
        for case in mixed(list(reference(row).cases.values()))
    }
    assert differences
    assert {call: found for call, found in differences.items() if not found <= TOLERANCE} == {}


@pytest.fixture
def passes(gme: SentenceTransformer) -> Iterator[list[int]]:
    """How many tokens go through the language model, pass by pass."""
    found: list[int] = []
    stock: Any = gme[0].model
    layer = stock.language_model.layers[0]
    forward = layer.forward

    def count(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        found.append(hidden.shape[0] * hidden.shape[1])
        return forward(hidden, *args, **kwargs)

    # Not by a hook, with which nothing is kept.
    layer.forward = count
    yield found
    del layer.forward


def test_no_token_of_padding_goes_through_the_model(gme: SentenceTransformer, passes: list[int]) -> None:
    gme.encode_options = dataclasses.replace(EncodeOptions(), shared_prefix=False)
    inputs = [*texts(20), *PICTURES]
    gme.encode(inputs)
    assert sum(passes) == sum(tokens(gme, inputs))


@pytest.mark.parametrize("keep", [False, True])
def test_what_rows_begin_with_goes_through_the_model_once_a_call_or_once_for_all(
    gme: SentenceTransformer, passes: list[int], keep: bool
) -> None:
    inputs, prompt = texts(20), "Find a picture of this animal."
    gme.keep_prefixes = keep
    backbone: Any = gme[0]
    rows = share_prefix(backbone.plan(gme.parse(inputs), prompt))
    shared, own = len(rows[0].prefix), sum(len(row.ids) for row in rows)
    assert shared >= len(gme.tokenizer(prompt)["input_ids"])
    gme.encode(inputs, prompt=prompt)
    assert sum(passes) == shared + own
    gme.encode(inputs, prompt=prompt)
    assert sum(passes) == (1 if keep else 2) * shared + 2 * own


@pytest.mark.parametrize("keep", [False, True])
def test_a_single_query_runs_what_is_kept_apart_and_all_else_at_once(
    gme: SentenceTransformer, passes: list[int], keep: bool
) -> None:
    gme.keep_prefixes = keep
    (count,) = tokens(gme, ["a cat"])
    gme.encode("a cat")
    assert sum(passes) == count
    assert len(passes) == (2 if keep else 1)
    gme.encode("a cat")
    assert (sum(passes) < 2 * count) == keep


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_what_is_no_answer_to_keep_prefixes_is_refused(gme: SentenceTransformer, value: Any) -> None:
    with pytest.raises(ValueError, match="keep_prefixes="):
        gme.keep_prefixes = value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["no", 0, None])
def test_an_option_is_on_or_off(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}={value!r}: pass True or False"):
        EncodeOptions(**{name: value})


def test_a_model_that_shares_no_beginnings_keeps_none() -> None:
    assert not reference("bge-vl-base").load("bge-vl-base", keep_prefixes=True).keep_prefixes


def test_rows_with_another_beginning_are_embedded_beside(gme: SentenceTransformer) -> None:
    messages = [
        [{"role": "system", "content": f"Instruction number {number % 3}."}, {"role": "user", "content": text}]
        for number, text in enumerate(texts(12))
    ]
    inputs: list[Any] = [*messages, *texts(5), *PICTURES]
    found = gme.encode(inputs, prompt="Another instruction.")
    gme.encode_options = OFF
    assert np.abs(found - gme.encode(inputs, prompt="Another instruction.")).max() <= TOLERANCE


@pytest.mark.parametrize("prompt", [None, "x", "Represent the given image with the following question:"])
def test_a_text_that_is_one_with_the_instructions_last_token_is_embedded_right(prompt: str | None) -> None:
    model = reference("vlm2vec-qwen2vl-2b").load("vlm2vec-qwen2vl-2b")
    inputs = [f"{start}{text}" for start in ("", " ", "\n", ":", "s") for text in texts(6)]
    found = model.encode(inputs, prompt=prompt)
    model.encode_options = OFF
    assert np.abs(found - model.encode(inputs, prompt=prompt)).max() <= TOLERANCE


def test_an_instruction_is_shared_but_for_the_token_that_may_be_one_with_the_text() -> None:
    model = reference("vlm2vec-qwen2vl-2b").load("vlm2vec-qwen2vl-2b")
    prompt = "Represent the given image with the following question:"
    instruction = model.tokenizer(f"{prompt} ")["input_ids"]
    backbone: Any = model[0]
    rows = backbone.plan(model.parse(["man", "cat", "dog", "is it", "the"]), prompt)
    assert any(row.ids[: len(instruction)] != instruction for row in rows)
    assert [row.constant for row in rows] == [len(instruction) - 1] * len(rows)


@pytest.mark.parametrize("size", [(56, 84), (280, 28), (112, 112)])
def test_patches_as_bytes_are_those_of_the_stock_processor(size: tuple[int, int]) -> None:
    processor = Qwen2VLImageProcessorPil.from_pretrained(GOLDEN / "gme" / "checkpoint")
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    stock = processor(
        image,
        size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 1000},
        do_convert_rgb=False,
        return_tensors="pt",
    )["pixel_values"]
    mean, std = (torch.tensor(value)[:, None] for value in (processor.image_mean, processor.image_std))
    patches = cut_patches(image, processor.patch_size, processor.merge_size).unflatten(1, (3, -1))
    normalised = (patches / 255 - mean) / std
    frames = stock.unflatten(1, (3, 2, -1))
    assert (frames - normalised[:, :, None]).abs().max() <= 1e-6


def test_attention_that_is_not_plain_is_not_packed() -> None:
    assert not reference("gme-2b").load("gme-2b", "eager")[0].packs
    assert reference("gme-2b").load("gme-2b")[0].packs


@pytest.mark.parametrize("name", ["bge-vl-base", "bge-visualized-base", "bge-visualized-m3"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_last_layer_of_an_encoder_runs_for_pooled_tokens_alone(name: str, attention: str) -> None:
    model = reference(name).load(name, attention)
    last_layers: list[Any] = [layers[-1] for layers in model.modules() if isinstance(layers, torch.nn.ModuleList)]
    stock = [layer for layer in last_layers if type(layer).__module__.startswith("transformers.")]
    tokens: list[int] = []
    for layer in stock:
        feed_forward = getattr(layer, "intermediate", None) or layer.mlp
        feed_forward.register_forward_pre_hook(lambda _, args: tokens.append(args[0].shape[1]))
    model.encode([*texts(4), *PICTURES])
    assert len(tokens) >= len(stock) > 0
    assert all((count == 1) == (attention == "sdpa") for count in tokens)


def test_a_window_that_slides_is_not_packed() -> None:
    name = "bge-vl-mllm-s1"
    model = SentenceTransformer(
        name,
        weights=reference(name).weights,
        device="cpu",
        config_kwargs={"text_config": {**text_config(reference(name)), "sliding_window": 4}},
    )
    assert not model[0].packs
    found = model.encode(texts(6, longest=30))
    model.encode_options = OFF
    assert np.abs(found - model.encode(texts(6, longest=30))).max() <= TOLERANCE


def text_config(source: Reference) -> dict[str, Any]:
    return json.loads((Path(source.weights) / "config.json").read_text(encoding="utf-8"))["text_config"]


def gradients(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    model.zero_grad()
    features = model.preprocess([*texts(5), *PICTURES[:2], {"text": "a cat", "image": PICTURES[2]}], prompt="Find it.")
    weights = torch.linspace(-1, 1, model.get_embedding_dimension())
    (model(features)["sentence_embedding"] * weights).sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


def attention_configs(model: SentenceTransformer) -> list[Any]:
    """The configurations of the parts whose attention is one of ours."""
    found: list[Any] = [module.config for module in model.modules() if hasattr(module, "config")]
    configs = {id(config): config for config in found}
    return [each for each in configs.values() if each._attn_implementation in (PACKED_ATTENTION, PRUNED_ATTENTION)]


@pytest.mark.parametrize("name", ["gme-2b", "bge-vl-mllm-s1", "bge-vl-base", "bge-visualized-base"])
def test_training_is_that_of_the_stock_attention(name: str) -> None:
    model = reference(name).load(name)
    model.encode(texts(3))
    assert (configs := attention_configs(model))
    found = gradients(model)
    for config in configs:
        config._attn_implementation = "sdpa"
    expected = gradients(model)
    assert found.keys() == expected.keys()
    assert [name for name, gradient in expected.items() if not torch.equal(found[name], gradient)] == []


def test_what_is_embedded_after_a_training_step_follows_it(gme: SentenceTransformer) -> None:
    before = gme.encode(texts(4), prompt="Find it.")
    optimizer = torch.optim.SGD(gme.parameters(), lr=1.0)
    gradients(gme)
    optimizer.step()
    after = gme.encode(texts(4), prompt="Find it.")
    gme.encode_options = OFF
    assert np.abs(after - gme.encode(texts(4), prompt="Find it.")).max() <= TOLERANCE
    assert np.abs(after - before).max() > 1e-2


def test_what_is_embedded_follows_the_adapter_that_is_switched_on(gme: SentenceTransformer) -> None:
    plain = gme.encode(texts(4), prompt="Find it.")
    config = LoraConfig(target_modules=["q_proj", "proj", "qkv"], init_lora_weights=False)
    stock: Any = gme[0].model
    inject_adapter_in_model(config, stock)
    layers = [module for module in gme[0].modules() if isinstance(module, LoraLayer)]
    differences: list[tuple[bool, str, float]] = []
    for enabled in (True, False, True):
        for layer in layers:
            layer.enable_adapters(enabled)
        for kind, inputs in (("texts", texts(4)), ("pictures", PICTURES)):
            gme.encode_options = EncodeOptions()
            found = gme.encode(inputs, prompt="Find it.")
            gme.encode_options = OFF
            difference = np.abs(found - gme.encode(inputs, prompt="Find it.")).max()
            differences.append((enabled, kind, float(difference)))
    assert [each for each in differences if not each[-1] <= TOLERANCE] == []
    assert np.abs(gme.encode(texts(4), prompt="Find it.") - plain).max() > 1e-3


def test_a_saved_model_says_nothing_of_how_it_was_run(gme: SentenceTransformer, tmp_path: Path) -> None:
    gme.encode(texts(2))
    gme.save_pretrained(str(tmp_path))
    assert PACKED_ATTENTION not in (tmp_path / "config.json").read_text(encoding="utf-8")
    assert SentenceTransformer(str(tmp_path), device="cpu")[0].packs


@pytest.mark.parametrize("value", [None, {"packing": False}, EncodeOptions], ids=["none", "dict", "class"])
def test_other_options_are_refused_when_they_are_set(gme: SentenceTransformer, value: Any) -> None:
    with pytest.raises(TypeError, match="pass an EncodeOptions"):
        gme.encode_options = value


def test_a_saved_model_comes_back_with_every_option_on(gme: SentenceTransformer, tmp_path: Path) -> None:
    gme.encode_options = OFF
    gme.save_pretrained(str(tmp_path))
    assert SentenceTransformer(str(tmp_path), device="cpu").encode_options == EncodeOptions()
