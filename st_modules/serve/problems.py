"""What can go wrong with a request, whichever API it speaks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from st_modules.errors import ArgumentError, InputError, MissingExtraError, STModulesError, printable

logger = logging.getLogger(__name__)

Kind: TypeAlias = Literal["input", "body", "limit", "key", "path", "unknown", "busy", "gone", "timeout", "internal"]
"""``input``: a value that cannot be embedded. ``body``: too many bytes. ``limit``: too many items or tokens.
``unknown``: an item that the index does not have, or has no picture of."""

STATUS: dict[Kind, int] = {
    "input": 400,
    "body": 413,
    "limit": 422,
    "key": 401,
    "path": 404,
    "unknown": 404,
    "busy": 429,
    "gone": 499,  # nginx's number for a client that has hung up; nobody reads it
    "timeout": 504,
    "internal": 500,
}
_LONGEST = 1000


class Problem(STModulesError):
    """Why a request is not answered with embeddings.

    Args:
        kind: Which of the kinds it is.
        message: What is wrong, and what to do about it.
        param: The field that is to blame, as ``input[3]``; ``None`` where it is none.
        status: Another HTTP status than that of its kind.

    Attributes:
        kind: As above.
        message: As above, printable and of bounded length.
        param: As above.
        status: The HTTP status.
    """

    def __init__(self, kind: Kind, message: str, param: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.message = _shorten(printable(message))
        self.param = param if param is None else _shorten(printable(param))
        self.status = STATUS[kind] if status is None else status


def describe(error: Exception, items: str) -> Problem:
    """Return what an error means for the client.

    Args:
        error: Whatever was raised while a request was answered.
        items: The name of the field that has the request's items.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, InputError):
        return Problem("input", str(error), items if error.index is None else f"{items}[{error.index}]")
    if isinstance(error, (ArgumentError, MissingExtraError)):
        return Problem("input", str(error))
    if isinstance(error, RequestValidationError):
        return _describe_validation(error.errors())
    if isinstance(error, HTTPException) and error.status_code < 500:
        return Problem("input", f"{error.detail}: send valid JSON, with Content-Type: application/json.")
    logger.error("A request failed.", exc_info=error)
    return Problem("internal", "The server failed to answer; its log says why.")


def _describe_validation(errors: Sequence[Any]) -> Problem:
    """Say what is wrong with the first field that is wrong; the value itself is not repeated."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return Problem("input", f"The body is no JSON: {first['ctx']['error']}.")
    param = ".".join(str(part) for part in first["loc"] if part != "body")
    if first["type"] == "extra_forbidden":
        return Problem("input", f"{param}: no field that this API has here; leave it out.", param)
    if not param:
        return Problem("input", "Send a JSON object, with Content-Type: application/json.")
    return Problem("input", f"{param}: {first['msg'][:1].lower()}{first['msg'][1:]}.", param)


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
