"""A training batch is prepared as inference prepares it: side, instruction, order of the columns."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from st_modules import SentenceTransformer
from st_modules.train import DataCollator, Trainer
from tests.helpers.references import ONE_A_TEMPLATE, reference
from tests.helpers.training_rows import rows

WITHOUT_INSTRUCTION = {"e5-v", "unite-qwen2vl-2b", "dse-qwen2-2b", "vdr-2b-multi", "dse-phi3"}


@pytest.fixture(scope="module", params=ONE_A_TEMPLATE)
def loaded(request: pytest.FixtureRequest) -> tuple[str, SentenceTransformer]:
    return request.param, reference(request.param).load(request.param)


def features(batch: dict[str, Any]) -> list[dict[str, Tensor]]:
    return Trainer.collect_features(cast(Any, None), batch)[0]


def embedded(model: SentenceTransformer, column: dict[str, Tensor]) -> np.ndarray:
    with torch.inference_mode():
        return model(column)["sentence_embedding"].numpy()


def close(left: np.ndarray, right: np.ndarray) -> bool:
    return bool(np.abs(left - right).max() <= 1e-5)


def test_a_batch_embeds_as_queries_and_documents_do_in_inference(loaded: tuple[str, SentenceTransformer]) -> None:
    name, model = loaded
    prompts = {} if name in WITHOUT_INSTRUCTION else {"anchor": "Find it."}
    data = rows(name)
    found = features(DataCollator(model.preprocess, prompts=prompts)(data))
    assert len(found) == 4
    expected = [
        model.encode_query([row["anchor"] for row in data], prompt=prompts.get("anchor")),
        *(model.encode_document([row[each] for row in data]) for each in ("positive", "negative_1", "negative_2")),
    ]
    columns = zip(data[0], found, expected, strict=True)
    assert [each for each, column, vectors in columns if not close(embedded(model, column), vectors)] == []


@pytest.mark.parametrize("name", ["gme-2b", "bge-vl-mllm-s1"])
def test_the_side_matters_to_this_model(name: str) -> None:
    model = reference(name).load(name)
    item = [{"text": "a car"}]
    query, document = (model.preprocess(item, prompt="Find it.", task=side) for side in ("query", "document"))
    assert not torch.equal(query["input_ids"], document["input_ids"])


def test_the_side_of_a_column_can_be_stated() -> None:
    model = reference("gme-2b").load("gme-2b")
    collator = DataCollator(
        model.preprocess, prompts="Find it.", router_mapping={"positive": "query", "negative_1": "none"}
    )
    data = rows("gme-2b")
    columns = features(collator(data))
    assert [column.get("task") for column in columns] == ["query", "query", None, "document"]
    assert close(embedded(model, columns[1]), model.encode_query([row["positive"] for row in data], prompt="Find it."))
    assert close(embedded(model, columns[2]), model.encode([row["negative_1"] for row in data], prompt="Find it."))


@pytest.mark.parametrize(("name", "prompt"), [("cars", "Find a car."), ("cats", "Find a cat.")])
def test_each_data_set_has_instructions_of_its_own(name: str, prompt: str) -> None:
    model = reference("gme-2b").load("gme-2b")
    prompts = {"cars": {"anchor": "Find a car."}, "cats": {"anchor": "Find a cat."}}
    collator = DataCollator(model.preprocess, prompts=prompts)
    data = [{**row, "dataset_name": name} for row in rows("gme-2b")]
    found = features(collator(data))[0]
    assert close(embedded(model, found), model.encode_query([row["anchor"] for row in data], prompt=prompt))
