"""Messages, of LangChain and as dictionaries, brought into the one item that the models' prompts have a place for.

The prompts have an instruction and one turn for what is embedded. So an item is one message, after at most one system
message. What a message of an ai says is embedded as any other text where it stands alone; an answer within a
conversation has no place.
"""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as shorten
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage

from langchain_gme.blocks import read_block
from st_modules import InputError, Place

_ASKING = frozenset({"human", "user"})
_ANSWERING = frozenset({"ai", "assistant"})
_INSTRUCTING = frozenset({"system", "developer"})
_ROLES = _ASKING | _ANSWERING | _INSTRUCTING | {"tool", "function"}
_CLASSES = {HumanMessage: "human", AIMessage: "ai", SystemMessage: "system"}
_MESSAGE_KEYS = frozenset({"role", "type", "content", "id", "name"})


def is_message(value: object) -> bool:
    """Whether a value is a message: LangChain's, a dictionary with a role, or a pair of a role and what is said."""
    if isinstance(value, Mapping):
        return "role" in value or ("content" in value and _is_role(value.get("type")))
    if isinstance(value, tuple):
        return len(value) == 2 and _is_role(value[0])
    return isinstance(value, BaseMessage)


def _is_role(name: object) -> bool:
    return isinstance(name, str) and name in _ROLES


def read_messages(parts: list[Any], place: Place) -> list[dict[str, Any]]:
    """Return the item that messages or content blocks are, as chat messages of a system and a user.

    Args:
        parts: Messages, or content blocks and strings.
        place: Where the item stands, for errors.

    Returns:
        Messages whose last one has a list of text parts and image parts as its content.

    Raises:
        InputError: A part is neither, or the messages are more than one item.
    """
    if not any(map(is_message, parts)):
        return [{"role": "user", "content": _read_blocks(parts, place)}]
    messages = [_read_message(part, place.within(f"message {number}")) for number, part in enumerate(parts)]
    roles = [role for role, _ in messages]
    *before, (last, content) = messages
    is_one = last in _ASKING or (last in _ANSWERING and not before)
    if not is_one or len(before) > 1 or not _INSTRUCTING.issuperset(roles[:-1]):
        raise InputError(
            f"messages with the roles {shorten(roles)} are not one item; pass one human message, after at most one "
            "system message, or an ai message alone",
            place,
        )
    instruction = [{"role": "system", "content": _instruction(said, place, role)} for role, said in before]
    return [*instruction, {"role": "user", "content": _read_content(content, place.within(f"{last} message"))}]


def _read_message(value: Any, place: Place) -> tuple[str, object]:
    """The role of a message, in the word that its author used, and its content."""
    if isinstance(value, BaseMessage):
        if isinstance(value, AIMessage) and (value.tool_calls or value.invalid_tool_calls):
            raise InputError(
                "an ai message with tool calls, which cannot be embedded; embed what it says: message.text", place
            )
        return _role_of(value), value.content
    if isinstance(value, tuple):
        return value
    if not is_message(value):
        raise InputError(f"of type {type(value).__name__}; pass messages alone, or content blocks alone", place)
    if unknown := sorted(map(str, value.keys() - _MESSAGE_KEYS)):
        raise InputError(f"unknown keys {shorten(unknown)}; known are {sorted(_MESSAGE_KEYS)}", place)
    role = value.get("role", value.get("type"))
    if not isinstance(role, str):
        raise InputError(f'"role" is of type {type(role).__name__}; pass a string, such as "user"', place)
    return role, value.get("content")


def _role_of(message: BaseMessage) -> str:
    """The role of a message; the type of a chunk of one is the name of its class."""
    if isinstance(message, ChatMessage):
        return message.role
    return next((role for kind, role in _CLASSES.items() if isinstance(message, kind)), message.type)


def _instruction(content: object, place: Place, role: str) -> str:
    here = place.within(f"{role} message")
    parts = _read_content(content, here)
    if any(part["type"] != "text" for part in parts):
        raise InputError("an instruction is a text and nothing else; put images beside the text that is embedded", here)
    return "\n".join(part["text"] for part in parts)


def _read_content(content: object, place: Place) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return _read_blocks([content] if content else [], place)
    if not isinstance(content, (list, tuple)):
        raise InputError(f'"content" is of type {type(content).__name__}; pass a string or a list of blocks', place)
    return _read_blocks(list(content), place)


def _read_blocks(blocks: list[Any], place: Place) -> list[dict[str, Any]]:
    if not blocks:
        raise InputError("it has neither text nor image; leave it out or give it one", place)
    return [read_block(block, place.within(f"block {number}")) for number, block in enumerate(blocks)]
