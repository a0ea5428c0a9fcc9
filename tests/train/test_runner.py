"""A run from its configuration to what it leaves: losses, checkpoints, logs, an adapter and a model."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from st_modules import InputError, SentenceTransformer
from st_modules.cli import app
from st_modules.demo.drawings import draw
from st_modules.demo.scenes import random_scenes
from st_modules.demo.wording import caption
from st_modules.train import ConfigError, TrainConfig, load_adapter, read_config, run
from st_modules.train.trainer import Trainer
from tests.helpers.gallery import CAPTIONS, Gallery

ROWS = 16


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captions and drawings, as two files of rows."""
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for number, scene in enumerate(random_scenes(5, ROWS)):
        draw(scene).save(folder / f"{number}.png")
        lines.append({"caption": caption(scene), "image": f"{number}.png", "next": f"{(number + 1) % ROWS}.png"})
    for name in ("captions", "pictures"):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def settings(data: Path, output: Path) -> dict[str, Any]:
    return {
        "model": {"name": "tiny"},
        "output": str(output),
        "data": [
            {
                "name": "captions",
                "file": str(data / "captions.jsonl"),
                "columns": {
                    "anchor": {"text": "caption"},
                    "positive": {"image": "image"},
                    "negatives": [{"image": "next"}],
                },
                "prompts": {"anchor": "Find an image that matches the given text."},
            },
            {
                "name": "pictures",
                "file": str(data / "pictures.jsonl"),
                "columns": {"anchor": {"image": "image"}, "positive": {"text": "caption"}},
            },
        ],
        "lora": {"rank": 2, "dropout": 0.1},
        # So low a scale that a model that knows these drawings has something to learn.
        "loss": {"scale": 2, "mini_batch_size": 2, "matryoshka_dims": [128, 32]},
        "training": {
            "batch_size": 4,
            "epochs": 1,
            "learning_rate": 1.0e-3,
            "log_every": 1,
            "save_every": 5,
            "device": "cpu",
            "seed": 3,
        },
    }


def config(folder: Path, output: Path, **changes: Any) -> TrainConfig:
    """The settings with some changed, as read from the file that they are written to."""
    output.parent.mkdir(exist_ok=True, parents=True)
    file = output.parent / f"{output.name}.yaml"
    file.write_text(yaml.safe_dump({**settings(folder, output), **changes}))
    return read_config(file)


def losses(output: Path, checkpoint: str) -> dict[int, float]:
    history = json.loads((output / checkpoint / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run of eight steps, with a checkpoint after the fifth."""
    output = tmp_path_factory.mktemp("finished") / "out"
    result = run(config(data, output), quiet=True)
    assert result.steps == 8
    assert 0 < result.trained < result.parameters
    assert result.loss > 0
    return output


@pytest.mark.parametrize("lora", [{"rank": 2, "dropout": 0.1}, None], ids=["adapter", "weights"])
def test_a_resumed_run_has_the_same_losses(lora: Any, data: Path, tmp_path: Path) -> None:
    whole, halved = (config(data, tmp_path / name, lora=lora) for name in ("whole", "halved"))
    run(whole, quiet=True)
    checkpoint = whole.output / "checkpoint-5"
    assert checkpoint.is_dir()
    halved.output.mkdir()
    checkpoint.rename(halved.output / checkpoint.name)
    run(halved, resume=True, quiet=True)
    expected, found = (losses(each.output, "checkpoint-8") for each in (whole, halved))
    assert sorted(found) == list(range(1, 9))
    assert [found[step] for step in range(6, 9)] == pytest.approx([expected[step] for step in range(6, 9)], abs=1e-6)
    vectors = [
        SentenceTransformer(str(each.output / "model"), device="cpu").encode(CAPTIONS) for each in (whole, halved)
    ]
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-6


def test_a_run_with_the_same_seed_has_the_same_losses(finished: Path, data: Path, tmp_path: Path) -> None:
    again = config(data, tmp_path / "out")
    run(again, quiet=True)
    assert losses(again.output, "checkpoint-8") == pytest.approx(losses(finished, "checkpoint-8"), abs=1e-6)


# In a process of its own: the readers are forked off it, and this one may have had servers of other tests in it, whose
# threads a fork breaks off.
READ_BY_OTHERS = """
import os
import sys
from pathlib import Path

from st_modules.train import DataCollator, read_config, run

collate, readers = DataCollator.__call__, Path(sys.argv[2])


def note(self, rows):
    (readers / str(os.getpid())).touch()
    return collate(self, rows)


DataCollator.__call__ = note
run(read_config(Path(sys.argv[1])), quiet=True)
print(os.getpid())
"""


def test_pictures_that_other_processes_read_give_the_same_losses(finished: Path, data: Path, tmp_path: Path) -> None:
    readers = tmp_path / "readers"
    readers.mkdir()
    training = {**settings(data, tmp_path)["training"], "workers": 2}
    config(data, tmp_path / "out", training=training)
    command = [sys.executable, "-c", READ_BY_OTHERS, str(tmp_path / "out.yaml"), str(readers)]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    ran = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    assert len({path.name for path in readers.iterdir()} - {ran.stdout.split()[-1]}) == 2
    assert losses(tmp_path / "out", "checkpoint-8") == pytest.approx(losses(finished, "checkpoint-8"), abs=1e-6)


def test_mixed_precision_has_near_losses_and_leaves_a_float32_adapter_and_its_merged_model(
    finished: Path, data: Path, tmp_path: Path, gallery: Gallery
) -> None:
    training = {**settings(data, tmp_path)["training"], "epochs": None, "steps": 3, "bf16": True}
    result = run(config(data, tmp_path / "out", training=training), quiet=True)
    found, expected = losses(tmp_path / "out", "checkpoint-3"), losses(finished, "checkpoint-5")
    # Of the eight steps the first three have the same rate: that of the warm-up and the highest one.
    assert found == pytest.approx({step: expected[step] for step in (1, 2, 3)}, rel=0.02)
    assert found[1] != expected[1]
    assert result.adapter is not None
    weights = load_file(result.adapter / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    items = [*CAPTIONS, *({"image": path} for path in gallery.paths)]
    model = SentenceTransformer("tiny", device="cpu")
    load_adapter(model, result.adapter)
    merged = SentenceTransformer(str(result.model), device="cpu")
    assert np.abs(merged.encode(items) - model.encode(items)).max() <= 1e-5


def test_two_processes_make_the_steps_of_one_that_adds_up_two_batches(data: Path, tmp_path: Path) -> None:
    lora = {"rank": 2, "vision": True}
    training = {**settings(data, tmp_path)["training"], "epochs": None, "steps": 3, "save_every": None}
    run(config(data, tmp_path / "alone", lora=lora, training={**training, "accumulate": 2}), quiet=True)
    config(data, tmp_path / "both", lora=lora, training=training)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command = [str(Path(sys.executable).with_name("st-modules")), "train", str(tmp_path / "both.yaml"), "--quiet"]
    settled = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    ended = subprocess.run([*launcher, *command], env=settled, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    alone, both = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("alone", "both"))
    assert max(weight.abs().max() for name, weight in alone.items() if "lora_B" in name) > 1e-3
    assert max((both[name] - alone[name]).abs().max() for name in alone) <= 1e-5
    assert len(list((tmp_path / "both" / "runs").iterdir())) == 1


def test_the_adapter_and_the_model_that_are_left_embed_the_same(
    finished: Path, tiny: SentenceTransformer, gallery: Gallery
) -> None:
    items = [*CAPTIONS, *({"image": path} for path in gallery.paths)]
    model = SentenceTransformer("tiny", device="cpu")
    load_adapter(model, finished / "adapter")
    expected = model.encode(items)
    assert np.abs(tiny.encode(items) - expected).max() > 1e-3
    assert np.abs(SentenceTransformer(str(finished / "model"), device="cpu").encode(items) - expected).max() <= 1e-5


def test_a_checkpoint_of_an_adapter_holds_no_other_weights(finished: Path) -> None:
    names = {path.name for path in (finished / "checkpoint-5").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    assert "model.safetensors" not in names


def test_the_losses_are_in_the_tensorboard_logs(finished: Path) -> None:
    events = EventAccumulator(str(finished / "runs")).Reload()
    logged = {event.step: event.value for event in events.Scalars("train/loss")}
    assert logged == pytest.approx(losses(finished, "checkpoint-8"), abs=1e-3)


def test_the_card_of_the_model_quotes_no_rows(finished: Path, data: Path) -> None:
    card = (finished / "model" / "README.md").read_text()
    captions = [json.loads(line)["caption"] for line in (data / "captions.jsonl").read_text().splitlines()]
    assert [text for text in captions if text in card] == []
    assert "from st_modules import SentenceTransformer" in card


def test_each_batch_is_of_one_source_and_every_row_is_seen(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    compute_loss = Trainer.compute_loss

    def noted(self: Trainer, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        seen.append((inputs["dataset_name"], len(inputs["anchor_input_ids"])))
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(Trainer, "compute_loss", noted)
    training = {**settings(data, tmp_path)["training"], "sampler": "batch_sampler"}
    run(config(data, tmp_path / "out", loss={}, training=training), quiet=True)
    assert sorted(seen) == [("captions", 4)] * 4 + [("pictures", 4)] * 4
    assert seen != sorted(seen)


def test_evaluation_data_is_scored_now_and_then(data: Path, tmp_path: Path) -> None:
    plain = settings(data, tmp_path / "out")
    training = {**plain["training"], "evaluate_every": 4}
    run(config(data, tmp_path / "out", training=training, evaluation=plain["data"][:1]), quiet=True)
    state = json.loads((tmp_path / "out" / "checkpoint-8" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "eval_captions_loss" in entry] == [4, 8]


def test_training_without_an_adapter_leaves_the_vision_tower_as_it_was(
    data: Path, tmp_path: Path, tiny: SentenceTransformer
) -> None:
    training = {**settings(data, tmp_path)["training"], "epochs": None, "steps": 1, "warmup": 0, "save_every": None}
    result = run(config(data, tmp_path / "out", lora=None, training=training), quiet=True)
    assert result.adapter is None
    trained = SentenceTransformer(str(result.model), device="cpu").state_dict()
    changed = {name for name, weight in tiny.state_dict().items() if (trained[name] != weight).any()}
    assert changed
    assert [name for name in changed if ".visual." in name] == []


def test_an_instruction_that_the_model_does_not_read_is_told(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = settings(data, tmp_path / "out")
    plain["data"][0]["prompts"] = {"positive": "Find it."}
    plain["training"] |= {"epochs": None, "steps": 1, "save_every": None}
    with caplog.at_level(logging.WARNING):
        run(config(data, tmp_path / "out", data=plain["data"], training=plain["training"]), quiet=True)
    assert "captions: this model reads no instruction on column 'positive'" in caplog.text


def test_an_output_folder_in_use_is_not_overwritten(finished: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="is not empty"):
        run(config(data, finished), quiet=True)


def test_one_process_with_several_gpus_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.TrainingArguments.n_gpu", 2)
    with pytest.raises(ConfigError, match=r"sees 2 GPUs\. Start one for each with torchrun"):
        run(config(data, tmp_path / "out"), quiet=True)
    assert not (tmp_path / "out").exists()


def test_several_processes_need_cached_gradients(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.TrainingArguments.world_size", 2)
    with pytest.raises(ConfigError, match=r"loss\.mini_batch_size: several processes need it"):
        run(config(data, tmp_path / "out", loss={}), quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in bfloat16")
def test_mixed_precision_without_a_gpu_must_be_on_the_cpu(data: Path, tmp_path: Path) -> None:
    training = {**settings(data, tmp_path)["training"], "bf16": True, "device": "auto"}
    with pytest.raises(ConfigError, match=r"training\.bf16: no GPU here .* device: cpu"):
        run(config(data, tmp_path / "out", training=training), quiet=True)


def test_there_must_be_a_checkpoint_to_resume_from(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no checkpoint to resume from"):
        run(config(data, tmp_path / "out"), resume=True, quiet=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "tinny"}}, "model: Unknown model 'tinny'. Did you mean 'tiny'?"),
        ({"lora": {"layers": ["query"]}}, "model: layers ['query']"),
        ({"loss": {"matryoshka_dims": [256]}}, "loss.matryoshka_dims [256]"),
        ({"model": {"name": "tiny", "max_length": 10**6}}, "model: max_length=1000000"),
    ],
)
def test_what_does_not_fit_the_model_is_said_before_anything_is_written(
    changes: dict[str, Any], message: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        run(config(data, tmp_path / "out", **changes), quiet=True)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_damaged_first_image_stops_the_run_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "rows.jsonl").write_text('{"caption": "a", "image": "a.png"}')
    source = {**settings(data, tmp_path)["data"][1], "file": str(tmp_path / "rows.jsonl")}
    with pytest.raises(InputError, match=r"pictures, row 0: item 0: .*a\.png"):
        run(config(data, tmp_path / "out", data=[source]), quiet=True)
    assert list((tmp_path / "out").rglob("*")) == []


def test_the_command_trains_and_says_what_it_wrote(data: Path, tmp_path: Path) -> None:
    training = {**settings(data, tmp_path)["training"], "epochs": None, "steps": 2}
    config(data, tmp_path / "out", training=training)
    file = tmp_path / "out.yaml"
    result = CliRunner().invoke(app, ["train", str(file), "--quiet"])
    assert result.exit_code == 0, result.output
    assert "for 2 steps" in result.output
    assert [name for name in ("adapter", "model", "logs") if f"Wrote the {name} to" not in result.output] == []


def test_the_command_says_what_is_wrong_in_one_line_each(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("modle: {}")
    result = CliRunner().invoke(app, ["train", str(tmp_path / "config.yaml")])
    assert result.exit_code == 1
    place = f"Error: {tmp_path / 'config.yaml'}: "
    assert f"{place}modle: unknown key. Did you mean 'model'?" in result.stderr.splitlines()
    assert [line for line in result.stderr.splitlines() if not line.startswith(place)] == []
