"""Which instruction a model gets for a task and a side of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mteb.models.abs_encoder import get_prompt_name
from mteb.types import PromptType

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

_COMPOSED = "Find an image that shows the given image with the described change."
_PROMPT_NAMES = {"it2i": "cir", "it2t": "vqa"}
"""What the catalog calls a model's instruction for a category, where it is not the category's own name."""


def find_instruction(
    task: TaskMetadata,
    side: PromptType | None,
    *,
    overrides: Mapping[str, str],
    prompts: Mapping[str, str | None],
    instructed: bool,
) -> str | None:
    """Choose the instruction for one side of a task.

    The first of these that there is: what the caller names for it; what the task's metadata states for the side (a
    plain string there is for queries); for queries, the model's own instruction for the task's category, as ``t2i``;
    for queries that are a picture with a change, one of this package's own.

    Args:
        task: The task's metadata.
        side: Queries, documents, or neither, as in tasks that compare like with like.
        overrides: Instructions by mteb's keys: a task's name or type, alone or with ``-query`` or ``-document``
            behind it, or just ``query`` or ``document``. The empty string means none.
        prompts: The model's own instructions by name.
        instructed: Whether the model is used with instructions of tasks at all.

    Returns:
        The instruction, or ``None`` for the model's default.
    """
    if key := get_prompt_name(dict(overrides), task, side):
        return overrides[key] or None
    if not instructed:
        return None
    stated = _find_stated(task, side)
    if stated is None and side == PromptType.query and task.category:
        stated = _for_category(task.category, prompts)
    return stated or None


def _for_category(category: str, prompts: Mapping[str, str | None]) -> str | None:
    own = prompts.get(category) or prompts.get(_PROMPT_NAMES.get(category, ""))
    return own or (_COMPOSED if category == "it2i" else None)


def _find_stated(task: TaskMetadata, side: PromptType | None) -> str | None:
    if isinstance(task.prompt, dict):
        return task.prompt.get(side.value) if side else None
    return None if side == PromptType.document else task.prompt
