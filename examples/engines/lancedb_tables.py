"""A LanceDB table that embeds its own rows. Run: pip install "st-modules[index]" && python lancedb_tables.py."""

from tempfile import TemporaryDirectory

import lancedb
from lancedb.pydantic import LanceModel, Vector

from st_modules.integrations import LanceDBEmbeddings

MODEL = "tiny"  # the one line to change: "gme-2b" embeds published quality

embeddings = LanceDBEmbeddings.create(name=MODEL, query_prompt="Find a picture that fits the text.")


class Row(LanceModel):
    """What the table has; a column of texts, of encoded images (bytes), or of both is the source."""

    id: int
    text: str = embeddings.SourceField()
    vector: Vector(embeddings.ndims()) = embeddings.VectorField()


def main() -> None:
    with TemporaryDirectory() as folder:
        table = lancedb.connect(folder).create_table("rows", schema=Row)
        table.add([{"id": 1, "text": "a large red circle"}, {"id": 2, "text": "two small blue stars"}])
        for row in table.search("blue stars").distance_type("cosine").limit(1).to_list():
            print(row["id"], row["text"])


if __name__ == "__main__":
    main()
