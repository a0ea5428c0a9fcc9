"""LanceDB embeds rows and queries by the function of its registry, also where a table is opened again."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector
from PIL import Image

from st_modules import InputError, SentenceTransformer
from st_modules.errors import ArgumentError
from st_modules.integrations import LanceDBEmbeddings
from tests.helpers.gallery import Gallery
from tests.helpers.paths import ROOT
from tests.helpers.references import TOLERANCE

CPU = {"device": "cpu"}


def make_function(**options: Any) -> Any:
    return get_registry().get("st-modules").create(name="tiny", options=CPU, **options)


def make_table(folder: Path, function: Any, kind: type) -> Any:
    class Row(LanceModel):
        id: str
        source: kind = function.SourceField()  # type: ignore[valid-type]
        vector: Vector(function.ndims()) = function.VectorField()  # type: ignore[valid-type]

    return lancedb.connect(folder).create_table("rows", schema=Row)


def find(table: Any, query: Any) -> str:
    return table.search(query).distance_type("cosine").limit(1).to_list()[0]["id"]


def test_texts(tmp_path: Path, tiny: SentenceTransformer) -> None:
    function = make_function(query_prompt="Find the same.")
    table = make_table(tmp_path, function, str)
    texts = {"red": "a large red circle", "blue": "two small blue stars"}
    table.add([{"id": name, "source": text} for name, text in texts.items()])
    assert find(table, "blue stars") == "blue"
    rows = sorted(table.to_arrow().to_pylist(), key=lambda row: row["id"])
    vectors = [row["vector"] for row in rows]
    expected = tiny.encode_document([{"text": texts[row["id"]]} for row in rows])
    np.testing.assert_allclose(vectors, expected, atol=TOLERANCE)
    np.testing.assert_allclose(
        function.compute_query_embeddings("blue stars")[0],
        tiny.encode_query({"text": "blue stars"}, prompt="Find the same."),
        atol=TOLERANCE,
    )


@pytest.mark.parametrize("strings", [True, False])
def test_pictures(strings: bool, tmp_path: Path, gallery: Gallery) -> None:
    paths = gallery.paths
    function = make_function(strings="image")
    table = make_table(tmp_path / "db", function, str if strings else bytes)
    table.add([{"id": path.name, "source": str(path) if strings else path.read_bytes()} for path in paths])
    for query in (Image.open(paths[2]), paths[2].read_bytes(), {"image": str(paths[2])}):
        assert find(table, query) == paths[2].name


def test_both_at_once(tmp_path: Path, tiny: SentenceTransformer) -> None:
    class Both(LanceModel):
        text: str
        image: bytes

    stream = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(stream, "PNG")
    table = make_table(tmp_path, make_function(), Both)
    both = {"text": "make it blue", "image": stream.getvalue()}
    table.add([{"id": "both", "source": both}])
    (row,) = table.to_arrow().to_pylist()
    np.testing.assert_allclose(row["vector"], tiny.encode_document([both])[0], atol=TOLERANCE)


def test_a_text_that_is_the_path_of_a_picture_stays_a_text(tmp_path: Path, tiny: SentenceTransformer) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (40, 40), "red").save(path)
    function = make_function()
    for found in (function.compute_source_embeddings([str(path)]), function.compute_query_embeddings(str(path))):
        np.testing.assert_allclose(found[0], tiny.encode_document({"text": str(path)}), atol=TOLERANCE)


def test_a_row_that_cannot_be_embedded_has_no_vector(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = make_table(tmp_path, make_function(strings="image"), str)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    rows = [{"id": "bad", "source": "missing.png"}, {"id": "good", "source": str(tmp_path / "red.png")}]
    with pytest.raises(RuntimeError, match="Set on_bad_vectors='drop' to remove them"):
        table.add(rows)
    assert "1 of 2 rows have no vector: item 0: missing.png: no such file" in caplog.text
    table.add(rows, on_bad_vectors="drop")
    assert [row["id"] for row in table.to_arrow().to_pylist()] == ["good"]


def test_a_query_that_cannot_be_embedded_raises_at_once() -> None:
    with pytest.raises(InputError, match=r"missing\.png: no such file"):
        make_function().compute_query_embeddings_with_retry({"image": "missing.png"})


def test_vectors_may_be_shorter(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_function(truncate_dim=16), str)
    table.add([{"id": "a", "source": "a red circle"}])
    assert len(table.to_arrow().to_pylist()[0]["vector"]) == 16
    assert find(table, "circle") == "a"


def test_the_model_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_function()._embedder is make_function(batch_size=4)._embedder


def test_an_option_that_the_table_cannot_keep_is_refused() -> None:
    with pytest.raises(ArgumentError, match="the store keeps these options as JSON"):
        LanceDBEmbeddings.create(name="tiny", options={"device": object()}).ndims()


def test_a_table_is_searched_in_another_process(tmp_path: Path) -> None:
    table = make_table(tmp_path, make_function(), str)
    table.add([{"id": "red", "source": "a large red circle"}, {"id": "blue", "source": "two small blue stars"}])
    program = (
        "import lancedb; from st_modules.integrations import LanceDBEmbeddings\n"
        f"table = lancedb.connect({str(tmp_path)!r}).open_table('rows')\n"
        "print(table.search('blue stars').distance_type('cosine').limit(1).to_list()[0]['id'])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "blue\n"


def test_without_lancedb_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['lancedb'] = None; from st_modules.integrations import LanceDBEmbeddings"
    shown = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT)
    assert shown.stderr.splitlines()[-1].endswith(
        'MissingExtraError: This needs lancedb: pip install "st-modules[index]"'
    )
