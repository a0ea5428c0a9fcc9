"""Files that a training is resumed from: damaged and hostile ones are refused by their names, and nothing is run."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import PrinterCallback

from st_modules import CheckpointError, SentenceTransformer
from st_modules.train import LoraSettings, Trainer, add_lora

STATE = "trainer_state.json"
PICKLES = ["optimizer.pt", "scheduler.pt", "rng_state.pth"]


def make_trainer(output: Path, rank: int = 2) -> Trainer:
    torch.manual_seed(0)
    model = SentenceTransformer("tiny", device="cpu")
    if rank:
        add_lora(model, LoraSettings(rank=rank))
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(output),
        max_steps=2,
        save_steps=1,
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    data = Dataset.from_list([{"anchor": f"red {number}", "positive": f"circle {number}"} for number in range(4)])
    trainer = Trainer(model=model, args=arguments, train_dataset=data, loss=MultipleNegativesRankingLoss(model))
    trainer.remove_callback(PrinterCallback)
    return trainer


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run")
    make_trainer(output).train()
    return output / "checkpoint-1"


@pytest.fixture
def checkpoint(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "checkpoint-1"))


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """One that is resumed from what is refused alone."""
    return make_trainer(tmp_path_factory.mktemp("resumed"))


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.marker,)


def test_a_whole_checkpoint_is_resumed_from(checkpoint: Path, tmp_path: Path) -> None:
    resumed = make_trainer(tmp_path / "out")
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == 2


@pytest.mark.parametrize("cut", [0, 0.5, 0.99])
@pytest.mark.parametrize("file", [STATE, *PICKLES])
def test_a_truncated_file_is_refused_by_its_name(trainer: Trainer, checkpoint: Path, file: str, cut: float) -> None:
    path = checkpoint / file
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(CheckpointError, match=f"^{path}: "):
        trainer.train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.parametrize("file", PICKLES)
@pytest.mark.parametrize("zipped", [True, False], ids=["of torch", "plain"])
def test_what_would_run_code_is_refused_and_not_run(
    trainer: Trainer, checkpoint: Path, tmp_path: Path, file: str, zipped: bool
) -> None:
    path, marker = checkpoint / file, tmp_path / "marker"
    if zipped:
        torch.save(Payload(marker), path)
    else:
        path.write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(CheckpointError, match=f"^{path}: "):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    assert not marker.exists()


def test_the_arguments_of_a_checkpoint_are_not_read(checkpoint: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.save(Payload(marker), checkpoint / "training_args.bin")
    make_trainer(tmp_path / "out").train(resume_from_checkpoint=str(checkpoint))
    assert not marker.exists()


@pytest.mark.parametrize("file", PICKLES)
@pytest.mark.parametrize(
    "content",
    [
        b"}N" + b"\x85" * 900_000 + b"Ns",  # a key whose hash is taken by recursion
        b"}N\x85q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"Ns",  # one whose hash takes twice as long a level
        b"c__builtin__\nbytearray\n\x8a\x05\0\0\0\0\x01\x85R",  # 4 GiB
    ],
    ids=["deep", "nested", "large"],
)
def test_what_costs_more_than_its_file_is_refused(
    trainer: Trainer, checkpoint: Path, file: str, content: bytes
) -> None:
    with zipfile.ZipFile(checkpoint / file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr("archive/version", "3\n")
    with pytest.raises(CheckpointError, match=f"{file}: damaged, or not the state"):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def test_a_file_that_is_compressed_is_refused(trainer: Trainer, checkpoint: Path) -> None:
    path = checkpoint / "optimizer.pt"
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError, match=f"^{path}: "):
        trainer.train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.parametrize("content", [[1], torch.ones(2), None, "x"], ids=str)
@pytest.mark.parametrize("file", PICKLES)
def test_a_file_of_something_else_is_refused(trainer: Trainer, checkpoint: Path, file: str, content: Any) -> None:
    torch.save(content, checkpoint / file)
    with pytest.raises(CheckpointError, match=f"^{checkpoint / file}: it holds a "):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def stretch(content: dict[str, Any]) -> dict[str, Any]:
    content["state"][0]["exp_avg"] = torch.zeros(1).expand(10**9)
    return content


CHANGES: list[tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = [
    ("optimizer.pt", lambda content: {}),
    ("optimizer.pt", lambda content: {**content, "param_groups": content["param_groups"][:0]}),
    ("optimizer.pt", lambda content: {**content, "state": 5}),
    ("optimizer.pt", stretch),
    ("rng_state.pth", lambda content: {}),
    ("rng_state.pth", lambda content: {**content, "python": "x"}),
    ("rng_state.pth", lambda content: {**content, "cpu": torch.zeros(3)}),
]


@pytest.mark.parametrize(("file", "change"), CHANGES)
def test_the_state_of_another_training_is_refused(
    trainer: Trainer, checkpoint: Path, file: str, change: Callable[[Any], Any]
) -> None:
    path = checkpoint / file
    torch.save(change(torch.load(path, weights_only=file != "rng_state.pth")), path)
    with pytest.raises(CheckpointError, match=f"^{checkpoint}.*{file}"):
        trainer.train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("global_step", "max_steps") for value in (None, True, -1, 1.5, "x", [], {})),
        ("global_step", 10**9),
        *(("epoch", value) for value in (True, -1, "x", [])),
        *(("log_history", value) for value in (None, 5, "x", [1], {})),
        *(("train_batch_size", value) for value in (-1, 1.5, "x")),
        *(("best_model_checkpoint", value) for value in (5, [])),
        *(("stateful_callbacks", value) for value in (5, "x", [])),
        ("nothing", 1),
    ],
    ids=str,
)
def test_a_field_of_the_state_is_refused_by_file_and_name(
    trainer: Trainer, checkpoint: Path, field: str, value: Any
) -> None:
    path = checkpoint / STATE
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(CheckpointError, match=f"^{path}: {'global_step' if value == 10**9 else field} is "):
        trainer.train(resume_from_checkpoint=str(checkpoint))


@pytest.mark.parametrize("content", ["", "[]", "5", "[" * 100_000])
def test_a_state_that_is_none_is_refused(trainer: Trainer, checkpoint: Path, content: str) -> None:
    (checkpoint / STATE).write_text(content)
    with pytest.raises(CheckpointError, match=f"^{checkpoint / STATE}: "):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def test_what_was_logged_need_not_be_a_number(checkpoint: Path, tmp_path: Path) -> None:
    path = checkpoint / STATE
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "log_history": [{"grad_norm": float("nan"), "step": 1}]}))
    make_trainer(tmp_path / "out").train(resume_from_checkpoint=str(checkpoint))


def test_a_checkpoint_that_is_not_there_is_refused(trainer: Trainer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"^{tmp_path / 'none'}: no such folder"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "none"))


def test_the_last_checkpoint_of_the_output_folder_is_checked_too(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "out" / "checkpoint-1")
    path = tmp_path / "out" / "checkpoint-1" / STATE
    path.write_text("{")
    with pytest.raises(CheckpointError, match=f"^{path}: "):
        make_trainer(tmp_path / "out").train(resume_from_checkpoint=True)


def test_the_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"
    make_trainer(tmp_path / "out", rank=2).model.save_pretrained(str(folder))
    trainer = make_trainer(tmp_path / "out", rank=0)
    with pytest.raises(CheckpointError, match=f"^{folder}: its model cannot be restored"):
        trainer._load_from_checkpoint(str(folder))
