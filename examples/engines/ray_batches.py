"""Embed a dataset of Ray Data. Run: pip install "st-modules[ray]" && python ray_batches.py."""

import ray

from st_modules import BatchEmbedder

MODEL = "tiny"  # the one line to change: "gme-2b" embeds published quality


def main() -> None:
    ray.init(address="local", log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"id": 1, "text": "a large red circle", "image": None}, {"id": 2, "text": None, "image": "missing.png"}]
    dataset = ray.data.from_items(rows).map_batches(
        BatchEmbedder,
        fn_constructor_args=(MODEL,),
        batch_size=256,
        compute=ray.data.ActorPoolStrategy(size=1),  # so many models; with num_gpus=1, each on a GPU of its own
    )
    for row in dataset.take_all():
        print(row["id"], len(row["vector"]), row["error"])
    ray.shutdown()


if __name__ == "__main__":
    main()
