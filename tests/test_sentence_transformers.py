"""sentence-transformers' evaluators and utilities take pictures, and texts with pictures, as they take texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from datasets import Image as ImageFeature
from scipy.stats import spearmanr
from sentence_transformers import util
from sentence_transformers.sentence_transformer.evaluation import (
    BinaryClassificationEvaluator,
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    MSEEvaluator,
    ParaphraseMiningEvaluator,
    RerankingEvaluator,
    TranslationEvaluator,
    TripletEvaluator,
)
from sklearn.metrics import average_precision_score

from st_modules import SentenceTransformer
from st_modules.demo.drawings import draw
from st_modules.demo.scenes import random_scenes
from st_modules.demo.wording import caption
from st_modules.train import DataCollator

COUNT = 8
SCENES = random_scenes(3, COUNT)
CAPTIONS = [caption(scene) for scene in SCENES]
SCORES = [0.1, 0.9, 0.4, 0.2, 0.7, 0.3, 0.8, 0.5]
LABELS = [1, 0, 0, 1, 0, 1, 1, 0]

KINDS = ("path", "picture", "both")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    names = [str(folder / f"{number}.png") for number in range(COUNT)]
    for scene, name in zip(SCENES, names, strict=True):
        draw(scene, seed=7).save(name)
    return names


@pytest.fixture(params=KINDS)
def documents(request: pytest.FixtureRequest, paths: list[str]) -> list[Any]:
    """Pictures by their paths as strings, in memory, or with a text."""
    if request.param == "path":
        return paths
    if request.param == "picture":
        return [draw(scene, seed=7) for scene in SCENES]
    # Texts of other scenes, so that the pictures count.
    return [{"text": text, "image": path} for text, path in zip(CAPTIONS[::-1], paths, strict=True)]


def unit(vectors: Any) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def as_items(documents: list[Any]) -> list[Any]:
    """The same pictures in the form that cannot be taken for a text."""
    return [{"image": document} if isinstance(document, str) else document for document in documents]


def pairwise(model: SentenceTransformer, documents: list[Any]) -> np.ndarray:
    """The cosine of each caption with the document in its place."""
    return (unit(model.encode(CAPTIONS)) * unit(model.encode(as_items(documents)))).sum(axis=1)


def ranking(model: SentenceTransformer, documents: list[Any]) -> np.ndarray:
    """The cosines of the captions as queries with all documents, of shape (captions, documents)."""
    return unit(model.encode_query(CAPTIONS)) @ unit(model.encode_document(as_items(documents))).T


# ---------------------------------------------------------------------------------------------- evaluators


def test_information_retrieval(tiny: SentenceTransformer, documents: list[Any]) -> None:
    names = [str(number) for number in range(COUNT)]
    evaluator = InformationRetrievalEvaluator(
        dict(zip(names, CAPTIONS, strict=True)),
        dict(zip(names, documents, strict=True)),
        {name: {name} for name in names},
        mrr_at_k=[COUNT],
    )
    found = evaluator(tiny)
    cosines = ranking(tiny, documents)
    places = (cosines > np.diag(cosines)[:, None]).sum(axis=1)
    assert found["cosine_accuracy@1"] == pytest.approx(np.mean(places == 0))
    assert found[f"cosine_mrr@{COUNT}"] == pytest.approx(np.mean(1 / (1 + places)))


def test_triplets(tiny: SentenceTransformer, documents: list[Any]) -> None:
    found = tiny.evaluate(TripletEvaluator(CAPTIONS, documents, documents[::-1]))
    nearer = pairwise(tiny, documents) > pairwise(tiny, documents[::-1])
    assert found["cosine_accuracy"] == pytest.approx(nearer.mean())  # type: ignore[index]


def test_similarity_of_pairs(tiny: SentenceTransformer, documents: list[Any]) -> None:
    found = EmbeddingSimilarityEvaluator(CAPTIONS, documents, SCORES)(tiny)
    assert found["spearman_cosine"] == pytest.approx(spearmanr(pairwise(tiny, documents), SCORES)[0])


def test_classification_of_pairs(tiny: SentenceTransformer, documents: list[Any]) -> None:
    found = BinaryClassificationEvaluator(CAPTIONS, documents, LABELS)(tiny)
    assert found["cosine_ap"] == pytest.approx(average_precision_score(LABELS, pairwise(tiny, documents)))


def test_reranking(tiny: SentenceTransformer, documents: list[Any]) -> None:
    samples = [
        {"query": text, "positive": [documents[number]], "negative": documents[:number] + documents[number + 1 :]}
        for number, text in enumerate(CAPTIONS)
    ]
    cosines = ranking(tiny, documents)
    places = (cosines > np.diag(cosines)[:, None]).sum(axis=1)
    assert RerankingEvaluator(samples)(tiny)["map"] == pytest.approx(np.mean(1 / (1 + places)))


def test_translation(tiny: SentenceTransformer, documents: list[Any]) -> None:
    found = TranslationEvaluator(CAPTIONS, documents)(tiny)
    cosines = unit(tiny.encode(CAPTIONS)) @ unit(tiny.encode(as_items(documents))).T
    assert found["src2trg_accuracy"] == pytest.approx(np.mean(cosines.argmax(axis=1) == np.arange(COUNT)))


def test_distance_to_a_teacher(tiny: SentenceTransformer, documents: list[Any]) -> None:
    found = MSEEvaluator(CAPTIONS, documents, teacher_model=tiny)(tiny)
    difference = tiny.encode(CAPTIONS) - tiny.encode(as_items(documents))
    assert found["negative_mse"] == pytest.approx(-100 * np.square(difference).mean(), rel=1e-5)


def test_paraphrase_mining_is_evaluated(tiny: SentenceTransformer, documents: list[Any]) -> None:
    cosines = unit(tiny.encode(as_items(documents))) @ unit(tiny.encode(as_items(documents))).T
    np.fill_diagonal(cosines, -1)
    first, second = np.unravel_index(cosines.argmax(), cosines.shape)
    names = {str(number): document for number, document in enumerate(documents)}
    found = ParaphraseMiningEvaluator(names, [(str(first), str(second))])(tiny)
    assert found["average_precision"] == pytest.approx(1)


# ----------------------------------------------------------------------------------------------- utilities


def test_semantic_search(tiny: SentenceTransformer, documents: list[Any]) -> None:
    found = util.semantic_search(
        tiny.encode_query(CAPTIONS, convert_to_tensor=True),
        tiny.encode_document(documents, convert_to_tensor=True),
        top_k=1,
    )
    cosines = ranking(tiny, documents)
    assert [hits[0]["corpus_id"] for hits in found] == cosines.argmax(axis=1).tolist()
    assert [hits[0]["score"] for hits in found] == pytest.approx(cosines.max(axis=1), abs=1e-6)


def test_paraphrase_mining(tiny: SentenceTransformer, documents: list[Any]) -> None:
    cosines = unit(tiny.encode(as_items(documents))) @ unit(tiny.encode(as_items(documents))).T
    mined: Any = util.paraphrase_mining(tiny, documents)
    score, first, second = mined[0]
    assert score == pytest.approx(cosines[np.triu_indices(COUNT, 1)].max(), abs=1e-6)
    assert cosines[first, second] == pytest.approx(score, abs=1e-6)


def test_communities(tiny: SentenceTransformer, documents: list[Any]) -> None:
    twice = tiny.encode([*documents, *documents], convert_to_tensor=True)
    found = util.community_detection(twice, threshold=0.9999, min_community_size=2)
    assert sorted(sorted(group) for group in found) == [[number, number + COUNT] for number in range(COUNT)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dot", lambda a, b: a @ b.T),
        ("euclidean", lambda a, b: -np.linalg.norm(a[:, None] - b[None], axis=2)),
        ("manhattan", lambda a, b: -np.abs(a[:, None] - b[None]).sum(axis=2)),
    ],
)
def test_other_similarity_functions(paths: list[str], name: Any, expected: Any) -> None:
    model = SentenceTransformer("tiny", device="cpu", similarity_fn_name=name)
    texts, pictures = model.encode(CAPTIONS), model.encode(paths)
    assert np.abs(model.similarity(texts, pictures).numpy() - expected(texts, pictures)).max() <= 1e-5


# ----------------------------------------------------------------------------------------- hard negatives


def test_hard_negatives_are_mined_among_pictures_by_their_paths(tiny: SentenceTransformer, paths: list[str]) -> None:
    pairs = Dataset.from_dict({"caption": CAPTIONS, "picture": paths})
    mined: Any = util.mine_hard_negatives(pairs, tiny, num_negatives=1, verbose=False)
    cosines = ranking(tiny, paths)
    np.fill_diagonal(cosines, -1)
    assert list(mined["picture"]) == paths
    assert list(mined["negative"]) == [paths[number] for number in cosines.argmax(axis=1)]


def test_mined_paths_are_pictures_in_training(tiny: SentenceTransformer, paths: list[str]) -> None:
    rows = [{"caption": CAPTIONS[0], "picture": paths[0], "negative": paths[1]}]
    batch = DataCollator(preprocess_fn=tiny.preprocess)(rows)
    columns = ("caption", "picture", "negative")
    assert [batch[f"{column}_num_images_per_sample"].tolist() for column in columns] == [[0], [1], [1]]


@pytest.mark.parametrize("column", ["caption", "picture"])
def test_hard_negatives_of_pictures_in_memory_are_an_error_of_sentence_transformers(
    tiny: SentenceTransformer, paths: list[str], column: str
) -> None:
    pairs = Dataset.from_dict({"caption": paths, "picture": paths[::-1]}).cast_column(column, ImageFeature())
    with pytest.raises(TypeError, match="unhashable type"):
        util.mine_hard_negatives(pairs, tiny, num_negatives=1, verbose=False)
