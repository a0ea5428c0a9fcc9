"""A second reading of found nodes, compared with the model's own scores, in LlamaIndex's own engines."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, MediaResource, Node, NodeWithScore, QueryBundle, TextNode

from llamaindex_gme import GMEEmbedding, MultimodalRerank, MultimodalVectorIndexRetriever
from st_modules import CrossEncoder, InputError, SentenceTransformer
from tests.helpers.recorder import Recorder
from tests.helpers.references import TOLERANCE
from tests.helpers.rerankers import IMAGES

WIDE, TALL = str(IMAGES / "wide.png"), str(IMAGES / "tall.png")
SIDES: list[Any] = [{"text": "a brown dog"}, {"image": WIDE}, {"text": "the dog", "image": TALL}, {"image": TALL}]
QUERIES: dict[str, tuple[QueryBundle, Any]] = {
    "text": (QueryBundle("a dog"), {"text": "a dog"}),
    "picture": (QueryBundle("", image_path=TALL), {"image": TALL}),
    "both": (QueryBundle("make it blue", image_path=TALL), {"text": "make it blue", "image": TALL}),
}


def make_nodes() -> list[NodeWithScore]:
    nodes = [
        TextNode(id_="text", text="a brown dog"),
        ImageNode(id_="picture", image_path=WIDE),
        ImageNode(id_="both", text="the dog", image_path=TALL),
        Node(id_="resource", image_resource=MediaResource(path=Path(TALL))),
    ]
    return [NodeWithScore(node=node, score=number / 10) for number, node in enumerate(nodes)]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("kind", QUERIES)
def test_nodes_come_back_best_first_with_their_scores(kind: str, is_async: bool, reranker: CrossEncoder) -> None:
    query, side = QUERIES[kind]
    scores = reranker.predict([(side, each) for each in SIDES])
    order = (-scores).argsort().tolist()
    best, nodes = MultimodalRerank(reranker, top_n=9), make_nodes()
    found = asyncio.run(best.apostprocess_nodes(nodes, query)) if is_async else best.postprocess_nodes(nodes, query)
    assert [each.node.node_id for each in found] == [make_nodes()[index].node.node_id for index in order]
    assert [each.score for each in found] == pytest.approx([scores[index] for index in order], abs=TOLERANCE)


def test_so_many_are_kept_as_are_asked_for(reranker: CrossEncoder) -> None:
    assert len(MultimodalRerank(reranker).postprocess_nodes(make_nodes(), query_str="a dog")) == 2
    assert MultimodalRerank(reranker).postprocess_nodes([], query_str="a dog") == []


def test_the_score_of_the_retriever_can_be_kept(reranker: CrossEncoder) -> None:
    found = MultimodalRerank(reranker, top_n=4, keep_retrieval_score=True).postprocess_nodes(
        make_nodes(), QueryBundle("a")
    )
    kept = {each.node.node_id: each.node.metadata["retrieval_score"] for each in found}
    assert kept == {each.node.node_id: each.score for each in make_nodes()}


def test_an_instruction_is_the_models_prompt(reranker: CrossEncoder) -> None:
    best = MultimodalRerank(reranker, instruction="Find it", top_n=1, predict_kwargs={"batch_size": 1})
    expected = reranker.predict([({"text": "a dog"}, each) for each in SIDES], prompt="Find it").max()
    (found,) = best.postprocess_nodes(make_nodes(), query_str="a dog")
    assert found.score == pytest.approx(expected, abs=TOLERANCE)


def test_it_reads_what_an_engine_found(reranker: CrossEncoder, tiny: SentenceTransformer) -> None:
    embed_model = GMEEmbedding(tiny)
    index = VectorStoreIndex([], embed_model=embed_model)
    index.insert_nodes(embed_model([each.node for each in make_nodes()]))
    best = MultimodalRerank(reranker, top_n=2)
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=4)
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM(), node_postprocessors=[best])
    query = QueryBundle("make it blue", image_path=TALL)
    found = engine.query(query).source_nodes
    expected = best.postprocess_nodes(make_nodes(), query)
    assert [each.node.node_id for each in found] == [each.node.node_id for each in expected]


def test_core_is_told(reranker: CrossEncoder, recorder: Recorder) -> None:
    found = MultimodalRerank(reranker).postprocess_nodes(make_nodes(), query_str="a dog")
    events: list[Any] = recorder.events
    start, end = [event for event in events if event.class_name().startswith("ReRank")]
    assert (len(start.nodes), start.top_n) == (4, 2)
    assert [each.node.node_id for each in end.nodes] == [each.node.node_id for each in found]


def test_what_cannot_be_read_is_named(reranker: CrossEncoder) -> None:
    best = MultimodalRerank(reranker)
    bad = NodeWithScore(node=ImageNode(image_path="/none.png"))
    with pytest.raises(InputError, match="^pair 1, document: /none.png: no such file"):
        best.postprocess_nodes([make_nodes()[0], bad], query_str="a dog")
    with pytest.raises(InputError, match=r"^item 0, node .*neither text nor image"):
        best.postprocess_nodes([NodeWithScore(node=TextNode(text=""))], query_str="a dog")
    with pytest.raises(InputError, match="There is no query"):
        best.postprocess_nodes(make_nodes())


def test_what_names_its_model_can_be_pickled(reranker: CrossEncoder, reranker_folder: Path) -> None:
    named = MultimodalRerank("qwen3-vl-reranker-8b", weights=reranker_folder, device="cpu", top_n=1)
    assert named.class_name() == "MultimodalRerank"
    again = pickle.loads(pickle.dumps(named))
    assert (again.model, again.top_n, again.weights) == ("qwen3-vl-reranker-8b", 1, str(reranker_folder))
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(MultimodalRerank(reranker))
