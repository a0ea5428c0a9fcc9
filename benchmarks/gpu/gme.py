"""Check and time GME-2B and GME-7B shapes with random weights in bfloat16, on one CUDA device.

Run ``python benchmarks/gpu/gme.py --model 2b``. The checkpoint is written to a temporary folder first (4 GiB for 2b,
15 GiB for 7b). ``--model small --device cpu`` goes through all of it with a small model, to see that it works.

Printed are, beside the reference loop: items and tokens a second and the model FLOPs utilisation (the operations that
the items' own tokens need, over the rate of a large matrix product of the same precision); how speed follows the batch
budget; and what reading images ahead is worth. Vectors are compared first: the least cosine with the reference's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import flops
from checkpoints import GOLDEN, Files
from references.qwen2_vl import GMEReference
from workloads import Author, Item, Workload, picture

from st_modules import SentenceTransformer
from st_modules.encode.options import EncodeOptions

# The sizes of the published config.json files.
SHAPES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "small": (
        {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
        | {"intermediate_size": 256},
        {"embed_dim": 64, "depth": 2, "num_heads": 2, "hidden_size": 128},
    ),
    "2b": (
        {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2}
        | {"intermediate_size": 8960, "vocab_size": 151936},
        {"embed_dim": 1280, "depth": 32, "num_heads": 16, "hidden_size": 1536, "mlp_ratio": 4},
    ),
    "7b": (
        {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
        | {"intermediate_size": 18944, "vocab_size": 152064},
        {"embed_dim": 1280, "depth": 32, "num_heads": 16, "hidden_size": 3584, "mlp_ratio": 4},
    ),
}
BUDGETS = [1024, 2048, 4096, 8192, 16384, 32768]


class OnDevice(GMEReference):
    """The reference loop with its model and batches on a device, in the model's own precision."""

    device: str

    def embed(self, *args: Any) -> torch.Tensor:
        """Embed one batch; see :meth:`references.base.Reference.embed`."""
        with torch.device(self.device):
            return super().embed(*args).float().cpu()


def write_checkpoint(name: str, folder: Path) -> Files:
    """Write random weights of a shape with the small checkpoint's tokenizer and image processor."""
    golden = GOLDEN / "gme" / "checkpoint"
    for path in golden.iterdir():
        if path.suffix in (".json", ".txt") and path.name != "model.safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((golden / "config.json").read_text(encoding="utf-8"))
    text, vision = SHAPES[name]
    head_dim = text["hidden_size"] // text["num_attention_heads"]
    third = head_dim // 8
    config["rope_scaling"]["mrope_section"] = [head_dim // 2 - 2 * third, third, third]
    config.update(text)
    config["vision_config"].update(vision)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(0)
    built = Qwen2VLConfig.from_pretrained(folder)
    Qwen2VLForConditionalGeneration._from_config(built, dtype=torch.bfloat16).save_pretrained(folder)
    return Files(folder)


def load_reference(files: Files, device: str) -> OnDevice:
    reference = OnDevice(files, max_image_tokens=1280)
    reference.model.to(device, torch.bfloat16)
    reference.device = device
    return reference


def square(tokens: int, seed: int) -> Image.Image:
    side = 28 * round(tokens**0.5)
    return picture(np.random.default_rng(seed), side, side)


def workloads(reference: GMEReference, items: int) -> dict[str, Workload]:
    author = Author(reference.count_tokens, seed=0)
    texts = {length: [Item(author.write(length)) for _ in range(items)] for length in (32, 512)}
    images = {tokens: [Item(image=square(tokens, number)) for number in range(items // 4)] for tokens in (256, 1280)}
    mixed = [*texts[32], *texts[512][: items // 2], *images[256]]
    order = np.random.default_rng(0).permutation(len(mixed))
    return {
        "texts of 32 tokens": Workload("W1", texts[32], "Find what this text is about. "),
        "texts of 512 tokens": Workload("W2", texts[512]),
        "images of 256 tokens": Workload("W3", images[256]),
        "images of 1280 tokens": Workload("W3", images[1280]),
        "mixed": Workload("W4", [mixed[place] for place in order]),
    }


def seconds(call: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def matmul_rate(device: str) -> float:
    side = 8192 if device != "cpu" else 512
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    left @ right
    return 2 * side**3 / seconds(lambda: left @ right, 5)


def compare(model: SentenceTransformer, reference: OnDevice, work: dict[str, Workload], rounds: int) -> Table:
    table = Table("Workload", "Items/s", "Tokens/s", "MFU", "times the reference", "without reading ahead", "cosine")
    rate = matmul_rate(reference.device)
    backbone: Any = model[0]
    for name, workload in work.items():
        encode = partial(model.encode, workload.inputs, prompt=workload.prompt)
        cosine = cosines(reference.encode(workload), encode()).min()
        rows = backbone.plan(model.parse(workload.inputs), workload.prompt)
        ours, theirs = seconds(encode, rounds), seconds(partial(reference.encode, workload), rounds)
        model.encode_options = EncodeOptions(parallel_reading=False)
        unread = seconds(encode, rounds)
        model.encode_options = EncodeOptions()
        table.add_row(
            name,
            f"{len(rows) / ours:.1f}",
            f"{sum(row.length for row in rows) / ours:.0f}",
            f"{flops.qwen2_vl(reference, rows) / ours / rate:.0%}",
            f"{theirs / ours:.2f}",
            f"{theirs / unread:.2f}",
            f"{cosine:.5f}",
        )
    return table


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def sweep(model: SentenceTransformer, work: dict[str, Workload], rounds: int) -> Table:
    table = Table("Items a second, by budget", *map(str, BUDGETS))
    for name, workload in work.items():
        encode = partial(model.encode, workload.inputs, prompt=workload.prompt, batch_size=512)
        rates: list[str] = []
        for budget in BUDGETS:
            model.max_batch_tokens = budget
            rates.append(f"{len(workload.items) / seconds(encode, rounds):.1f}")
        table.add_row(name, *rates)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(SHAPES), default="2b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--items", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    disable_progress_bar()
    console = Console(width=130)
    with TemporaryDirectory() as folder:
        files = write_checkpoint(args.model, Path(folder))
        reference = load_reference(files, args.device)
        model = SentenceTransformer(
            "gme-2b", weights=files.weights, device=args.device, model_kwargs={"dtype": torch.bfloat16}
        )
        work = workloads(reference, args.items)
        console.print(torch.cuda.get_device_name() if args.device == "cuda" else args.device)
        console.print(compare(model, reference, work, args.rounds))
        console.print(sweep(model, work, args.rounds))


if __name__ == "__main__":
    main()
