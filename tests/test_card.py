"""The model card of a saved model: what it says of where the model comes from, and that its example runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import sentence_transformers
from datasets import Dataset
from huggingface_hub import ModelCard
from PIL import Image
from sentence_transformers import SentenceTransformerModelCardData, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Normalize

from st_modules import SentenceTransformer, get_model, list_models
from st_modules.train import Trainer, add_lora, load_adapter, save_adapter
from tests.helpers.paths import GOLDEN
from tests.helpers.references import load_once, reference

ROWS = [spec.name for spec in list_models() if spec.repo_id]
CODES = {
    "Chinese": "zh",
    "English": "en",
    "French": "fr",
    "German": "de",
    "Italian": "it",
    "Spanish": "es",
    "multilingual": "multilingual",
}


def save(model: sentence_transformers.SentenceTransformer, folder: Path) -> ModelCard:
    model.save_pretrained(str(folder))
    return ModelCard.load(folder / "README.md")


def stated(card: ModelCard) -> Any:
    """The metadata of a card."""
    return card.data


def example(card: ModelCard) -> str:
    (found,) = re.findall(r"```python\n(.*?)```", card.content, re.DOTALL)
    return found


@pytest.fixture
def gme() -> SentenceTransformer:
    return SentenceTransformer("gme-2b", weights=GOLDEN / "gme" / "checkpoint", device="cpu")


@pytest.fixture
def trained_tiny() -> SentenceTransformer:
    return train(sentence_transformers.SentenceTransformerTrainer)


def train(trainer: type[sentence_transformers.SentenceTransformerTrainer]) -> SentenceTransformer:
    """Train for a step on rows that are private."""
    model = SentenceTransformer("tiny", device="cpu")
    rows = [
        {"anchor": f"private {number}", "positive": Image.new("RGB", (60, 40), (number, 0, 0))} for number in range(4)
    ]
    arguments = SentenceTransformerTrainingArguments(
        "unused", max_steps=1, report_to="none", use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    loss = MultipleNegativesRankingLoss(model)
    trainer(model=model, args=arguments, train_dataset=Dataset.from_list(rows), loss=loss).train()
    return model


# ------------------------------------------------------------------------------------------------- untrained


@pytest.mark.parametrize("row", ROWS)
def test_the_example_of_every_model_runs_on_its_saved_folder(
    row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = save(load_once(row, "sdpa"), tmp_path)
    code = example(card).replace("sentence_transformers_model_id", str(tmp_path))
    Image.new("RGB", (60, 40), "red").save(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    shape, *similarities = capsys.readouterr().out.splitlines()
    dimension = next(iter(reference(row).cases.values())).expected.shape[1]
    assert shape == f"(3, {dimension})"
    assert f"# {shape}" in code
    assert len(re.findall(r"-?\d\.\d+", "".join(similarities))) == 3


@pytest.mark.parametrize("row", ROWS)
def test_the_card_of_every_model_states_what_the_catalog_states(row: str, tmp_path: Path) -> None:
    card, spec = save(load_once(row, "sdpa"), tmp_path), get_model(row)
    assert stated(card).base_model == spec.repo_id
    assert stated(card).license == spec.licence
    assert stated(card).language == [CODES[name] for name in spec.languages.split(", ")]
    assert stated(card).pipeline_tag == "sentence-similarity"
    assert {"sentence-transformers", "multimodal"} <= set(stated(card).tags)


def test_a_model_that_was_not_trained_is_what_it_was_loaded_from(gme: SentenceTransformer, tmp_path: Path) -> None:
    text = save(gme, tmp_path).text
    repository = "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct"
    assert f"model: [{repository}](https://huggingface.co/{repository}), saved by st-modules. It maps" in text
    assert re.search(r"finetuned|trained from|model trained", text) is None


PLAIN = "pip install -U sentence-transformers\nfrom sentence_transformers import SentenceTransformer\n"


def test_a_card_sends_its_readers_to_this_package(gme: SentenceTransformer, tmp_path: Path) -> None:
    card = save(gme, tmp_path / "saved")
    (tmp_path / "saved" / "README.md").write_text(card.content + PLAIN, encoding="utf-8")
    again = save(SentenceTransformer(str(tmp_path / "saved"), device="cpu"), tmp_path / "again")
    for text in (card.content, again.content):
        assert "First install st-modules:\n\n```bash\npip install -U st-modules\n" in text
        assert not set(PLAIN.splitlines()) & set(text.splitlines())


def test_a_card_is_kept_where_the_model_is_loaded_and_saved_again(gme: SentenceTransformer, tmp_path: Path) -> None:
    first = save(gme, tmp_path / "first")
    again = save(SentenceTransformer(str(tmp_path / "first"), device="cpu"), tmp_path / "again")
    assert again.content == first.content


def test_the_model_that_ships_keeps_its_own_card(tiny: SentenceTransformer, tmp_path: Path) -> None:
    own = get_model("tiny").path
    assert own is not None
    card = save(tiny, tmp_path)
    assert card.content == (own / "README.md").read_text(encoding="utf-8")
    assert re.search(r"finetuned|trained from", card.text) is None


def test_the_example_names_the_repository_that_the_model_is_pushed_to(gme: SentenceTransformer, tmp_path: Path) -> None:
    gme.model_card_data.set_model_id("me/mine")
    assert 'SentenceTransformer("me/mine")' in example(save(gme, tmp_path))


def test_what_the_user_states_wins_over_the_catalog(tmp_path: Path) -> None:
    data = SentenceTransformerModelCardData(license="mit", language="de", model_name="Mine")
    model = SentenceTransformer("gme-2b", weights=GOLDEN / "gme" / "checkpoint", device="cpu", model_card_data=data)
    card = save(model, tmp_path)
    assert (stated(card).license, stated(card).language) == ("mit", ["de"])
    assert "# Mine\n" in card.text
    assert '{"image": "picture.jpg"}' in example(card)


def test_the_card_of_another_librarys_model_is_that_of_sentence_transformers(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    sentence_transformers.SentenceTransformer(modules=[Normalize()]).save_pretrained(
        str(folder), create_model_card=False
    )
    model = SentenceTransformer(str(folder))
    model._create_model_card(str(tmp_path))
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "from sentence_transformers import SentenceTransformer" in text
    assert "multimodal" not in text.partition("# SentenceTransformer")[0]


# --------------------------------------------------------------------------------------------------- trained


@pytest.mark.parametrize("trainer", [Trainer, sentence_transformers.SentenceTransformerTrainer])
def test_a_trained_model_does_not_keep_the_card_of_the_model_as_it_was(
    trainer: type[sentence_transformers.SentenceTransformerTrainer], tmp_path: Path
) -> None:
    card = save(train(trainer), tmp_path)
    assert "generated_from_trainer" in stated(card).tags
    assert "## Scores" not in card.text
    assert (stated(card).license, stated(card).language) == ("apache-2.0", ["en"])


def test_the_example_quotes_no_rows_that_sentence_transformers_trainer_would_show(
    trained_tiny: SentenceTransformer, tmp_path: Path
) -> None:
    shown = trained_tiny.model_card_data.usage_examples
    card = save(trained_tiny, tmp_path)
    assert "private" not in example(card)
    assert '{"image": "picture.jpg"}' in example(card)
    assert trained_tiny.model_card_data.usage_examples is shown


def test_our_trainer_quotes_no_rows_at_all(tmp_path: Path) -> None:
    assert "private" not in save(train(Trainer), tmp_path).content
    assert not (tmp_path / "assets").exists()


def test_a_model_with_a_loaded_adapter_does_not_keep_the_card_of_the_model_without(tmp_path: Path) -> None:
    adapted = SentenceTransformer("tiny", device="cpu")
    add_lora(adapted)
    save_adapter(adapted, tmp_path / "adapter")
    model = SentenceTransformer("tiny", device="cpu")
    load_adapter(model, tmp_path / "adapter")
    assert "generated_from_trainer" in model.model_card_data.tags


def mark_trained(folder: Path) -> SentenceTransformer:
    model = SentenceTransformer(str(folder), device="cpu")
    model.model_card_data.add_tags("generated_from_trainer")
    return model


def test_what_a_saved_model_is_trained_from_is_read_from_its_card(gme: SentenceTransformer, tmp_path: Path) -> None:
    before = stated(save(gme, tmp_path / "saved"))
    card = save(mark_trained(tmp_path / "saved"), tmp_path / "trained")
    after = stated(card)
    assert (after.license, after.language, after.base_model) == (before.license, before.language, before.base_model)
    assert f"finetuned from [{before.base_model}]" in card.text


@pytest.mark.parametrize("content", ["---\nlicense: [\n---\n", "---\n- a list\n---\n", "no metadata"])
def test_a_damaged_card_does_not_keep_a_trained_model_from_being_saved(
    gme: SentenceTransformer, content: str, tmp_path: Path
) -> None:
    save(gme, tmp_path / "saved")
    (tmp_path / "saved" / "README.md").write_text(content, encoding="utf-8")
    card = save(mark_trained(tmp_path / "saved"), tmp_path / "trained")
    assert stated(card).license is None


def test_a_card_that_cannot_be_written_is_logged_by_sentence_transformers(
    gme: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gme.model_card_data, "template_path", tmp_path / "missing")
    gme.save_pretrained(str(tmp_path / "saved"))
    assert "Skipping model card creation" in caplog.text
    assert not (tmp_path / "saved" / "README.md").exists()
