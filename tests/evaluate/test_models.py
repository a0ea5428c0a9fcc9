"""Models behind mteb's protocol: mteb's own scores are those of a brute-force search over the model's vectors."""

from __future__ import annotations

import copy
import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mteb
import numpy as np
import pytest
import sentence_transformers
import torch
from datasets import Dataset, Features, Image, Value
from mteb._create_dataloaders import create_dataloader
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.sts import AbsTaskSTS
from mteb.models import SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from peft.tuners.lora import LoraLayer
from scipy.stats import spearmanr
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sklearn.metrics import ndcg_score
from sklearn.neighbors import KNeighborsClassifier
from tokenizers import Tokenizer

from st_modules import InputError, SentenceTransformer, get_model, list_models
from st_modules.demo.wording import caption, paraphrase
from st_modules.errors import ArgumentError, MissingExtraError
from st_modules.evaluate import (
    Entry,
    MTEBModel,
    Report,
    collect,
    evaluate,
    load_model,
    model_meta,
    open_benchmark,
    wrap_model,
)
from st_modules.evaluate import models as models_module
from st_modules.evaluate.drawings import DRAWINGS, Drawings, DrawingsI2T, DrawingsIT2I, DrawingsMixed, DrawingsT2I
from st_modules.evaluate.instructions import find_instruction
from st_modules.evaluate.local_task import local_metadata
from st_modules.evaluate.revisions import weights_revision
from st_modules.prompts.templates import TEMPLATES
from st_modules.train import LoraSettings, add_lora
from tests.helpers.evaluation import ranks, similarities
from tests.helpers.paths import GOLDEN
from tests.helpers.references import ONE_A_TEMPLATE, reference
from tests.helpers.videos import random_frames

# By value: before Python 3.11 there is no StrEnum, and the members of one are read as strings.
QUERY, DOCUMENT = PromptType("query"), PromptType("document")
CHECKPOINT = GOLDEN / "gme" / "checkpoint"
QUIET: dict[str, Any] = {"show_progress_bar": False, "co2_tracker": False}
INSTRUCTED = {
    "gme-2b",
    "ops-mm-v1-2b",
    "rzen-embed",
    "qwen3-vl-embedding-2b",
    "vlm2vec-qwen2vl-2b",
    "vlm2vec-v2",
    "vlm2vec-llava-next",
    "vlm2vec-phi3.5-v",
    "bge-vl-mllm-s1",
    "clip-sf-large",
}


def entry(task: type[Drawings], scenes: int = 4, metrics: tuple[str, ...] = ("ndcg_at_10", "recall_at_1")) -> Entry:
    return Entry(task.metadata.name, "drawings", metrics, functools.partial(task, scenes))


def run(model: MTEBModel, folder: Path, *entries: Entry, **options: Any) -> Any:
    return evaluate(model, entries, folder, show_progress_bar=False, **options)


def expected(model: SentenceTransformer, task: Drawings, prompt: str | None) -> dict[str, float]:
    data = task.subsets()["default"]
    right = {query: next(iter(found)) for query, found in data["relevant_docs"].items()}
    scores = similarities(model, data["queries"], data["corpus"], prompt)
    labels = [[float(name == right[query]) for name in found] for query, found in scores.items()]
    return {
        "ndcg_at_10": ndcg_score(labels, [list(found.values()) for found in scores.values()], k=10),
        "recall_at_1": float(np.mean(ranks(scores, right) == 0)),
    }


# ---------------------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("task", DRAWINGS, ids=lambda task: task.metadata.name)
def test_tiny_gets_the_scores_of_a_brute_force_search(
    tiny: SentenceTransformer, tmp_path: Path, task: type[Drawings]
) -> None:
    outcome = run(wrap_model(tiny, "tiny"), tmp_path, entry(task, scenes=12))
    assert outcome.errors == {}
    prompt = tiny.prompts.get(str(task.metadata.category))
    found = expected(tiny, task(12), prompt)
    assert outcome.scores[task.metadata.name] == pytest.approx(found, abs=1e-5)
    assert found["ndcg_at_10"] > 0.9


@pytest.mark.parametrize("name", ONE_A_TEMPLATE)
def test_a_model_of_every_family_gets_the_scores_of_a_brute_force_search(name: str, tmp_path: Path) -> None:
    model = reference(name).load(name)
    outcome = run(wrap_model(model, name), tmp_path, entry(DrawingsMixed, scenes=6))
    assert outcome.errors == {}
    assert outcome.scores["DrawingsMixed"] == pytest.approx(expected(model, DrawingsMixed(6), None), abs=1e-5)


def test_a_mixed_corpus_has_the_three_kinds_of_documents() -> None:
    rows: Any = DrawingsMixed(6).subsets()["default"]["corpus"]
    kinds = {(bool(row["text"]), row["image"] is not None) for row in rows}
    assert kinds == {(True, False), (False, True), (True, True)}


@pytest.mark.parametrize("task", DRAWINGS, ids=lambda task: task.metadata.name)
def test_drawings_are_the_same_each_time(task: type[Drawings]) -> None:
    drawings = task(5)
    first, again = (
        {side: data[side].data.table for side in ("queries", "corpus")}
        for data in (drawings.subsets()["default"] for _ in range(2))
    )
    assert first == again


def test_results_are_files_of_mteb(tiny: SentenceTransformer, tmp_path: Path) -> None:
    model = wrap_model(tiny, "tiny")
    outcome = run(model, tmp_path, entry(DrawingsT2I))
    assert model.mteb_model_meta is not None
    kept = mteb.ResultCache(tmp_path).load_task_result("DrawingsT2I", model.mteb_model_meta)
    assert kept is not None
    assert kept.get_score() == outcome.scores["DrawingsT2I"]["ndcg_at_10"]
    assert kept.dataset_revision == "drawings-4-41"


def test_a_task_can_be_run_twice(tiny: SentenceTransformer, tmp_path: Path) -> None:
    task = DrawingsT2I(3)
    twice = Entry("DrawingsT2I", "drawings", ("ndcg_at_10",), lambda: task)
    first = run(wrap_model(tiny, "tiny"), tmp_path, twice, overwrite=True)
    again = run(wrap_model(tiny, "tiny"), tmp_path, twice, overwrite=True)
    assert again.results["DrawingsT2I"].dataset_revision == first.results["DrawingsT2I"].dataset_revision
    assert again.scores == first.scores


# ------------------------------------------------------------------------------------------------- going on


def test_results_of_a_model_are_not_those_of_it_before_it_was_trained(tmp_path: Path) -> None:
    model = SentenceTransformer("tiny", device="cpu")
    before = run(wrap_model(model, "tiny"), tmp_path, entry(DrawingsT2I))
    next(model.parameters()).data.normal_(generator=torch.Generator().manual_seed(0))
    after = run(wrap_model(model, "tiny"), tmp_path, entry(DrawingsT2I))
    assert after.scores["DrawingsT2I"]["ndcg_at_10"] < before.scores["DrawingsT2I"]["ndcg_at_10"]


def test_results_of_a_wrapped_model_are_not_those_of_it_before_it_was_trained(tmp_path: Path) -> None:
    model = load_model("tiny", device="cpu")
    published = model.meta.revision
    before = run(model, tmp_path, entry(DrawingsT2I))
    assert model.meta.revision == published
    next(model.model.parameters()).data.normal_(generator=torch.Generator().manual_seed(0))
    assert collect(model, [entry(DrawingsT2I)], tmp_path).scores == {}
    after = run(model, tmp_path, entry(DrawingsT2I))
    assert after.scores["DrawingsT2I"]["ndcg_at_10"] < before.scores["DrawingsT2I"]["ndcg_at_10"]
    assert model.meta.revision == wrap_model(model.model, "tiny").meta.revision


def triple_scaling(model: SentenceTransformer) -> None:
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.scaling = {name: 3 * scaling for name, scaling in layer.scaling.items()}


@pytest.mark.parametrize("change", [lambda model: model.disable_adapters(), triple_scaling], ids=["disabled", "scaled"])
def test_results_of_a_model_with_an_adapter_are_not_those_of_it_used_otherwise(
    change: Callable[[SentenceTransformer], None],
) -> None:
    model = SentenceTransformer("tiny", device="cpu")
    add_lora(model, LoraSettings())
    wrapped = wrap_model(model, "tiny")
    before = wrapped.meta.revision
    wrapped.update_revision()
    assert wrapped.meta.revision == before
    change(model)
    wrapped.update_revision()
    assert wrapped.meta.revision != before
    assert wrapped.meta.revision == wrap_model(model, "tiny").meta.revision


def test_results_under_other_instructions_are_filed_apart_once_they_are_changed(tiny: SentenceTransformer) -> None:
    model = wrap_model(tiny, "tiny")
    plain = model.meta.experiment_kwargs
    model.instructions["query"] = "Find it."
    model.update_revision()
    instructed = wrap_model(tiny, "tiny", instructions={"query": "Find it."})
    assert model.meta.experiment_kwargs == instructed.meta.experiment_kwargs != plain
    model.instructions.clear()
    model.update_revision()
    assert model.meta.experiment_kwargs == plain


@pytest.mark.parametrize("options", [{"truncate_dim": 8}, {"prompts": {"t2i": "Find it."}}], ids=str)
def test_results_of_a_model_with_other_options_are_filed_apart(
    tiny: SentenceTransformer, options: dict[str, Any]
) -> None:
    other = SentenceTransformer("tiny", device="cpu", **options)
    assert wrap_model(other, "tiny").meta.revision != wrap_model(tiny, "tiny").meta.revision


def test_results_of_a_repository_are_filed_under_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SentenceTransformer("tiny", device="cpu")
    monkeypatch.setattr(models_module, "SentenceTransformer", lambda name, **options: model)
    first = load_model("someone/model").meta.revision
    assert load_model("someone/model").meta.revision == first
    next(model.parameters()).data.normal_(generator=torch.Generator().manual_seed(0))
    assert load_model("someone/model").meta.revision != first
    assert load_model("someone/model", "abc").meta.revision == "abc"


def test_an_outcome_has_the_models_name(tmp_path: Path) -> None:
    model = SentenceTransformer("tiny", device="cpu")
    model.save_pretrained(str(tmp_path / "mine"))
    names = ("tiny", "someone/model", str(tmp_path / "mine"))
    found = [(made.model, made.catalog_name) for made in (run(wrap_model(model, name), tmp_path) for name in names)]
    assert found == [("tiny", "tiny"), ("someone/model", None), (str(tmp_path / "mine"), None)]


def test_a_task_with_results_is_not_run_again(tiny: SentenceTransformer, tmp_path: Path) -> None:
    first = run(wrap_model(tiny, "tiny"), tmp_path, entry(DrawingsT2I))
    meta: Any = wrap_model(tiny, "tiny").mteb_model_meta
    again = run(_Silent(tiny, meta), tmp_path, entry(DrawingsT2I))
    assert again.errors == {}
    assert again.scores == first.scores


@pytest.mark.parametrize(("scenes", "options"), [(4, {"overwrite": True}), (5, {})])
def test_it_is_run_again_when_asked_and_when_its_data_changed(
    tiny: SentenceTransformer, tmp_path: Path, scenes: int, options: dict[str, Any]
) -> None:
    run(wrap_model(tiny, "tiny"), tmp_path, entry(DrawingsT2I))
    meta: Any = wrap_model(tiny, "tiny").mteb_model_meta
    model = _Silent(tiny, meta)
    assert run(model, tmp_path, entry(DrawingsT2I, scenes), **options).errors == {"DrawingsT2I": "RuntimeError: it ran"}


@pytest.mark.parametrize(("scenes", "found"), [(4, {"DrawingsT2I"}), (5, set())])
def test_only_results_on_the_same_data_are_collected(
    tiny: SentenceTransformer, tmp_path: Path, scenes: int, found: set[str]
) -> None:
    run(wrap_model(tiny, "tiny"), tmp_path, entry(DrawingsT2I))
    entries = [entry(DrawingsT2I, scenes), entry(DrawingsMixed)]
    assert set(collect(wrap_model(tiny, "tiny"), entries, tmp_path).scores) == found


def test_a_task_that_fails_does_not_stop_the_others(tiny: SentenceTransformer, tmp_path: Path) -> None:
    broken = Entry("Broken", "drawings", ("ndcg_at_10",), functools.partial(_fail, "no such data"))
    outcome = run(wrap_model(tiny, "tiny"), tmp_path, broken, entry(DrawingsT2I))
    assert outcome.errors == {"Broken": "RuntimeError: no such data"}
    assert set(outcome.scores) == {"DrawingsT2I"}


def test_two_tasks_of_one_name_are_refused(tiny: SentenceTransformer, tmp_path: Path) -> None:
    entries = [entry(DrawingsT2I), entry(DrawingsMixed), entry(DrawingsT2I, scenes=5)]
    with pytest.raises(ArgumentError, match=r"^entries\[0\] and entries\[2\] are both called 'DrawingsT2I'"):
        run(wrap_model(tiny, "tiny"), tmp_path, *entries)


class _Silent(MTEBModel):
    """A model that must not be asked."""

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("it ran")


def _fail(message: str) -> Any:
    raise RuntimeError(message)


# ----------------------------------------------------------------------------------------------------- rows


def vectors_of(model: MTEBModel, table: Dataset, side: PromptType) -> Any:
    task = DrawingsMixed(2).metadata
    loader = create_dataloader(table, task_metadata=task, prompt_type=side, batch_size=2)
    return model.encode(
        loader, task_metadata=task, hf_split="test", hf_subset="default", prompt_type=side, show_progress_bar=False
    )


def test_many_rows_keep_their_order(tiny: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_module, "ROWS_IN_MEMORY", 3)
    corpus: Any = DrawingsMixed(7).subsets()["default"]["corpus"]
    found = vectors_of(wrap_model(tiny, "tiny"), corpus, DOCUMENT)
    whole = tiny.encode_document([{k: row[k] for k in ("text", "image") if row[k] not in (None, "")} for row in corpus])
    assert found == pytest.approx(whole, abs=1e-5)


def test_no_more_pictures_are_held_than_said(tiny: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_module, "ROWS_IN_MEMORY", 2)
    sizes: list[int] = []
    model = wrap_model(tiny, "tiny")
    monkeypatch.setattr(model, "model", _Recorder(tiny, sizes=sizes))
    vectors_of(model, DrawingsMixed(7).subsets()["default"]["corpus"], DOCUMENT)
    assert sizes == [2, 2, 2, 1]


def test_a_row_that_cannot_be_embedded_is_named(tiny: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_module, "ROWS_IN_MEMORY", 2)
    data = [{"text": "a star", "image": None}] * 3 + [{"text": "broken \ud800", "image": None}]
    batches: Any = [{key: [row[key] for row in data[place : place + 2]] for key in data[0]} for place in (0, 2)]
    options: dict[str, Any] = {"task_metadata": DrawingsMixed.metadata, "hf_split": "test", "hf_subset": "default"}
    with pytest.raises(InputError, match="^DrawingsMixed, document 3: .* lone surrogate"):
        wrap_model(tiny, "tiny").encode(batches, prompt_type=DOCUMENT, show_progress_bar=False, **options)


class _Recorder:
    """Passes calls on to a model, and notes with what."""

    def __init__(self, model: SentenceTransformer, sizes: list[int] | None = None) -> None:
        self.inner, self.sizes, self.calls = model, sizes if sizes is not None else [], []
        self.prompts: Mapping[str, str | None] = model.prompts

    def __getitem__(self, place: int) -> Any:
        return self.inner[place]

    def _call(self, side: str, items: list[Any], **options: Any) -> Any:
        self.sizes.append(len(items))
        self.calls.append((side, options["prompt"]))
        return getattr(self.inner, side)(items, **options)

    def __getattr__(self, name: str) -> Any:
        return functools.partial(self._call, name) if name.startswith("encode") else getattr(self.inner, name)


@pytest.mark.parametrize("column", ["audio", "video"])
def test_what_no_model_here_embeds_is_refused(tiny: SentenceTransformer, column: str) -> None:
    batches: Any = [{"text": ["a star"], column: [object()]}]
    options: dict[str, Any] = {"task_metadata": DrawingsMixed.metadata, "hf_split": "test", "hf_subset": "default"}
    with pytest.raises(ValueError, match=f"^{column}: these models embed texts and images"):
        wrap_model(tiny, "tiny").encode(batches, show_progress_bar=False, **options)


class _Decoder:
    """What torchcodec's decoder of a video is asked for."""

    def __init__(self, frames: list[np.ndarray]) -> None:
        self.metadata = SimpleNamespace(num_frames=len(frames))
        self.asked: list[int] = []
        self._frames = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)

    def get_frames_at(self, numbers: list[int]) -> Any:
        self.asked = numbers
        return SimpleNamespace(data=self._frames[numbers])


@pytest.mark.parametrize(("name", "most"), [("vlm2vec-v2", 8), ("qwen3-vl-embedding-2b", 4)])
def test_videos_are_embedded_by_the_frames_that_the_model_takes(name: str, most: int) -> None:
    model = reference(name).load(name, num_frames=most)
    clips = [random_frames(count, seed=count) for count in (3, 70)]
    decoders = [_Decoder(clip) for clip in clips]
    batches: Any = [{"video": decoders}, {"text": ["a star"], "video": [None]}]
    options: dict[str, Any] = {"task_metadata": DrawingsMixed.metadata, "hf_split": "test", "hf_subset": "default"}
    heard: Any = [{"video": [None], "audio": [None]}]
    wrapped = wrap_model(model, name)
    found = wrapped.encode(batches, show_progress_bar=False, **options)
    assert [len(decoder.asked) for decoder in decoders] == [3, most]
    prompt = wrapped.instruction(DrawingsMixed.metadata, None)
    expected = model.encode([{"video": clips[0]}, {"video": clips[1]}, "a star"], prompt=prompt)
    assert np.abs(found - expected).max() <= 1e-5
    meta: Any = wrapped.mteb_model_meta
    assert meta.modalities == ["text", "image", "video"]
    with pytest.raises(ValueError, match="^audio: these models"):
        wrapped.encode(heard, show_progress_bar=False, **options)


# ------------------------------------------------------------------------------------- tasks of other types


def score_by_mteb(model: Any, task: AbsTask, folder: Path) -> float:
    """Run a task by mteb alone; its main score."""
    (result,) = mteb.evaluate(model, task, cache=mteb.ResultCache(folder), **QUIET).task_results
    return result.get_score()


class _PictureSTS(AbsTaskSTS):
    """Pairs of drawings, with scores that have nothing to do with them."""

    metadata = local_metadata(
        "PictureSTS", category="i2i", description="-", main_score="spearman", type="STS", modalities=["image"]
    )
    column_names = ("left", "right")

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        pictures: Any = list(DrawingsT2I(12).subsets()["default"]["corpus"]["image"])
        columns = {"left": pictures[:6], "right": pictures[6:], "score": [0.0, 3.0, 1.0, 5.0, 2.0, 4.0]}
        features = Features({"left": Image(), "right": Image(), "score": Value("float64")})
        self.dataset: Any = {"test": Dataset.from_dict(columns, features=features)}
        self.data_loaded = True


def test_pairs_of_pictures_are_scored_by_their_cosines(tiny: SentenceTransformer, tmp_path: Path) -> None:
    task = _PictureSTS()
    found = score_by_mteb(wrap_model(tiny, "tiny"), task, tmp_path)
    task.load_data()
    rows: Any = task.dataset["test"]
    left, right = (tiny.encode(list(rows[side]), normalize_embeddings=True) for side in ("left", "right"))
    expected = spearmanr((left * right).sum(axis=1), rows["score"])[0]
    assert found == pytest.approx(expected, abs=1e-6)


class _PictureClassification(AbsTaskClassification):
    """Drawings with labels that have nothing to do with them, told by the nearest drawing of a label that is known."""

    metadata = local_metadata(
        "PictureClassification",
        category="i2c",
        description="-",
        main_score="accuracy",
        type="Classification",
        modalities=["image"],
    )
    input_column_name = "image"
    samples_per_label, n_experiments = 4, 1
    evaluator_model: Any = KNeighborsClassifier(n_neighbors=1)

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        pictures: Any = list(DrawingsT2I(16).subsets()["default"]["corpus"]["image"])
        features = Features({"image": Image(), "label": Value("int64")})
        halves = {"train": pictures[:8], "test": pictures[8:]}
        self.dataset: Any = {
            split: Dataset.from_dict({"image": half, "label": [0, 1] * 4}, features=features)
            for split, half in halves.items()
        }
        self.data_loaded = True


def test_pictures_are_classified_by_their_vectors(tiny: SentenceTransformer, tmp_path: Path) -> None:
    task = _PictureClassification()
    found = score_by_mteb(wrap_model(tiny, "tiny"), task, tmp_path)
    task.load_data()
    data: Any = task.dataset
    known, asked = (tiny.encode(list(data[split]["image"])) for split in ("train", "test"))
    nearest = np.square(asked[:, None] - known[None]).sum(axis=2).argmin(axis=1)
    assert found == pytest.approx(np.mean(nearest % 2 == np.arange(8) % 2))


# ---------------------------------------------------------------------------- mteb with the model as it is


class _Fused(DrawingsMixed):
    """Drawings with a description look for drawings with a description."""

    metadata = local_metadata("DrawingsFused", category="it2it", description="-", main_score="ndcg_at_10")
    query_kinds = document_kinds = ("text", "image")

    def items(self) -> Any:
        both: list[Any] = [{"text": caption(scene)} | self.drawing(scene) for scene in self.scenes]
        return both, both


class _Texts(DrawingsT2I):
    """Descriptions look for descriptions in other words."""

    metadata = local_metadata(
        "DrawingsTexts", category="t2t", description="-", main_score="ndcg_at_10", type="Retrieval", modalities=["text"]
    )
    query_kinds = document_kinds = ("text",)

    def items(self) -> Any:
        return [{"text": paraphrase(s, self.rng)} for s in self.scenes], [{"text": caption(s)} for s in self.scenes]


def test_a_model_of_texts_of_sentence_transformers_own_gets_the_scores_of_a_brute_force_search(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    model: Any = sentence_transformers.SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=64)])
    outcome = run(wrap_model(model, "local/static"), tmp_path, entry(_Texts, scenes=12))
    assert outcome.errors == {}
    assert outcome.scores["DrawingsTexts"] == pytest.approx(expected(model, _Texts(12), None), abs=1e-5)


def test_a_model_of_texts_and_pictures_apart_gets_the_scores_of_a_brute_force_search(tmp_path: Path) -> None:
    folder = str(GOLDEN / "bge_vl_clip" / "checkpoint")
    model: Any = sentence_transformers.SentenceTransformer(folder, device="cpu")
    outcome = run(wrap_model(model, "local/clip"), tmp_path, entry(DrawingsT2I, scenes=6))
    assert outcome.errors == {}
    assert outcome.scores["DrawingsT2I"] == pytest.approx(expected(model, DrawingsT2I(6), None), abs=1e-5)


# mteb says of tiny's prompts that they are for no task of its own, and is warned of names that it uses itself.
as_it_is = pytest.mark.filterwarnings(
    "ignore:Some prompts are not in the expected format:UserWarning",
    "ignore:Task name .* is not valid:UserWarning",
    "ignore:The fill_missing parameter is deprecated:DeprecationWarning",
    "ignore:The `get_sentence_embedding_dimension` method:FutureWarning",
)


@as_it_is
@pytest.mark.parametrize("task", [DrawingsMixed, _Fused])
def test_mteb_given_the_model_itself_is_refused_where_it_drops_the_images(
    tiny: SentenceTransformer, tmp_path: Path, task: type[Drawings]
) -> None:
    with pytest.raises(ValueError, match=r"left out the images of this task\. Pass it .*wrap_model"):
        score_by_mteb(tiny, task(3), tmp_path)


@as_it_is
@pytest.mark.parametrize("task", [DrawingsT2I, DrawingsI2T, DrawingsIT2I])
def test_mteb_given_the_model_itself_refuses_tasks_with_a_side_of_images(
    tiny: SentenceTransformer, tmp_path: Path, task: type[Drawings]
) -> None:
    with pytest.raises(ValueError, match=r"supports \['text'\], but none overlap"):
        score_by_mteb(tiny, task(3), tmp_path)


@as_it_is
def test_mteb_given_the_model_itself_scores_texts_without_instructions(
    tiny: SentenceTransformer, tmp_path: Path
) -> None:
    assert score_by_mteb(tiny, _Texts(12), tmp_path) == pytest.approx(
        expected(tiny, _Texts(12), None)["ndcg_at_10"], abs=1e-5
    )


@as_it_is
def test_a_wrapper_of_mteb_that_knows_of_images_is_served(tiny: SentenceTransformer, tmp_path: Path) -> None:
    wrapper = SentenceTransformerEncoderWrapper(tiny)
    wrapper.mteb_model_meta = wrapper.mteb_model_meta.model_copy(update={"modalities": ["text", "image"]})
    right = expected(tiny, DrawingsMixed(12), None)["ndcg_at_10"]
    assert score_by_mteb(wrapper, DrawingsMixed(12), tmp_path) == pytest.approx(right, abs=1e-5)


def test_rows_of_texts_are_embedded_where_mteb_is_imported(tiny: SentenceTransformer) -> None:
    assert tiny.encode([{"text": "a star"}]) == pytest.approx(tiny.encode(["a star"]), abs=1e-6)


# --------------------------------------------------------------------------------------------- instructions


@pytest.mark.parametrize(("side", "prompt"), [(QUERY, "t2it"), (DOCUMENT, None)])
def test_a_side_is_embedded_by_its_method_with_its_instruction(
    tiny: SentenceTransformer, side: PromptType, prompt: str | None
) -> None:
    recorder = _Recorder(tiny)
    recorder.prompts = {"t2it": "Find it."}
    model = MTEBModel(recorder, model_meta(get_model("tiny")))  # type: ignore[arg-type]
    data = DrawingsMixed(3).subsets()["default"]
    vectors_of(model, data["queries" if prompt else "corpus"], side)
    assert recorder.calls == [(f"encode_{side.value}", "Find it." if prompt else None)]


def metadata(**fields: Any) -> Any:
    return DrawingsT2I.metadata.model_copy(update=fields)


@pytest.mark.parametrize(
    ("task", "side", "overrides", "found"),
    [
        ({}, QUERY, {}, "own"),
        ({}, DOCUMENT, {}, None),
        ({}, None, {}, None),
        ({"prompt": "stated"}, QUERY, {}, "stated"),
        ({"prompt": "stated"}, DOCUMENT, {}, None),
        ({"prompt": "stated"}, None, {}, "stated"),
        ({"prompt": {"query": "q", "document": "d"}}, QUERY, {}, "q"),
        ({"prompt": {"query": "q", "document": "d"}}, DOCUMENT, {}, "d"),
        ({"prompt": {"query": ""}}, QUERY, {}, None),
        ({"prompt": "stated"}, QUERY, {"DrawingsT2I-query": "mine"}, "mine"),
        ({"prompt": "stated"}, QUERY, {"DrawingsT2I-query": ""}, None),
        ({"prompt": "stated"}, QUERY, {"Any2AnyRetrieval": "by type", "query": "by side"}, "by type"),
        ({"prompt": "stated"}, QUERY, {"document": "other side"}, "stated"),
        ({"category": "it2i"}, QUERY, {}, "composed"),
        ({"category": "i2i"}, QUERY, {}, None),
    ],
)
def test_which_instruction_wins(
    task: dict[str, Any], side: PromptType | None, overrides: Mapping[str, str], found: str | None
) -> None:
    prompts = {"t2i": "own", "cir": "composed"}
    assert find_instruction(metadata(**task), side, overrides=overrides, prompts=prompts, instructed=True) == found


def test_a_composed_query_has_an_instruction_where_neither_task_nor_model_states_one() -> None:
    options: dict[str, Any] = {"overrides": {}, "prompts": {}, "instructed": True}
    task = metadata(category="it2i")
    assert "described change" in str(find_instruction(task, QUERY, **options))
    assert find_instruction(task, DOCUMENT, **options) is None


def test_a_model_without_instructions_gets_one_only_by_name() -> None:
    task = metadata(prompt="stated")
    options: dict[str, Any] = {"prompts": {}, "instructed": False}
    assert find_instruction(task, QUERY, overrides={}, **options) is None
    assert find_instruction(task, QUERY, overrides={"query": "mine"}, **options) == "mine"


@pytest.mark.parametrize("spec", list_models(), ids=lambda spec: spec.name)
def test_only_models_of_the_instructed_families_state_instructions(spec: Any) -> None:
    relatives = {get_model(name).options["template"] for name in INSTRUCTED}
    assert model_meta(spec).use_instructions == (spec.options["template"] in relatives)


# ------------------------------------------------------------------------------------------------- metadata


def test_every_model_of_the_catalog_has_a_name_of_its_own() -> None:
    names = [model_meta(spec).name for spec in list_models()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("spec", list_models(), ids=lambda spec: spec.name)
def test_a_model_of_the_catalog_is_described_to_mteb(spec: Any) -> None:
    meta = model_meta(spec)
    assert meta.modalities == ["text", "image", *(["video"] if TEMPLATES[spec.options["template"]].takes_video else [])]
    assert meta.embed_dim == spec.dimension
    assert meta.license == (None if spec.licence == "unknown" else spec.licence)
    assert meta.revision


KNOWN = {meta.name: meta for meta in mteb.get_model_metas()}


@pytest.mark.parametrize(
    "spec", [spec for spec in list_models() if model_meta(spec).name in KNOWN], ids=lambda spec: spec.name
)
def test_what_mteb_states_of_a_model_is_what_the_catalog_states(spec: Any) -> None:
    ours, theirs = model_meta(spec), KNOWN[model_meta(spec).name]
    if spec.name not in {"bge-vl-base", "bge-vl-large"}:  # mteb states the width of a tower, not of the embedding
        assert ours.embed_dim == theirs.embed_dim
    if spec.name != "vdr-2b-multi":  # mteb loads it as a model of texts
        assert set(ours.modalities) <= set(theirs.modalities)
    if spec.revision:
        assert ours.revision == theirs.revision


def test_the_description_says_how_to_load_the_model(tmp_path: Path) -> None:
    meta = model_meta(get_model("tiny"))
    assert meta.loader is not None
    model = meta.loader(meta.name, revision=meta.revision, **meta.loader_kwargs, device="cpu")
    results = mteb.evaluate(model, DrawingsT2I(3), cache=mteb.ResultCache(tmp_path), **QUIET)
    assert results.task_results[0].get_score() > 0.5
    assert (results.model_name, results.model_revision) == (meta.name, meta.revision)


def test_the_loaded_model_states_its_size(tiny: SentenceTransformer) -> None:
    meta = wrap_model(tiny, "tiny").mteb_model_meta
    assert meta is not None
    assert meta.n_parameters == sum(parameter.numel() for parameter in tiny.parameters())
    assert meta.max_tokens == tiny.max_seq_length


def test_results_of_local_weights_are_not_filed_under_the_published_revision() -> None:
    meta = load_model("gme-2b", weights=CHECKPOINT, device="cpu").mteb_model_meta
    assert meta is not None
    assert meta.name == get_model("gme-2b").repo_id
    assert str(meta.revision).startswith("weights-")


def test_other_weights_have_another_revision(tmp_path: Path) -> None:
    for number in range(2):
        folder = tmp_path / str(number) / "sub"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights" + bytes([number]))
        (folder / "README.md").write_text("same", encoding="utf-8")
    revisions = {weights_revision([tmp_path / str(number)]) for number in (0, 1, 0)}
    assert len(revisions) == 2


def test_a_saved_model_is_filed_under_its_folder_and_weights(tiny: SentenceTransformer, tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    tiny.save_pretrained(str(folder))
    meta = load_model(str(folder), device="cpu").mteb_model_meta
    assert meta is not None
    assert meta.name == "local/my-model"
    assert str(meta.revision).startswith("weights-")


def test_saved_models_of_one_name_are_told_apart(
    tiny: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = copy.deepcopy(tiny)
    other.truncate_dim = 64
    tiny.save_pretrained("mine/model")
    other.save_pretrained("other/model")
    models = [load_model(name, device="cpu") for name in ("mine/model", "./other/model/")]
    outcomes = [run(model, Path("out"), entry(DrawingsT2I)) for model in models]
    assert [each.model for each in outcomes] == ["mine/model", "other/model"]
    assert len(list(Path("out").rglob("DrawingsT2I.json"))) == 2
    with pytest.raises(ArgumentError, match="compare"):
        Report.of(open_benchmark("drawings"), *outcomes)


def test_a_folder_that_is_not_below_this_one_is_called_by_its_whole_path(
    tiny: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert wrap_model(tiny, ".").label == tmp_path.resolve().as_posix()


def test_outcomes_with_other_instructions_are_of_other_versions(tiny: SentenceTransformer, tmp_path: Path) -> None:
    models = [wrap_model(tiny, "tiny", instructions=each) for each in (None, {"query": "Find it."}, None)]
    first, second, third = (run(model, tmp_path, entry(DrawingsT2I)).version for model in models)
    assert first == third != second


def test_results_of_other_options_are_filed_apart(tiny: SentenceTransformer, tmp_path: Path) -> None:
    plain = wrap_model(tiny, "tiny")
    other = wrap_model(tiny, "tiny", options={"max_image_tokens": 300}, instructions={"query": "Find it."})
    run(plain, tmp_path, entry(DrawingsT2I))
    run(other, tmp_path, entry(DrawingsT2I))
    assert len(list(tmp_path.rglob("DrawingsT2I.json"))) == 2


def test_the_device_is_no_such_option() -> None:
    meta = load_model("tiny", device="cpu").mteb_model_meta
    assert meta is not None
    assert meta.experiment_kwargs is None


def test_importing_st_modules_imports_no_mteb() -> None:
    import subprocess
    import sys

    code = (
        "import sys, st_modules, st_modules.cli, st_modules.evaluate;"
        "print([name for name in ('mteb', 'datasets', 'torch') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert json.loads(done.stdout.replace("'", '"')) == []


def test_without_mteb_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import st_modules.evaluate as package

    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(MissingExtraError, match=r'pip install "st-modules\[eval\]"'):
        _ = package.evaluate
