"""Embedding in a cluster of several Ray nodes is embedding here: whatever is killed, in order, and nothing twice."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lancedb
import numpy as np
import pytest
from PIL import Image

from fuzz.ray_cluster import STORE_BYTES, kill_worker, run_cluster
from st_modules import BatchEmbedder, SentenceTransformer, STModulesError, UnknownModelError
from st_modules.errors import ArgumentError
from st_modules.index import build
from st_modules.index import ray_engine as module
from st_modules.index.engines import EmbedOptions
from st_modules.index.entries import Entry
from st_modules.index.ray_engine import RayEngine, RayOptions, ray_engine
from tests.helpers.entries import write_entry
from tests.helpers.ray_workers import Dying, Holding, Refusing
from tests.helpers.references import TOLERANCE

ray = pytest.importorskip("ray")
TINY = BatchEmbedder("tiny", device="cpu")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with run_cluster(nodes=1) as running:
        yield running


def entries(count: int) -> list[Entry]:
    """Texts, of which some are equal and some cannot be read."""
    return [
        write_entry(number, f"{number % 97} red circles", "no such file" if number % 41 == 7 else None)
        for number in range(count)
    ]


def in_chunks(given: list[Entry], most: int, before: Callable[[int], object] = lambda chunk: None) -> Iterator[Any]:
    for number, start in enumerate(range(0, len(given), most)):
        before(number)
        yield given[start : start + most]


def write_rows(folder: Path, count: int) -> Path:
    """Texts, of which some are equal, and pictures, of which one is missing and one is damaged."""
    Image.new("RGB", (40, 40), "red").save(folder / "red.png")
    (folder / "damaged.png").write_bytes((folder / "red.png").read_bytes()[:60])
    pictures = {7: "red.png", 500: "missing.png", 901: "damaged.png"}
    rows = [
        {"text": f"{number % 97} red circles", "n": number, "image": pictures.get(number)} for number in range(count)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "rows.jsonl"


def read_index(path: Path) -> tuple[dict[str, Any], np.ndarray, list[Any]]:
    """The rows of an index in the order of their ids, without vectors; the vectors; and the errors."""
    index = lancedb.connect(path)
    rows = index.open_table("items").to_arrow().sort_by("id")
    errors = index.open_table("errors").to_arrow().to_pylist()
    return rows.drop_columns("vector").to_pydict(), np.array(rows["vector"].to_pylist()), errors


def test_killed_workers_and_a_killed_machine_leave_the_index_that_is_built_here(
    cluster: Any, tiny: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = random.Random(20)
    machine = cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
    kills: dict[int, Callable[[], object]] = dict.fromkeys(
        moments.sample(range(4, 16), 2), lambda: kill_worker(moments)
    )
    kills[moments.randrange(1, 4)] = lambda: cluster.remove_node(machine, allow_graceful=False)
    taken = itertools.count()
    take = RayEngine._take

    def take_and_kill(engine: RayEngine, piece: Any) -> Any:
        kills.pop(next(taken), lambda: None)()
        return take(engine, piece)

    monkeypatch.setattr(RayEngine, "_take", take_and_kill)
    rows = write_rows(tmp_path, 1200)
    report = build(rows, tmp_path / "ray.index", "tiny", device="cpu", engine=RayOptions(workers=2))
    assert kills == {}
    here = build(rows, tmp_path / "here.index", tiny)
    assert (report.added, report.failed) == (here.added, here.failed) == (1198, 2)
    found, vectors, errors = read_index(tmp_path / "ray.index")
    expected, expected_vectors, expected_errors = read_index(tmp_path / "here.index")
    assert (found, errors) == (expected, expected_errors)
    np.testing.assert_allclose(vectors, expected_vectors, atol=TOLERANCE)


def test_a_loaded_model_is_refused_because_each_worker_loads_its_own(tiny: SentenceTransformer) -> None:
    refused = ray_engine(BatchEmbedder(tiny), EmbedOptions(), RayOptions())
    with pytest.raises(ArgumentError, match="A loaded model is not pickled; pass its name"), refused:
        pass


def test_entries_are_taken_only_while_there_is_room_for_them(cluster: Any) -> None:
    taken: list[int] = []
    holding: Any = Holding()
    with ray_engine(holding, EmbedOptions(), RayOptions()) as engine:
        results = engine(in_chunks(entries(1000), 10, taken.append))
        first = next(results)
        at_once = len(first)
        assert 0 < 10 * len(taken) <= 4 * at_once + 10
        assert sum(map(len, results)) == 1000 - at_once
    assert len(taken) == 100


def test_nothing_is_embedded_of_nothing(cluster: Any) -> None:
    with ray_engine(TINY, EmbedOptions(), RayOptions()) as engine:
        assert list(engine(iter([]))) == list(engine(iter([[], []]))) == []


def test_what_is_wrong_with_a_model_is_raised_as_it_is(cluster: Any) -> None:
    refusing: Any = Refusing()
    engine = ray_engine(refusing, EmbedOptions(), RayOptions())
    with pytest.raises(UnknownModelError, match=r"^Unknown model 'gme-2'\.$"), engine as embed:
        list(embed(iter([entries(3)])))


def test_workers_that_die_over_the_same_entries_end_the_run(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRIES", 1)
    dying: Any = Dying()
    lost = r"^words:0 to words:2: what embeds them was lost 2 times over.*memory"
    with pytest.raises(STModulesError, match=lost), ray_engine(dying, EmbedOptions(), RayOptions()) as engine:
        list(engine(iter([entries(3)])))


def test_a_cluster_that_is_connected_to_is_left_running(cluster: Any) -> None:
    with ray_engine(TINY, EmbedOptions(), RayOptions(address="auto")):
        pass
    assert ray.is_initialized()


def test_another_cluster_than_the_one_that_is_connected_to_is_refused(cluster: Any) -> None:
    other = ray_engine(TINY, EmbedOptions(), RayOptions(address="10.0.0.1:6379"))
    with pytest.raises(ArgumentError, match=r"address='10.0.0.1:6379': this process is connected to the"), other:
        pass


@pytest.mark.parametrize("asked", [RayOptions(gpus_per_worker=0.5), RayOptions(workers=2, cpus_per_worker=1)])
def test_workers_that_a_cluster_has_no_room_for_wait_for_it_to_grow(
    asked: RayOptions, caplog: pytest.LogCaptureFixture
) -> None:
    there: Any = SimpleNamespace(cluster_resources=lambda: {"CPU": 2.0})
    module._check_room(there, asked, may_grow=True)
    assert "wait until it has more" in caplog.text
    with pytest.raises(ArgumentError, match="workers and what reads need"):
        module._check_room(there, asked, may_grow=False)


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"workers": 1.5}, {"gpus_per_worker": -1}, {"cpus_per_worker": "2"}, {"cpus_per_worker": True}],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        RayOptions(**wrong)


# Ray Data sets options of its own, which it then warns of.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")
def test_ray_data_maps_batches_with_the_embedder(cluster: Any, tiny: SentenceTransformer, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    rows = [{"id": number, "text": f"{number} circles", "image": None} for number in range(20)]
    rows[3] = {"id": 3, "text": None, "image": str(tmp_path / "red.png")}
    rows[4] = {"id": 4, "text": None, "image": None}
    found = (
        ray.data.from_items(rows)
        .map_batches(
            BatchEmbedder,
            fn_constructor_args=("tiny",),
            batch_size=5,
            compute=ray.data.ActorPoolStrategy(size=1),
            num_cpus=0.5,
        )
        .take_all()
    )
    found.sort(key=lambda row: row["id"])
    assert [row["id"] for row in found if row["error"]] == [4]
    expected = tiny.encode_document([{"text": row["text"], "image": row["image"]} for row in rows if row["id"] != 4])
    vectors = [row["vector"] for row in found if not row["error"]]
    np.testing.assert_allclose(vectors, expected, atol=TOLERANCE)
