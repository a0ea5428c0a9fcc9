"""``CrossEncoder``: names, pairs and their errors, sentence-transformers' protocol, what is saved and damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

from st_modules import (
    CheckpointError,
    CrossEncoder,
    ImageError,
    ImageLimits,
    InputError,
    SentenceTransformer,
    UnknownModelError,
    get_model,
    list_models,
)
from st_modules.errors import ArgumentError
from tests.helpers.paths import GOLDEN
from tests.helpers.references import TOLERANCE
from tests.helpers.rerankers import IMAGES, change_json
from tests.helpers.stock_qwen3_vl_reranker import Stock

NAME = "qwen3-vl-reranker-8b"
RED = Image.new("RGB", (64, 96), "red")
PAIRS: list[Any] = [
    ("a dog", "a brown dog"),
    ("a dog", {"image": IMAGES / "wide.png"}),
    ({"text": "make it blue", "image": RED}, {"text": "blue", "image": [RED, IMAGES / "rgba.png"]}),
]


@pytest.fixture(scope="module")
def saved(reranker: CrossEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "mine"
    reranker.save_pretrained(str(folder))
    return folder


# ------------------------------------------------------------------------------------------------------- names


def test_rerankers_are_listed_apart_from_embedders() -> None:
    names = [spec.name for spec in list_models("rerank")]
    assert names == ["qwen3-vl-reranker-2b", "qwen3-vl-reranker-8b"]
    assert {spec.task for spec in list_models()} == {"embed"}
    assert [spec.name for spec in list_models(None)] == [*(spec.name for spec in list_models()), *names]
    assert get_model("Qwen/Qwen3-VL-Reranker-2B").task == "rerank"


@pytest.mark.parametrize("name", ["Qwen/Qwen3-VL-Reranker-8B", "QWEN3-VL-RERANKER-8B"])
def test_a_reranker_is_loaded_by_any_of_its_names(name: str, reranker: CrossEncoder, reranker_folder: Path) -> None:
    model = CrossEncoder(name, weights=reranker_folder, device="cpu")
    assert np.abs(model.predict(PAIRS) - reranker.predict(PAIRS)).max() <= TOLERANCE


def test_a_folder_of_a_repositorys_name_is_the_model_whatever_modules_it_lists(
    reranker: CrossEncoder, reranker_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(reranker_folder, tmp_path / "Qwen3-VL-Reranker-8B"))
    modules = ["base.modules.transformer.Transformer", "cross_encoder.modules.logit_score.LogitScore"]
    listed = [
        {"idx": number, "name": str(number), "path": "", "type": f"sentence_transformers.{name}"}
        for number, name in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    assert np.abs(CrossEncoder(folder, device="cpu").predict(PAIRS) - reranker.predict(PAIRS)).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda folder: CrossEncoder("gme-2b"), "'gme-2b': it is an embedder; load it with st_modules.SentenceTr"),
        (lambda folder: SentenceTransformer(NAME), "it is a reranker; load it with st_modules.CrossEncoder"),
        (lambda folder: CrossEncoder("qwen3-vl-rerankr-8b"), "Did you mean 'qwen3-vl-reranker-8b'"),
    ],
)
def test_a_name_of_another_kind_of_model_is_refused(load: Callable[[Path], Any], message: str) -> None:
    with pytest.raises(UnknownModelError, match=message):
        load(Path())


def test_a_folder_that_does_not_say_which_model_it_is_is_refused(reranker_folder: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"layout of qwen3-vl-reranker-2b or .*sentence_transformers\.CrossEncoder"
    ):
        CrossEncoder(reranker_folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 40_000}, "max_length=40000: pass less"),
        ({"min_image_tokens": 9, "max_image_tokens": 8}, "the first must be at least 1"),
        ({"num_labels": 2}, "num_labels=2: this model has one score a pair"),
        ({"processor_kwargs": {"a": 1}}, "processor_kwargs"),
        ({"backend": "onnx"}, "backend"),
    ],
)
def test_an_argument_that_the_model_cannot_have_is_refused(
    options: dict[str, Any], message: str, reranker_folder: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        CrossEncoder(NAME, weights=reranker_folder, device="cpu", **options)


def test_other_cross_encoders_are_sentence_transformers_own_affair(tmp_path: Path) -> None:
    import transformers

    library: Any = transformers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "brown"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    library.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = library.BertConfig(vocab_size=len(words), num_labels=1, **sizes)
    torch.manual_seed(0)
    library.BertForSequenceClassification(config).save_pretrained(tmp_path)
    pairs = [("a dog", "brown dog"), ("a", "dog")]
    classes: list[Any] = [CrossEncoder, sentence_transformers.CrossEncoder]
    ours, theirs = (each(str(tmp_path), device="cpu") for each in classes)
    assert ours.predict(pairs).tolist() == theirs.predict(pairs).tolist()
    assert ours.parse(pairs) == pairs
    assert CrossEncoder(str(tmp_path), device="cpu", max_length=5).max_seq_length == 5
    with pytest.raises(ValueError, match="max_image_tokens: .* not a model that this argument applies to"):
        CrossEncoder(str(tmp_path), max_image_tokens=9)
    with pytest.raises(ValueError, match="weights= and base_weights="):
        CrossEncoder("mine/mine", weights=tmp_path)


# ------------------------------------------------------------------------------------------------------- protocol


def test_a_pair_by_itself_has_a_score_by_itself(reranker: CrossEncoder) -> None:
    assert reranker.predict(PAIRS[0]) == pytest.approx(reranker.predict(PAIRS)[0], abs=TOLERANCE)
    assert reranker.predict([]).shape == (0,)
    assert reranker.rank("a dog", []) == []


def test_documents_are_ranked_by_their_scores(reranker: CrossEncoder) -> None:
    documents = [document for _, document in PAIRS]
    scores = reranker.predict([("a dog", document) for document in documents])
    ranked = reranker.rank("a dog", documents, return_documents=True)
    assert [found["corpus_id"] for found in ranked] == np.argsort(-scores).tolist()
    assert [found["score"] for found in ranked] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=TOLERANCE)
    assert [found["text"] for found in ranked] == [documents[int(found["corpus_id"])] for found in ranked]
    assert reranker.rank("a dog", documents, top_k=1) == [{key: ranked[0][key] for key in ("corpus_id", "score")}]


def test_scores_come_in_the_form_that_is_asked_for(reranker: CrossEncoder) -> None:
    expected = reranker.predict(PAIRS)
    assert expected.dtype == np.float32
    tensor = reranker.predict(PAIRS, convert_to_tensor=True)
    each = reranker.predict(PAIRS, convert_to_numpy=False)
    assert np.abs(tensor.numpy() - expected).max() <= TOLERANCE
    assert [float(score) for score in each] == pytest.approx(expected.tolist(), abs=TOLERANCE)
    logits = reranker.predict(PAIRS, activation_fn=torch.nn.Identity())
    assert 1 / (1 + np.exp(-logits)) == pytest.approx(expected, abs=TOLERANCE)
    strings: Any = np.array([["a dog", "a brown dog"], ["a dog", "a"]])
    assert reranker.predict(strings)[0] == pytest.approx(expected[0], abs=TOLERANCE)


def test_an_activation_of_the_models_own_is_used_and_saved(reranker_folder: Path, tmp_path: Path) -> None:
    model = CrossEncoder(NAME, weights=reranker_folder, device="cpu", activation_fn=torch.nn.Tanh())
    expected = torch.tanh(torch.tensor(model.predict(PAIRS, activation_fn=torch.nn.Identity()))).numpy()
    assert np.abs(model.predict(PAIRS) - expected).max() <= TOLERANCE
    model.save_pretrained(str(tmp_path))
    assert np.abs(CrossEncoder(tmp_path, device="cpu").predict(PAIRS) - expected).max() <= TOLERANCE


def test_the_instruction_is_the_prompt_or_the_system_message_of_a_query(
    reranker: CrossEncoder, reranker_folder: Path
) -> None:
    stock, instruction = Stock(reranker_folder), "Find a dog of this colour"
    expected = stock.logit(("a dog", []), ("a brown dog", []), instruction)
    logits: dict[str, Any] = {"activation_fn": torch.nn.Identity()}
    query = [{"role": "system", "content": instruction}, {"role": "user", "content": "a dog"}]
    found = reranker.predict([(query, "a brown dog"), ("a dog", "a brown dog")], **logits)
    assert found[0] == pytest.approx(expected, abs=TOLERANCE)
    assert found[1] == pytest.approx(stock.logit(("a dog", []), ("a brown dog", [])), abs=TOLERANCE)
    assert reranker.predict(PAIRS[0], prompt=instruction, **logits) == pytest.approx(expected, abs=TOLERANCE)
    named = reranker.predict(PAIRS[0], prompt_name="retrieve", **logits)
    prompt = "Retrieve images or text relevant to the user's query."
    assert named == pytest.approx(stock.logit(("a dog", []), ("a brown dog", []), prompt), abs=TOLERANCE)


def test_several_processes_give_the_same_scores_and_name_places_in_the_whole_list(reranker: CrossEncoder) -> None:
    found = reranker.predict(PAIRS, device=["cpu"], chunk_size=1)
    assert np.abs(found - reranker.predict(PAIRS)).max() <= TOLERANCE
    with pytest.raises(InputError, match="^pair 2, document: None"):
        reranker.predict([*PAIRS[:2], ("a", None)], device=["cpu"], chunk_size=1)


def test_scores_in_half_precision_are_near(reranker: CrossEncoder, reranker_folder: Path) -> None:
    half = CrossEncoder(NAME, weights=reranker_folder, device="cpu", model_kwargs={"dtype": torch.bfloat16})
    found = half.predict(PAIRS)
    assert found.dtype == np.float32
    assert np.abs(found - reranker.predict(PAIRS)).max() < 0.05


def test_a_reranker_can_be_trained(reranker_folder: Path, tmp_path: Path) -> None:
    from datasets import Dataset

    model = CrossEncoder(NAME, weights=reranker_folder, device="cpu")
    rows = {"query": ["a dog", "a cat"], "document": ["a brown dog", "a lamp"], "label": [1.0, 0.0]}
    before = model.predict([("a dog", "a brown dog"), ("a cat", "a lamp")])
    arguments = CrossEncoderTrainingArguments(
        str(tmp_path), max_steps=3, learning_rate=1e-3, report_to="none", save_strategy="no", use_cpu=True
    )
    CrossEncoderTrainer(model, arguments, Dataset.from_dict(rows), loss=BinaryCrossEntropyLoss(model)).train()
    after = model.predict([("a dog", "a brown dog"), ("a cat", "a lamp")])
    assert after[0] - after[1] > before[0] - before[1]


# ------------------------------------------------------------------------------------------------------- errors


BAD: list[tuple[Any, str]] = [
    (("a",), "^pair 1: of type tuple and of length 1; pass a pair"),
    (("a", "b", "c"), "^pair 1: of type tuple and of length 3; pass a pair"),
    ({"query": "a", "document": "b"}, "^pair 1: of type dict; pass a pair"),
    ((None, "a"), "^pair 1, query: None"),
    (("a", 7), "^pair 1, document: the number 7"),
    (("a", {"image": "x", "words": "y"}), r"^pair 1, document: unknown keys \['words'\]"),
    (({"image": "/none.png"}, "a"), "^pair 1, query: /none.png: no such file"),
    (("a", {"text": "b", "image": "/none.png"}), "^pair 1, document: /none.png: no such file"),
    (("a", {"image": [RED, "/none.png"]}), "^pair 1, document, image 1: /none.png: no such file"),
    (("a", Image.new("RGB", (1, 201))), "^pair 1, document: .*above 200"),
    (
        ("a", [{"role": "system", "content": "x"}, {"role": "user", "content": "b"}]),
        "^pair 1, document: an instruction",
    ),
    (("a " * 40_000, "b"), "^pair 1: its instruction and its query are over max_length=10245 without any text"),
    (("a\ud800", "b"), "^pair 1, query: character 1"),
]


@pytest.mark.parametrize(("pair", "message"), BAD)
def test_a_bad_pair_is_named_by_its_place_and_its_side(pair: Any, message: str, reranker: CrossEncoder) -> None:
    with pytest.raises(InputError, match=message) as caught:
        reranker.predict([("a", "b"), pair])
    assert caught.value.index == 1


def test_images_are_read_within_the_limits(reranker_folder: Path) -> None:
    limits = ImageLimits(max_pixels=5000)
    model = CrossEncoder(NAME, weights=reranker_folder, device="cpu", image_limits=limits, remote_images=False)
    with pytest.raises(ImageError, match="^pair 1, document: .*pixels"):
        model.predict([("a", "b"), ("a", RED)])
    with pytest.raises(ImageError, match="^pair 0, query: "):
        model.predict([({"image": "https://example.com/a.png"}, "b")])


def test_a_document_that_is_cut_is_logged(reranker: CrossEncoder, caplog: pytest.LogCaptureFixture) -> None:
    reranker.predict([("a", "b " * 40_000), ("a", "b")])
    assert "1 of 2 items are longer than max_length=10245 tokens" in caplog.text


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"batch_size": True}, ArgumentError),
        ({"prompt": 3}, ArgumentError),
        ({"processing_kwargs": {"a": 1}}, ValueError),
    ],
)
def test_an_argument_of_a_call_that_is_none_is_refused(
    options: dict[str, Any], error: type[Exception], reranker: CrossEncoder
) -> None:
    with pytest.raises(error):
        reranker.predict(PAIRS, **options)


# ------------------------------------------------------------------------------------------------------- saved


def test_a_saved_model_has_the_same_scores(saved: Path, reranker: CrossEncoder) -> None:
    expected = reranker.predict(PAIRS)
    for model in (CrossEncoder(saved, device="cpu"), CrossEncoder(NAME, weights=saved, device="cpu")):
        assert np.abs(model.predict(PAIRS) - expected).max() <= TOLERANCE
        assert model.prompts == reranker.prompts


def test_a_saved_model_loads_with_other_options(saved: Path) -> None:
    model = CrossEncoder(saved, device="cpu", max_length=300, max_image_tokens=9)
    backbone: Any = model[0]
    assert (model.max_seq_length, backbone.max_image_tokens) == (300, 9)


def test_a_saved_model_has_no_other_head_than_its_score(saved: Path) -> None:
    names = load_file(saved / "model.safetensors").keys() | load_file(saved / "1_Dense" / "model.safetensors").keys()
    assert "linear.weight" in names
    assert [name for name in names if "lm_head" in name] == []


def test_the_card_of_a_saved_model_loads_it_by_this_package(saved: Path) -> None:
    card = (saved / "README.md").read_text(encoding="utf-8")
    assert "from st_modules import CrossEncoder" in card
    assert "license: apache-2.0" in card
    assert "finetuned" not in card


def test_a_saved_reranker_is_no_embedder(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="it is a reranker; load it with st_modules.CrossEncoder"):
        SentenceTransformer(saved)


def damage_modules(folder: Path) -> None:
    path = folder / "modules.json"
    path.write_text(json.dumps(json.loads(path.read_text())[:1]))


def drop(folder: Path, name: str) -> None:
    path = folder / "1_Dense" / "config.json"
    content = json.loads(path.read_text())
    del content[name]
    path.write_text(json.dumps(content))


def write_score(folder: Path, name: str, size: int) -> None:
    save_file({name: np.zeros((1, size), np.float32)}, folder / "1_Dense" / "model.safetensors")


SCORE = "1_Dense/config.json"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no weights": (lambda folder: (folder / "1_Dense" / "model.safetensors").unlink(), "which is not there"),
    "no folder": (lambda folder: shutil.rmtree(folder / "1_Dense"), "which is not there"),
    "cut weights": (lambda folder: (folder / "1_Dense" / "model.safetensors").write_bytes(b"x" * 20), "cannot be read"),
    "other weights": (lambda folder: write_score(folder, "weight", 64), "linear.weight"),
    "other size": (lambda folder: write_score(folder, "linear.weight", 63), r"\[1, 64\]} is needed"),
    "no activation": (lambda folder: drop(folder, "activation_function"), "no activation_function in it"),
    "activation": (lambda folder: change_json(folder / SCORE, activation_function="torch.hub.list"), "activation_func"),
    "labels": (lambda folder: change_json(folder / SCORE, out_features=2), "out_features is 2"),
    "bias": (lambda folder: change_json(folder / SCORE, bias=True), "bias is True"),
    "no module": (damage_modules, "a reranker has one module after its first"),
    "activation of the model": (
        lambda folder: change_json(folder / "config_sentence_transformers.json", activation_fn="torch.hub.list"),
        "a class of torch.nn",
    ),
    "template": (lambda folder: change_json(folder / "st_modules_config.json", template="gme"), "it is an embedder"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_model_is_refused(damage: str, saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    change, message = DAMAGE[damage]
    change(folder)
    with pytest.raises(CheckpointError, match=message):
        CrossEncoder(folder, device="cpu")


def test_a_score_of_another_model_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "copy"))
    write_score(folder, "linear.weight", 63)
    change_json(folder / SCORE, in_features=63)
    with pytest.raises(CheckpointError, match="vectors of 64 dimensions, and its score is one of 63"):
        CrossEncoder(folder, device="cpu")


def test_a_checkpoint_without_its_head_is_refused(reranker_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(reranker_folder, tmp_path / "copy"))
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing: lm_head\.weight"):
        CrossEncoder(NAME, weights=folder, device="cpu")


def test_a_tokenizer_without_the_answers_is_refused() -> None:
    with pytest.raises(CheckpointError, match="does not have the token yes nor no"):
        CrossEncoder("qwen3-vl-reranker-2b", weights=GOLDEN / "qwen3_vl_embedding" / "checkpoint", device="cpu")
