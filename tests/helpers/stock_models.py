"""Tiny random checkpoints of published embedders, and their vectors put together from stock transformers calls.

Nothing here comes from the package under test: a recipe's string is tokenised whole by the checkpoint's own tokenizer,
and each item runs alone, without padding, through the stock model in float32 with eager attention.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from tests.helpers.paths import GOLDEN

MLLM_CHECKPOINT = GOLDEN / "bge_vl_mllm" / "checkpoint"
GOLDEN_IMAGES = GOLDEN / "bge_vl_mllm" / "images"

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
LLAMA3_SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
# Runs of newlines and punctuation before a newline become tokens of their own here, as in the published vocabulary: a
# text that is tokenised apart from the words around it then gives other tokens.
LLAMA3_CORPUS = [
    "user\n\nassistant\n\n \n",
    "Summary above sentence in one word: ",
    "Summary above image in one word: ",
    'Modify this image with "make it blue", desribe modified image in one word: ',
    "A text that ends with a full stop.\nSummary. A question?\nSummary! One more...\n\n\n\n  two  spaces \n",
    "the quick brown fox jumps over the lazy dog, and two small green stars on a white background are there too",
]


def write_pictures(folder: Path) -> dict[str, Path]:
    """Return the golden pictures by name, with extreme sizes and rare modes, which are written to ``folder``."""
    pictures = {path.stem: path for path in GOLDEN_IMAGES.glob("*.png")}
    random_state = np.random.default_rng(11)
    for name, mode, width, height in (
        ("thin", "RGB", 1, 400),
        ("flat", "RGB", 400, 1),
        ("speck", "RGB", 3, 2),
        ("needle", "RGB", 4, 600),
        ("gray_alpha", "LA", 130, 77),
        ("bilevel", "1", 61, 99),
    ):
        pixels = random_state.integers(0, 256, (height, width, 4), dtype=np.uint8)
        pictures[name] = folder / f"{name}.png"
        Image.fromarray(pixels).convert(mode).save(pictures[name])
    return pictures


@dataclass(frozen=True)
class Case:
    """One item as it is passed to the package; ``picture`` is a name of :func:`write_pictures`, or some with commas."""

    text: str | None = None
    picture: str | None = None
    instruction: str | None = None
    method: str = "encode"

    @property
    def id(self) -> str:
        text = None if self.text is None else self.text[:16].encode("unicode_escape").decode()
        told = self.instruction and f"told {self.instruction[:12]}"
        return "-".join(part for part in (self.method, self.picture, text, told) if part)

    @property
    def names(self) -> list[str]:
        return self.picture.split(",") if self.picture else []

    def item(self, pictures: dict[str, Path]) -> dict[str, Any]:
        image = {"image": [pictures[name] for name in self.names]} if self.names else {}
        return image if self.text is None else {"text": self.text, **image}


class StockModel(ABC):
    """The vectors that stock transformers calls give for a checkpoint."""

    image_token: str
    control_tokens: tuple[str, ...]

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.image_id = self.tokenizer.token_to_id(self.image_token)
        self._disguises = {token: chr(0xE000 + number) for number, token in enumerate(self.control_tokens)}
        self._disguised = _rename_tokens(folder / "tokenizer.json", self._disguises)
        self._vectors: dict[tuple[Case, tuple[Path, ...]], np.ndarray] = {}

    @abstractmethod
    def string(self, case: Case) -> str:
        """Return the whole string, with one image token for each picture."""

    @abstractmethod
    def hidden_states(self, ids: list[int], images: tuple[Path, ...]) -> torch.Tensor:
        """Run one item, the image token repeated once for each feature of its image."""

    def ids(self, case: Case) -> list[int]:
        """Tokenise the whole string, special tokens included, with one image token for the picture."""
        if not any(token in f"{case.text} {case.instruction}" for token in self.control_tokens):
            return self.tokenizer.encode(self.string(case)).ids
        # Where the user writes a control token, the recipe's own go by other names, which no user writes: what stands
        # under the usual names is then text, and the string is still tokenised whole.
        marked = self.string(replace(case, text=case.text and "\uf000", instruction=case.instruction and "\uf001"))
        for token, disguise in self._disguises.items():
            marked = marked.replace(token, disguise)
        string = marked.replace("\uf000", case.text or "").replace("\uf001", case.instruction or "")
        return self._disguised.encode(string).ids

    def repeat_image_token(self, ids: list[int], *times: int) -> torch.Tensor:
        left = iter(times)
        return torch.tensor(
            [[each for token in ids for each in [token] * (next(left) if token == self.image_id else 1)]]
        )

    def vector(self, case: Case, pictures: dict[str, Path]) -> np.ndarray:
        """Return the last position of the last hidden state (after the final norm), of length one."""
        images = tuple(pictures[name] for name in case.names)
        if (case, images) not in self._vectors:
            with torch.inference_mode():
                last = self.hidden_states(self.ids(case), images)[0, -1]
            self._vectors[case, images] = torch.nn.functional.normalize(last, dim=0).numpy()
        return self._vectors[case, images]


class StockLlavaNext(StockModel):
    """LLaVA-NeXT as it is; the recipes below differ in the string only."""

    image_token = "<image>"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        loaded: Any = LlavaNextForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        self.model = loaded.model.eval()
        self.image_processor = LlavaNextImageProcessorPil.from_pretrained(folder, do_convert_rgb=False)

    def hidden_states(self, ids: list[int], images: tuple[Path, ...]) -> torch.Tensor:
        if not images:
            return self.model(input_ids=torch.tensor([ids])).last_hidden_state
        (image,) = images
        with Image.open(image) as opened:
            pixels = self.image_processor(opened.convert("RGB"), return_tensors="pt")
        # Asked of the model, so that the count is not one more copy of the rule under test.
        features = self.model.get_image_features(**pixels, return_dict=True).pooler_output
        return self.model(input_ids=self.repeat_image_token(ids, len(features[0])), **pixels).last_hidden_state


class StockVLM2VecLlavaNext(StockLlavaNext):
    control_tokens = ("<s>", "</s>", "<pad>", "<image>")

    def string(self, case: Case) -> str:
        if case.picture is None:
            return case.text or "" if case.instruction is None else f"{case.instruction} {case.text}"
        if case.text is None and case.instruction is None:
            return "<image> Represent the given image."
        return " ".join(part for part in ("<image>", case.instruction, case.text) if part is not None)


class StockE5V(StockLlavaNext):
    control_tokens = (*LLAMA3_SPECIAL, "<image>")

    def string(self, case: Case) -> str:
        assert case.instruction is None
        if case.picture is None:
            body = f"{case.text}\nSummary above sentence in one word: "
        elif case.text is None:
            body = "<image>\nSummary above image in one word: "
        else:
            body = f'<image>Modify this image with "{case.text}", desribe modified image in one word: '
        return (
            f"<|start_header_id|>user<|end_header_id|>\n\n{body}<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n \n"
        )


def _rename_tokens(path: Path, names: Mapping[str, str]) -> Tokenizer:
    content = json.loads(path.read_text(encoding="utf-8"))
    for token in content["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {names.get(token, token): number for token, number in vocabulary.items()}
    renamed = Tokenizer.from_str(json.dumps(content))
    before = Tokenizer.from_file(str(path))
    assert all(renamed.token_to_id(new) == before.token_to_id(old) is not None for old, new in names.items())
    return renamed


def write_vlm2vec_llava_next(folder: Path, *, metaspace: bool) -> None:
    """Write a tiny LLaVA-NeXT on Mistral.

    Args:
        folder: Where to.
        metaspace: Whether spaces are marked by a pre-tokenizer, which marks the start of the string only, and not by a
            normalizer, which also marks the start after each special token. Mistral's tokenizers exist in both forms.
    """
    _copy(folder, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    if metaspace:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["normalizer"] = None
        content["pre_tokenizer"] = {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "first",
            "split": False,
        }
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text_config = MistralConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=None,
        pad_token_id=tokenizer.token_to_id("<pad>"),
    )
    _write_llava_next(folder, text_config, tokenizer, seed=1)


def write_e5_v(folder: Path) -> None:
    """Write a tiny LLaVA-NeXT on Llama 3, with a byte-level tokenizer to which ``<image>`` was added later."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(LLAMA3_CORPUS, trainer)
    tokenizer.add_special_tokens(list(LLAMA3_SPECIAL))
    tokenizer.add_tokens([AddedToken("<image>", special=False, normalized=True)])
    begin = LLAMA3_SPECIAL[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A",
        pair=f"{begin} $A {begin}:1 $B:1",
        special_tokens=[(begin, tokenizer.token_to_id(begin))],
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token="<|eot_id|>").save_pretrained(folder)
    text_config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        bos_token_id=tokenizer.token_to_id(begin),
        eos_token_id=tokenizer.token_to_id("<|eot_id|>"),
    )
    _write_llava_next(folder, text_config, tokenizer, seed=2)


def _copy(folder: Path, *names: str) -> None:
    # Not shutil.copy: the golden files may be read-only, and the copies are rewritten.
    for name in names:
        shutil.copyfile(MLLM_CHECKPOINT / name, folder / name)


def _write_llava_next(folder: Path, text_config: PreTrainedConfig, tokenizer: Tokenizer, seed: int) -> None:
    upstream = json.loads((MLLM_CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    image_id = tokenizer.token_to_id("<image>")
    assert image_id is not None
    config = LlavaNextConfig(
        text_config=text_config,
        vision_config=CLIPVisionConfig(
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=56,
            patch_size=14,
            projection_dim=32,
        ),
        image_token_index=image_id,
        image_grid_pinpoints=upstream["image_grid_pinpoints"],
        image_seq_length=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaNextForConditionalGeneration(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    # At the usual scale of 0.02 every input has almost the same vector, and an error would not show.
                    parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    _copy(folder, "preprocessor_config.json", "processor_config.json")
