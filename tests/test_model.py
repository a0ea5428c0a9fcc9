"""``encode`` and its neighbours behave as sentence-transformers documents them, on the golden GME checkpoint."""

from __future__ import annotations

import json
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sentence_transformers.sentence_transformer.modules import BoW, Dense, Normalize

from st_modules import CheckpointError, ImageError, InputError, SentenceTransformer, UnknownModelError
from st_modules.errors import ArgumentError
from tests.helpers.adapters import adapted, difference, embed, lora, trained
from tests.helpers.paths import GOLDEN
from tests.helpers.training_rows import load

GOLDEN_GME = GOLDEN / "gme"
CHECKPOINT = GOLDEN_GME / "checkpoint"
SQUARE = GOLDEN_GME / "images" / "square.png"
WIDE = GOLDEN_GME / "images" / "wide.png"
ITEMS: list[Any] = [
    "What kind of car is this?",
    SQUARE,
    {"text": "make it blue", "image": WIDE},
    {"text": "a"},
    "",
    {"image": [SQUARE, WIDE], "text": "both"},
    [{"role": "system", "content": "Find it."}, {"role": "user", "content": "What kind of car is this?"}],
]


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return SentenceTransformer("gme-2b", weights=CHECKPOINT, device="cpu", min_image_tokens=4, max_image_tokens=64)


@pytest.fixture(scope="module")
def embeddings(model: SentenceTransformer) -> np.ndarray:
    return model.encode(ITEMS)


def close(left: Any, right: Any, tolerance: float = 1e-5) -> bool:
    return bool(np.abs(np.asarray(left) - np.asarray(right)).max() <= tolerance)


def test_it_is_a_sentence_transformer(model: SentenceTransformer) -> None:
    assert isinstance(model, sentence_transformers.SentenceTransformer)
    assert model.get_embedding_dimension() == 64
    assert model.max_seq_length == 1800
    modalities: list[Any] = ["text", "image", ("image", "text")]
    assert [modality for modality in modalities if not model.supports(modality)] == []


def test_a_mixed_list_gives_what_one_by_one_gives(model: SentenceTransformer, embeddings: np.ndarray) -> None:
    assert embeddings.shape == (len(ITEMS), 64)
    assert embeddings.dtype == np.float32
    assert close(np.linalg.norm(embeddings, axis=1), 1)
    assert close(embeddings, [model.encode([item])[0] for item in ITEMS])


@pytest.mark.parametrize("batch_size", [1, 2, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_order_and_batch_size_do_not_matter(
    model: SentenceTransformer, embeddings: np.ndarray, batch_size: int, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(len(ITEMS))
    assert close(model.encode([ITEMS[i] for i in order], batch_size=batch_size), embeddings[order])


def test_sentence_transformers_own_loop_gives_the_same(model: SentenceTransformer, embeddings: np.ndarray) -> None:
    rows: Any = model.encode(ITEMS, output_value=None)
    assert close([row["sentence_embedding"] for row in rows], embeddings)
    tokens = model.encode(ITEMS, output_value="token_embeddings")
    assert close([torch.nn.functional.normalize(row[-1], dim=0) for row in tokens], embeddings)


@pytest.mark.parametrize("item", ITEMS[:5], ids=["text", "image", "fused", "dict", "empty"])
def test_one_item_gives_one_vector(model: SentenceTransformer, item: Any) -> None:
    assert close(model.encode(item), model.encode([item])[0])
    assert model.encode(item).shape == (64,)


def test_no_items_give_no_vectors(model: SentenceTransformer) -> None:
    assert model.encode([]).shape == (0,)
    assert model.encode([], convert_to_tensor=True).shape == (0,)


def test_tensors_and_lists_of_tensors(model: SentenceTransformer, embeddings: np.ndarray) -> None:
    tensor = model.encode(ITEMS, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert close(tensor, embeddings)
    several = model.encode(ITEMS, convert_to_numpy=False)
    assert isinstance(several, list)
    assert [vector for vector in several if not isinstance(vector, torch.Tensor)] == []


def test_truncated_dimensions_are_the_first_ones(model: SentenceTransformer, embeddings: np.ndarray) -> None:
    assert close(model.encode(ITEMS, truncate_dim=16), embeddings[:, :16])
    short = model.encode(ITEMS, truncate_dim=16, normalize_embeddings=True)
    assert close(short, embeddings[:, :16] / np.linalg.norm(embeddings[:, :16], axis=1, keepdims=True))
    with model.truncate_embeddings(8):
        assert model.encode("a").shape == (8,)
        assert model.get_embedding_dimension() == 8


@pytest.mark.parametrize("value", [0, -1, 65, 1.5, True, "16"])
def test_a_dimension_that_the_embeddings_do_not_have_is_refused(model: SentenceTransformer, value: Any) -> None:
    with pytest.raises(ValueError, match="^truncate_dim="):
        model.truncate_dim = value
    with pytest.raises(ValueError, match="^truncate_dim="), model.truncate_embeddings(value):
        pass
    assert model.truncate_dim is None
    assert model.get_embedding_dimension() == 64


def test_the_dimension_is_that_of_the_last_module_that_changes_it(tmp_path: Path) -> None:
    model = SentenceTransformer("tiny", device="cpu")
    model.append(Dense(128, 200))
    model.save_pretrained(str(tmp_path), create_model_card=False)
    wide = SentenceTransformer(str(tmp_path), device="cpu", truncate_dim=200)
    assert wide.encode("a").shape == (200,)
    with pytest.raises(ValueError, match=r"truncate_dim=201: .* 200 dimensions"):
        wide.encode("a", truncate_dim=201)


def test_other_models_are_truncated_as_in_sentence_transformers(tmp_path: Path) -> None:
    plain = sentence_transformers.SentenceTransformer(modules=[BoW(["a", "b", "c"])], device="cpu")
    plain.save_pretrained(str(tmp_path), create_model_card=False)
    ours = SentenceTransformer(str(tmp_path), device="cpu", truncate_dim=9)
    assert ours.truncate_dim == 9
    for arguments in [{}, {"truncate_dim": 2}, {"truncate_dim": -1}, {"normalize_embeddings": 1}]:
        assert (ours.encode("a b", **arguments) == plain.encode("a b", **arguments)).all()


@pytest.mark.parametrize(
    ("precision", "dtype", "width"),
    [("int8", np.int8, 64), ("uint8", np.uint8, 64), ("binary", np.int8, 8), ("ubinary", np.uint8, 8)],
)
def test_quantised_precisions(model: SentenceTransformer, precision: Any, dtype: type, width: int) -> None:
    quantised = model.encode(ITEMS[:1] * 50 + ITEMS, precision=precision)
    assert quantised.dtype == dtype
    assert quantised.shape == (50 + len(ITEMS), width)


def test_binary_precision_is_the_sign_of_each_dimension(model: SentenceTransformer, embeddings: np.ndarray) -> None:
    assert (model.encode(ITEMS, precision="ubinary") == np.packbits(embeddings > 0, axis=1)).all()


def test_the_progress_bar_is_shown_on_demand(model: SentenceTransformer, capsys: pytest.CaptureFixture[str]) -> None:
    model.encode("a", show_progress_bar=True)
    assert "Items" in capsys.readouterr().err
    model.encode("a", show_progress_bar=False)
    assert capsys.readouterr().err == ""


def test_similarity_is_the_cosine(model: SentenceTransformer, embeddings: np.ndarray) -> None:
    assert close(model.similarity(embeddings, embeddings), embeddings @ embeddings.T)


def test_instructions_by_text_by_name_and_on_the_query_side_only(model: SentenceTransformer) -> None:
    instruction = "Find an image that matches the given text."
    plain = model.encode("a")
    instructed = model.encode("a", prompt=instruction)
    assert not close(instructed, plain, 1e-3)
    assert close(model.encode("a", prompt_name="t2i"), instructed)
    assert close(model.encode_query("a", prompt_name="t2i"), instructed)
    assert close(model.encode_document("a", prompt_name="t2i"), plain)
    assert close(model.encode_query("a"), plain)
    assert close(model.encode_document("a"), plain)
    assert close(model.encode("a", prompt=""), plain)
    assert close(model.encode("a", prompt="You are a helpful assistant."), plain)
    with pytest.raises(ValueError, match="nonsense"):
        model.encode("a", prompt_name="nonsense")


def test_the_users_prompts_join_the_authors(model: SentenceTransformer) -> None:
    custom = SentenceTransformer(
        "gme-2b", weights=CHECKPOINT, device="cpu", prompts={"mine": "Find it."}, default_prompt_name="mine"
    )
    assert custom.prompts["t2i"] == model.prompts["t2i"]
    assert close(custom.encode("a"), model.encode("a", prompt="Find it."))


def test_an_items_own_instruction_wins_over_the_calls(model: SentenceTransformer) -> None:
    chat = [{"role": "system", "content": "Find it."}, {"role": "user", "content": "a"}]
    assert close(model.encode([chat, "a"], prompt="Other.")[0], model.encode("a", prompt="Find it."))


def test_control_tokens_in_text_are_text(model: SentenceTransformer) -> None:
    hostile = ["a<|im_end|>b", "<|image_pad|>", "<|endoftext|>", "<|vision_start|><|image_pad|><|vision_end|>"]
    vectors = model.encode([*hostile, {"text": hostile[3], "image": SQUARE}], prompt="<|image_pad|> <|im_end|>")
    assert np.isfinite(vectors).all()
    tokenizer: Any = model[0].segment_tokenizer
    pad = tokenizer.control_ids["<|image_pad|>"]
    assert not (model.preprocess(hostile, prompt=hostile[3])["input_ids"] == pad).any()


def test_a_hundred_thousand_characters_keep_their_tail_and_are_logged_once(
    model: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    long = "word " * 20_000
    with caplog.at_level(logging.WARNING):
        vectors = model.encode([long, "short", long + "end", {"text": long, "image": SQUARE}], batch_size=1)
    assert [record.getMessage() for record in caplog.records] == [
        "3 of 4 items are longer than max_length=1800 tokens: the end of their text was cut."
    ]
    assert np.isfinite(vectors).all()
    ids = model.preprocess([long])["input_ids"][0]
    assert len(ids) == 1800
    tail = model.preprocess(["a"])["input_ids"][0][-6:]
    assert torch.equal(ids[-6:], tail)


@pytest.mark.parametrize("bad", ["lone \ud800 surrogate", {"text": "\udfff"}])
def test_lone_surrogates_are_refused_by_position(model: SentenceTransformer, bad: Any) -> None:
    with pytest.raises(InputError, match="item 2"):
        model.encode(["a", "b", bad])
    with pytest.raises(InputError, match="prompt"):
        model.encode("a", prompt="\ud800")


def test_images_over_the_length_limit_are_refused_by_position() -> None:
    short = SentenceTransformer("gme-2b", weights=CHECKPOINT, device="cpu", max_length=200)
    with pytest.raises(InputError, match=r"item 1: its \d+ image tokens.*max_length=200"):
        short.encode(["a", SQUARE])


@pytest.mark.parametrize("max_length", [0, -3, 10**7])
def test_a_calls_own_length_limit_is_checked(model: SentenceTransformer, max_length: int) -> None:
    with pytest.raises(ValueError, match=f"max_length={max_length}"):
        model.preprocess(["a"], max_length=max_length)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 2), (27, 29)])
def test_extreme_images_embed(model: SentenceTransformer, size: tuple[int, int]) -> None:
    assert np.isfinite(model.encode(Image.new("RGB", size, "teal"))).all()


def test_an_image_error_names_the_position_in_the_call(model: SentenceTransformer, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(SQUARE.read_bytes()[:5000])
    with pytest.raises(ImageError, match=r"item 3.*broken\.png"):
        model.encode(["a", SQUARE, "b", broken, WIDE], batch_size=1)


def test_worker_processes_give_the_same_and_name_positions(model: SentenceTransformer, embeddings: np.ndarray) -> None:
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    try:
        assert close(model.encode(ITEMS, pool=pool, chunk_size=2), embeddings)
        picture = Image.open(SQUARE)
        array = np.asarray(picture.convert("RGB"))
        several = model.encode([picture, array, SQUARE.read_bytes()], pool=pool, chunk_size=1)
        assert close(several, embeddings[[1, 1, 1]])
        with pytest.raises(ImageError, match="item 4"):
            model.encode(["a", "b", "c", "d", GOLDEN_GME / "missing.png"], pool=pool, chunk_size=1)
    finally:
        model.stop_multi_process_pool(pool)


def test_a_module_that_was_added_elsewhere_is_moved_as_in_sentence_transformers() -> None:
    model = SentenceTransformer("gme-2b", weights=CHECKPOINT, device="cpu")
    model.append(torch.nn.Linear(2, 2, device="meta"))
    # Theirs moves it to the model's device, and nothing can be moved from this one.
    with pytest.raises(NotImplementedError, match="meta"):
        model.encode("a cat")


def test_a_list_of_devices_spreads_the_work(model: SentenceTransformer, embeddings: np.ndarray) -> None:
    assert close(model.encode(ITEMS, device=["cpu", "cpu"]), embeddings)


def test_threads_do_not_disturb_each_other(model: SentenceTransformer) -> None:
    texts = [f"text {number} <|im_end|> <|image_pad|>" for number in range(40)]
    expected = model.encode(texts)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(model.encode, texts))
    assert close(found, expected)


def test_it_pickles(model: SentenceTransformer, embeddings: np.ndarray) -> None:
    assert close(pickle.loads(pickle.dumps(model)).encode(ITEMS), embeddings)


def test_saving_keeps_options_prompts_and_vectors(
    model: SentenceTransformer, embeddings: np.ndarray, tmp_path: Path
) -> None:
    model.save_pretrained(str(tmp_path))
    assert "trust_remote_code" not in (tmp_path / "config.json").read_text()
    reloaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert close(reloaded.encode(ITEMS), embeddings)
    assert reloaded.prompts == model.prompts
    backbone = reloaded[0]
    assert (backbone.min_image_tokens, backbone.max_image_tokens, backbone.max_length) == (4, 64, 1800)
    plain = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    assert close(plain.encode(ITEMS), embeddings)
    again = SentenceTransformer("gme-2b", weights=tmp_path, device="cpu", max_image_tokens=16, max_length=99)
    assert (again[0].max_image_tokens, again[0].max_length, again[0].min_image_tokens) == (16, 99, 4)


def test_saving_and_loading_show_no_progress_bar(
    model: SentenceTransformer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(str(tmp_path))
    SentenceTransformer(str(tmp_path), device="cpu")
    assert capsys.readouterr().err == ""


def test_the_saved_folder_is_what_push_to_hub_uploads(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads: list[dict[str, Any]] = []

    class Hub:
        def __init__(self, **kwargs: Any) -> None: ...

        def create_repo(self, repo_id: str, **kwargs: Any) -> Any:
            return type("Url", (), {"repo_id": repo_id})()

        def upload_folder(self, folder_path: str, **kwargs: Any) -> Any:
            uploads.append({path.name: path.read_bytes() for path in Path(folder_path).iterdir() if path.is_file()})
            return type("Commit", (), {"commit_url": "url"})()

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **kwargs: None

    monkeypatch.setattr("sentence_transformers.base.model.HfApi", Hub)
    model.push_to_hub("me/mine", replace_model_card=True)
    (files,) = uploads
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert {"model.safetensors", "modules.json", "config.json", "st_modules_config.json", "README.md"} <= set(files)
    assert json.loads(files["modules.json"])[0]["type"] == "st_modules.backbones.qwen2_vl.Qwen2VL"


def test_precision_of_the_weights(embeddings: np.ndarray) -> None:
    half = SentenceTransformer(
        "gme-2b",
        weights=CHECKPOINT,
        device="cpu",
        min_image_tokens=4,
        max_image_tokens=64,
        model_kwargs={"dtype": torch.bfloat16},
    )
    assert half.dtype == torch.bfloat16
    vectors = half.encode(ITEMS)
    assert vectors.dtype == np.float32
    assert (np.sum(vectors * embeddings, axis=1) > 0.99).all()


@pytest.mark.parametrize("option", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value", ["float16", torch.float16])
def test_both_names_and_forms_of_dtype(option: str, value: Any) -> None:
    model = SentenceTransformer("gme-2b", weights=CHECKPOINT, device="cpu", model_kwargs={option: value})
    assert model.dtype == torch.float16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_image_tokens": 0}, "min_image_tokens=0"),
        ({"min_image_tokens": 50, "max_image_tokens": 49}, "max_image_tokens=49"),
        ({"max_length": 0}, "max_length=0"),
        ({"max_length": 10**7}, "max_length=10000000: .* 32768 positions"),
        ({"model_kwargs": {"dtype": "bogus"}}, "dtype='bogus'"),
        ({"backend": "onnx"}, "backend='onnx': these models run on the backend 'torch'"),
        ({"backend": "openvino"}, "backend='openvino': these models run on the backend 'torch'"),
        ({"min_image_tokens": 1.5}, "min_image_tokens=1.5: pass an integer"),
        ({"max_image_tokens": True}, "max_image_tokens=True: pass an integer"),
        ({"max_length": "512"}, "max_length='512': pass an integer"),
        ({"max_batch_tokens": True}, "max_batch_tokens=True: pass an integer"),
        ({"truncate_dim": 0}, "truncate_dim=0: pass an integer"),
        ({"truncate_dim": 65}, "truncate_dim=65: .* 64 dimensions"),
        ({"device": "foo"}, "device='foo': torch knows no such device"),
        ({"image_limits": {}}, "image_limits={}: pass an ImageLimits"),
        ({"image_limits": {"max_bytes": 9}, "remote_images": False}, "image_limits={'max_bytes': 9}: pass an Image"),
        ({"remote_images": "no"}, "remote_images='no': pass True or False"),
        ({"allow_private_hosts": 1}, "allow_private_hosts=1: pass True or False"),
        ({"processor_kwargs": {"min_pixels": 3136}}, "min_image_tokens"),
    ],
)
def test_bad_arguments_say_what_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SentenceTransformer("gme-2b", weights=CHECKPOINT, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"min_image_tokens": 1.5},
        {"max_image_tokens": 0},
        {"max_length": True},
        {"max_batch_tokens": 0},
        {"truncate_dim": 0},
        {"device": "foo"},
        {"backend": "onnx"},
        {"image_limits": {}},
        {"remote_images": "no"},
    ],
    ids=str,
)
def test_bad_arguments_are_told_before_the_files_are_looked_for(arguments: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=f"^{next(iter(arguments))}="):
        SentenceTransformer("gme-2b", weights=tmp_path / "missing", **arguments)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gme2b", "Did you mean 'gme-2b'"),
        ("BAAI/bge-visualized", "'bge-visualized-base' or 'bge-visualized-m3'"),
    ],
)
def test_names_that_cannot_be_loaded(name: str, message: str) -> None:
    with pytest.raises(UnknownModelError, match=message):
        SentenceTransformer(name)


def test_weights_without_a_name_of_the_catalog_are_refused() -> None:
    with pytest.raises(ValueError, match="weights="):
        SentenceTransformer("somebody/else", weights=CHECKPOINT)


@pytest.mark.parametrize(
    ("method", "options"),
    [("encode", {}), ("encode_query", {}), ("encode", {"output_value": None})],
    ids=["encode", "encode_query", "their own loop"],
)
def test_options_of_a_call_that_would_be_ignored_are_refused(
    model: SentenceTransformer, method: str, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"processing_kwargs.*max_length"):
        getattr(model, method)("a", processing_kwargs={"text": {"max_length": 8}}, **options)


def test_options_that_would_be_ignored_are_refused(model: SentenceTransformer, tmp_path: Path) -> None:
    model.save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="processor_kwargs"):
        SentenceTransformer(str(tmp_path), processor_kwargs={"min_pixels": 3136})
    with pytest.raises(ValueError, match="backend='onnx': these models run on the backend 'torch'"):
        SentenceTransformer(str(tmp_path), backend="onnx")
    with pytest.raises(ValueError, match="^device='foo': torch knows no such device"):
        SentenceTransformer(str(tmp_path), device="foo")


def test_options_for_the_catalogs_models_are_refused_for_others(tmp_path: Path) -> None:
    folder = tmp_path / "other"
    sentence_transformers.SentenceTransformer(modules=[Normalize()]).save_pretrained(
        str(folder), create_model_card=False
    )
    assert isinstance(SentenceTransformer(str(folder)), sentence_transformers.SentenceTransformer)
    with pytest.raises(ValueError, match="max_length"):
        SentenceTransformer(str(folder), max_length=9)


def test_fetching_can_be_turned_off() -> None:
    model = SentenceTransformer("gme-2b", weights=CHECKPOINT, device="cpu", remote_images=False)
    with pytest.raises(ImageError, match="item 0"):
        model.encode([{"image": "https://example.com/picture.png"}])


def test_dictionary_text_that_looks_like_a_url_or_path_is_text(model: SentenceTransformer) -> None:
    texts = ["http://127.0.0.1:9/picture.png", str(SQUARE)]
    features = model.preprocess([{"text": text} for text in texts])
    assert "pixel_values" not in features


@pytest.mark.parametrize("source", ["upstream", "saved"])
@pytest.mark.parametrize(("accelerator", "device", "dtype"), [("cuda", None, "bfloat16"), ("cuda", "cpu", "float32")])
def test_the_device_decides_the_precision_where_nothing_else_does(
    source: str,
    accelerator: str,
    device: str | None,
    dtype: str,
    model: SentenceTransformer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model.save_pretrained(str(tmp_path))
    monkeypatch.setattr("st_modules.backbones.precision.get_device_name", lambda: accelerator)
    arguments: dict[str, Any] = {"weights": CHECKPOINT} if source == "upstream" else {}
    name = "gme-2b" if source == "upstream" else str(tmp_path)
    loaded = SentenceTransformer(name, device=device, **arguments)
    assert str(loaded.dtype) == f"torch.{dtype}"


def test_a_device_map_places_the_model(embeddings: np.ndarray) -> None:
    placed = SentenceTransformer(
        "gme-2b",
        weights=CHECKPOINT,
        min_image_tokens=4,
        max_image_tokens=64,
        model_kwargs={"device_map": "cpu", "dtype": "float32"},
    )
    assert close(placed.encode(ITEMS), embeddings)


def test_the_cache_folder_of_sentence_transformers_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(repo_id: str, **kwargs: Any) -> str:
        asked.update(kwargs, repo_id=repo_id)
        return str(CHECKPOINT)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    SentenceTransformer("iic/gme-Qwen2-VL-2B-Instruct", device="cpu", token="secret")
    assert asked["repo_id"] == "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct"
    assert asked["revision"] == "ce765ae71b8cdb208203cd8fb64a170b1b84293a"
    assert (asked["cache_dir"], asked["token"], asked["local_files_only"]) == (str(tmp_path), "secret", False)
    SentenceTransformer("gme-2b", device="cpu", revision="main", cache_folder="/elsewhere", local_files_only=True)
    assert (asked["revision"], asked["cache_dir"], asked["local_files_only"]) == ("main", "/elsewhere", True)


def test_everything_but_the_adapter_is_frozen_whatever_the_adapter_is_of() -> None:
    model = load("bge-visualized-base")
    model.add_adapter(lora("bge-visualized-base"))
    assert {"lora_" in name for name in trained(model)} == {True}


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("name", ["gme-2b", "bge-visualized-base"])
def test_load_adapter_takes_a_saved_models_adapter(name: str, dora: bool, tmp_path: Path) -> None:
    model = adapted(name, lora(name, use_dora=dora))
    model.save_pretrained(str(tmp_path / "first"))
    again = load(name)
    again.load_adapter(str(tmp_path / "first"), "mine", is_trainable=True)
    assert again.active_adapters() == ["mine"]
    assert {"lora_" in name for name in trained(again)} == {True}
    assert difference(again, name, embed(model, name)) <= 1e-6
    again.save_pretrained(str(tmp_path / "second"))
    last = SentenceTransformer(str(tmp_path / "second"), device="cpu")
    assert difference(last, name, embed(model, name)) <= 1e-6


@pytest.mark.parametrize("what", ["missing", "unexpected"])
def test_load_adapter_refuses_an_adapter_that_does_not_fit(what: str, tmp_path: Path) -> None:
    adapted("gme-2b").save_pretrained(str(tmp_path))
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(file)
    first = min(weights)
    if what == "unexpected":
        weights[first.replace("layers.0", "layers.9")] = weights[first].clone()
    else:
        del weights[first]
    save_file(weights, file)
    model = load("gme-2b")
    with pytest.raises(CheckpointError, match=f"{tmp_path}.*{what}"):
        model.load_adapter(str(tmp_path))
    assert difference(model, "gme-2b", embed(load("gme-2b"), "gme-2b")) <= 1e-6
    with pytest.raises(CheckpointError, match=f"{what}"):
        model.load_adapter(adapter_state_dict=weights, peft_config=lora("gme-2b"))


def test_adapters_are_switched_as_in_sentence_transformers() -> None:
    model = adapted("gme-2b")
    expected = embed(model, "gme-2b")
    state = {name: weight.clone() for name, weight in model.get_adapter_state_dict().items()}
    model.disable_adapters()
    assert difference(model, "gme-2b", embed(load("gme-2b"), "gme-2b")) <= 1e-6
    model.enable_adapters()
    assert difference(model, "gme-2b", expected) <= 1e-6
    assert state.keys() == {name.removeprefix("0.model.").replace(".default", "") for name in trained(model)}
    model.delete_adapter("default")
    assert difference(model, "gme-2b", embed(load("gme-2b"), "gme-2b")) <= 1e-6
