"""An ingestion pipeline over pictures whose cache tells them apart, kept on disk from one run to the next.

Run it with ``python examples/llamaindex_ingestion.py``; it needs no network.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from drawings import draw_pictures
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import BaseNode, ImageNode

from llamaindex_gme import GMEEmbedding, identify_images

MODEL = "tiny"  # the one line to change: "gme-2b" for photographs, documents and text


def ingest(paths: list[Path], cache: Path) -> list[BaseNode]:
    """Embed pictures one by one, from the cache where they are in it."""
    pipeline = IngestionPipeline(transformations=[GMEEmbedding(MODEL)])
    if cache.exists():
        pipeline.load(str(cache))
    nodes = [pipeline.run(nodes=identify_images([ImageNode(image_path=str(path))]))[0] for path in paths]
    pipeline.persist(str(cache))
    return nodes


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = draw_pictures(folder / "pictures")
        first, second = ([node.embedding for node in ingest(paths, folder / "cache")] for _ in range(2))
        print(f"{len(paths)} pictures, {len(set(map(tuple, first)))} embeddings")
        print(f"the second run, from the cache, gave the same: {first == second}")


if __name__ == "__main__":
    main()
