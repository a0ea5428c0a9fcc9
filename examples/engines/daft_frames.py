"""Embed the rows of a Daft data frame. Run: pip install st-modules daft && python daft_frames.py."""

import daft
from daft import DataType, Series

from st_modules import BatchEmbedder

MODEL = "tiny"  # the one line to change: "gme-2b" embeds published quality
EMBEDDED = DataType.struct({"vector": DataType.list(DataType.float32()), "error": DataType.string()})


@daft.cls  # gpus=1, max_concurrency=4 on a cluster with GPUs
class Embed:
    """Holds the model; Daft makes one of it for each worker."""

    def __init__(self, model: str) -> None:
        self.embed = BatchEmbedder(model)

    @daft.method.batch(return_dtype=EMBEDDED, batch_size=256)
    def rows(self, text: Series, image: Series) -> list[dict[str, object]]:
        """Return the vector and the error of each row."""
        found = self.embed({"text": text, "image": image})
        rows = zip(found["vector"], found["error"], strict=True)
        return [{"vector": vector, "error": error} for vector, error in rows]


def main() -> None:
    frame = daft.from_pydict({"id": [1, 2], "text": ["a large red circle", None], "image": [None, "missing.png"]})
    embedded = frame.with_column("embedded", Embed(MODEL).rows(frame["text"], frame["image"])).collect()
    for row in embedded.to_pylist():
        print(row["id"], len(row["embedded"]["vector"]), row["embedded"]["error"])


if __name__ == "__main__":
    main()
