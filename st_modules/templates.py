"""How each upstream lays out an item and its instruction, as segments: one small function per recipe.

Control tokens are inserted by id and user text is encoded as plain text, so a segment boundary is always a
control token: text cut anywhere else could tokenise differently from the whole string.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from st_modules.inputs import Item

Task: TypeAlias = Literal["query", "document"] | None


@dataclass(frozen=True)
class Special:
    """One control token."""

    token: str


@dataclass(frozen=True)
class Text:
    """A stretch of text between two control tokens.

    Attributes:
        fixed: What the template wrote; truncation keeps it.
        user: What the user wrote; truncation trims its end.
    """

    fixed: str
    user: str = ""


@dataclass(frozen=True)
class Image:
    """The place of one image: ``token``, repeated once for each of the image's tokens."""

    token: str


Segment: TypeAlias = Special | Text | Image
Template: TypeAlias = Callable[[Item, str | None, Task], list[Segment]]

GME_DEFAULT_INSTRUCTION = "You are a helpful assistant."


def gme(item: Item, instruction: str | None, task: Task) -> list[Segment]:
    """GME-Qwen2-VL: a chat turn with the instruction as its system text, images before the text.

    The instruction counts on the query side only; a document always gets the default one, as in the authors'
    script (``gme_inference.py`` of the model repositories).

    Args:
        item: What to embed.
        instruction: The task instruction; ``None`` and the empty string mean the default.
        task: ``"document"`` ignores the instruction.

    Returns:
        The segments, ending in the ``<|endoftext|>`` whose hidden state is the embedding.
    """
    system = GME_DEFAULT_INSTRUCTION if task == "document" or not instruction else instruction
    text = item.text or ""
    user: list[Segment] = [Text("user\n", text)]
    if item.images:
        block = [Special("<|vision_start|>"), Image("<|image_pad|>"), Special("<|vision_end|>")]
        user = [Text("user\n"), *block * len(item.images), Text("", text)]
    return [
        Special("<|im_start|>"),
        Text(f"system\n{system}"),
        Special("<|im_end|>"),
        Text("\n"),
        Special("<|im_start|>"),
        *user,
        Special("<|im_end|>"),
        Text("\n"),
        Special("<|im_start|>"),
        Text("assistant\n"),
        Special("<|endoftext|>"),
    ]


TEMPLATES: dict[str, Template] = {"gme": gme}
