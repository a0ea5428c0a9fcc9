"""What makes ``encode`` fast changes no embedding, and does what it is there for."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import logging
import random
import threading
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

from st_modules import EncodeOptions, ImageError, SentenceTransformer
from st_modules.backbones.packing import PACKED_ATTENTION
from st_modules.backbones.pruning import PRUNED_ATTENTION
from st_modules.backbones.qwen2_vl_vision import cut_patches
from st_modules.encode import engine
from st_modules.encode.batching import share_prefix
from st_modules.inputs.images import ImageSource
from tests.helpers.references import GOLDEN, TOLERANCE, Reference, mixed, reference

NAMES = [field.name for field in dataclasses.fields(EncodeOptions)]
OFF = EncodeOptions(**dict.fromkeys(NAMES, False))
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
    "vlm2vec-qwen2vl-2b",
    "dse-qwen2-2b",
    "bge-vl-mllm-s1",
    "vlm2vec-llava-next",
    "e5-v",
    "bge-vl-base",
    "bge-visualized-base",
    "bge-visualized-m3",
]
PICTURES = [GOLDEN / "gme" / "images" / f"{name}.png" for name in ("square", "wide", "tall", "small", "gray")]


@pytest.fixture(scope="module", params=ROWS)
def row(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(row: str) -> SentenceTransformer:
    return reference(row).load(row)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("batch_size", "max_batch_tokens"), [(32, None), (3, 150)])
def test_embeddings_are_the_originals_with_every_setting(
    row: str, model: SentenceTransformer, setting: str, batch_size: int, max_batch_tokens: int | None
) -> None:
    model.encode_options, model.max_batch_tokens = SETTINGS[setting], max_batch_tokens
    differences = {
        (case.side, case.prompt): np.abs(case.embed(model, batch_size) - case.expected).max()
        for case in mixed(list(reference(row).cases.values()))
    }
    assert differences
    assert {call: found for call, found in differences.items() if not found <= TOLERANCE} == {}


@pytest.fixture
def gme() -> SentenceTransformer:
    return reference("gme-2b").load("gme-2b", min_image_tokens=4, max_image_tokens=64)


@pytest.fixture
def batches(gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The batches of rows that are prepared, as they come."""
    found: list[list[Any]] = []
    collate: Any = gme[0].collate

    def spy(rows: Any, *args: Any) -> Any:
        found.append(list(rows))
        return collate(rows, *args)

    monkeypatch.setattr(gme[0], "collate", spy)
    return found


@pytest.fixture
def passes(gme: SentenceTransformer) -> Iterator[list[int]]:
    """How many tokens go through the language model, pass by pass."""
    found: list[int] = []
    stock: Any = gme[0].model
    layer = stock.language_model.layers[0]
    handle = layer.register_forward_pre_hook(lambda _, args: found.append(args[0].shape[0] * args[0].shape[1]))
    yield found
    handle.remove()


def tokens(model: SentenceTransformer, inputs: list[Any], prompt: str | None = None) -> list[int]:
    backbone: Any = model[0]
    return [len(row.ids) for row in backbone.plan(model.parse(inputs), prompt)]


def texts(count: int, longest: int = 40) -> list[str]:
    words = random.Random(count)
    return [" ".join(words.choice(["cat", "dog", "red", "car"]) for _ in range(n % longest + 1)) for n in range(count)]


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def test_no_token_of_padding_goes_through_the_model(gme: SentenceTransformer, passes: list[int]) -> None:
    gme.encode_options = dataclasses.replace(EncodeOptions(), shared_prefix=False)
    inputs = [*texts(20), *PICTURES]
    gme.encode(inputs)
    assert sum(passes) == sum(tokens(gme, inputs))


def test_what_rows_begin_with_goes_through_the_model_once_for_all_calls(
    gme: SentenceTransformer, passes: list[int]
) -> None:
    inputs, prompt = texts(20), "Find a picture of this animal."
    backbone: Any = gme[0]
    rows = share_prefix(backbone.plan(gme.parse(inputs), prompt))
    shared, own = len(rows[0].prefix), sum(len(row.ids) for row in rows)
    assert shared >= len(gme.tokenizer(prompt)["input_ids"])
    gme.encode(inputs, prompt=prompt)
    assert sum(passes) == shared + own
    gme.encode(inputs, prompt=prompt)
    assert sum(passes) == shared + 2 * own


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


@pytest.mark.parametrize("budget", [1, 100, 300])
def test_batches_keep_to_both_bounds(gme: SentenceTransformer, batches: list[list[Any]], budget: int) -> None:
    gme.max_batch_tokens = budget
    gme.encode([*texts(60), *PICTURES], batch_size=7)
    assert sum(map(len, batches)) == 60 + len(PICTURES)
    assert all(len(batch) <= 7 for batch in batches)
    assert all(len(batch) == 1 or sum(len(row.ids) for row in batch) <= budget for batch in batches)


def test_the_budget_is_an_argument_of_the_constructor() -> None:
    assert reference("gme-2b").load("gme-2b", max_batch_tokens=77).max_batch_tokens == 77


@pytest.mark.parametrize("value", [0, -1, 2.5, "many"])
def test_a_budget_that_holds_no_token_is_refused(gme: SentenceTransformer, value: Any) -> None:
    with pytest.raises(ValueError, match="max_batch_tokens"):
        gme.max_batch_tokens = value


def test_the_default_budget_follows_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gibibyte = 2**30
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * gibibyte)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 * gibibyte)
    budgets = []
    for free in (1, 6, 60):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free * gibibyte, 80 * gibibyte))
        budgets.append(engine.default_max_tokens(torch.device("cuda")))
    assert budgets == [3 * 1024, 8 * 1024, 16 * 1024]
    assert engine.default_max_tokens(torch.device("cpu")) == 2048


def test_equal_items_are_embedded_once(gme: SentenceTransformer, batches: list[list[Any]], tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(PICTURES[0].read_bytes())
    picture = Image.open(PICTURES[1])
    inputs: list[Any] = [
        "a cat",
        PICTURES[0],
        {"text": "a cat", "image": PICTURES[0]},
        {"text": "a cat"},
        copy,
        {"text": "a cat", "image": copy.read_bytes()},
        picture,
        picture.copy(),
    ]
    found = gme.encode(inputs)
    assert sum(map(len, batches)) == 4
    assert np.array_equal(found[[0, 1, 2, 6]], found[[3, 4, 5, 7]])
    gme.encode_options = OFF
    assert np.abs(found - gme.encode(inputs)).max() <= TOLERANCE


def unequal_pairs() -> dict[str, tuple[Any, Any]]:
    gradient = Image.linear_gradient("L").resize((64, 64))
    swapped = gradient.convert("P")
    swapped.putpalette([255 - value // 3 for value in range(768)])
    changed = gradient.copy()
    changed.putpixel((3, 3), 255)
    return {
        "one_pixel": (gradient, changed),
        "one_pixel_encoded": (encoded(gradient, "BMP"), encoded(changed, "BMP")),
        "palette": (gradient.convert("P"), swapped),
        "mode": (gradient, gradient.convert("P")),
        "array": (np.zeros((64, 64), np.uint8), np.eye(64, dtype=np.uint8)),
    }


@pytest.mark.parametrize("name", unequal_pairs())
def test_images_that_only_look_alike_are_embedded_apart(
    gme: SentenceTransformer, batches: list[list[Any]], name: str
) -> None:
    gme.encode(list(unequal_pairs()[name]))
    assert sum(map(len, batches)) == 2


def test_images_without_a_like_are_not_compared(gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[ImageSource] = []
    monkeypatch.setattr(ImageSource, "digest", compared.append)
    gme.encode([*PICTURES, *texts(3)])
    assert compared == []


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are read one batch ahead, as they are beside an accelerator."""
    monkeypatch.setattr(engine, "reads_ahead", lambda device: True)


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_images_are_read_ahead_beside_an_accelerator(device: str) -> None:
    assert engine.reads_ahead(torch.device(device)) == (device != "cpu")


@pytest.mark.usefixtures("ahead")
def test_embeddings_are_the_same_when_images_are_read_ahead(gme: SentenceTransformer) -> None:
    inputs = [*PICTURES, *texts(9), *({"text": "a cat", "image": picture} for picture in PICTURES)]
    expected = np.stack([gme.encode(each) for each in inputs])
    assert np.abs(gme.encode(inputs, batch_size=2) - expected).max() <= TOLERANCE


@pytest.mark.usefixtures("ahead")
def test_the_next_batchs_images_are_read_while_the_model_runs(
    gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, passes = itertools.count(), itertools.count()
    begun = [threading.Event() for _ in PICTURES]
    met: list[bool] = []
    backbone: Any = gme[0]
    byte_features, forward = backbone.byte_features, backbone.forward

    def read(image: Any) -> Any:
        begun[next(reads)].set()
        return byte_features(image)

    def run(features: Any, **kwargs: Any) -> Any:
        following = min(next(passes) + 1, len(begun) - 1)
        met.append(begun[following].wait(timeout=20))
        return forward(features, **kwargs)

    monkeypatch.setattr(gme[0], "byte_features", read)
    monkeypatch.setattr(gme[0], "forward", run)
    gme.encode(PICTURES, batch_size=1)
    assert met == [True] * len(PICTURES)


@pytest.fixture
def alive(gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many batches' features there are when one more is prepared, that one counted."""
    present: set[int] = set()
    found: list[int] = []
    numbers = itertools.count()
    collate: Any = gme[0].collate

    class Tracked(dict[str, Any]):
        def __init__(self, features: dict[str, Any]) -> None:
            super().__init__(features)
            self.number = next(numbers)

        def __del__(self) -> None:
            present.discard(self.number)

    def spy(*args: Any) -> Any:
        found.append(len(present) + 1)
        features = Tracked(collate(*args))
        present.add(features.number)
        return features

    monkeypatch.setattr(gme[0], "collate", spy)
    return found


@pytest.mark.usefixtures("ahead")
def test_the_pixels_of_two_batches_are_alive_at_most_when_read_ahead(
    gme: SentenceTransformer, alive: list[int]
) -> None:
    gme.encode_options = dataclasses.replace(EncodeOptions(), deduplication=False)
    gme.encode(PICTURES * 4, batch_size=1)
    assert max(alive) == 2


def test_the_pixels_of_one_batch_are_alive_at_most(gme: SentenceTransformer, alive: list[int]) -> None:
    gme.encode_options = dataclasses.replace(EncodeOptions(), deduplication=False)
    gme.encode(PICTURES * 4, batch_size=1)
    assert max(alive) == 1


def test_no_more_pictures_are_decoded_at_once_than_there_are_readers(
    gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(engine, "_MOST_READERS", 2)
    lock, alive, most = threading.Lock(), [0], [0]
    byte_features: Any = gme[0].byte_features

    def read(image: Any) -> Any:
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        features = byte_features(image)
        with lock:
            alive[0] -= 1
        return features

    monkeypatch.setattr(gme[0], "byte_features", read)
    gme.encode([Image.new("RGB", (56 + 28 * number, 56)) for number in range(30)])
    assert 1 <= most[0] <= 2


@pytest.mark.parametrize("reads_ahead", [False, True])
def test_an_unreadable_image_of_a_later_batch_is_named(
    gme: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads_ahead: bool
) -> None:
    monkeypatch.setattr(engine, "reads_ahead", lambda device: reads_ahead)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(PICTURES[0].read_bytes()[:-200])
    with pytest.raises(ImageError, match=r"item 5: .*damaged\.png"):
        gme.encode([*PICTURES, damaged], batch_size=1)


class ScarceMemory:
    """Runs out of memory on batches of more than some tokens, as a CUDA device does."""

    def __init__(self, model: SentenceTransformer, tokens: int) -> None:
        self.forward = model[0].forward
        self.tokens = tokens
        self.sizes: list[int] = []

    def __call__(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        self.sizes.append(int(features["attention_mask"].sum()))
        assert len(self.sizes) < 200, "the same batch is retried without end"
        if self.sizes[-1] > self.tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.forward(features, **kwargs)


@pytest.mark.parametrize("scarce", [100, 400])
def test_a_batch_for_which_memory_runs_out_is_retried_in_halves(
    gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, scarce: int
) -> None:
    inputs = [*texts(40), *PICTURES]
    expected = gme.encode(inputs)
    memory = ScarceMemory(gme, scarce)
    monkeypatch.setattr(gme[0], "forward", memory)
    with caplog.at_level(logging.WARNING):
        assert np.abs(gme.encode(inputs) - expected).max() <= TOLERANCE
    failed = [size for size in memory.sizes if size > scarce]
    pairs = list(zip(failed, failed[1:], strict=False))
    assert [(size, following) for size, following in pairs if following > size // 2] == []
    assert len([record for record in caplog.records if "Out of memory" in record.message]) == 1


def test_a_batch_for_which_memory_ran_out_is_let_go_of_before_it_is_retried(
    gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, alive: list[int]
) -> None:
    gme.encode_options = dataclasses.replace(EncodeOptions(), parallel_reading=False)
    monkeypatch.setattr(gme[0], "forward", ScarceMemory(gme, 100))
    gme.encode([*texts(20), *PICTURES])
    assert max(alive) == 1


def test_memory_that_is_too_small_for_one_item_is_an_error(
    gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gme[0], "forward", ScarceMemory(gme, 3))
    with pytest.raises(torch.OutOfMemoryError):
        gme.encode(texts(8))


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
