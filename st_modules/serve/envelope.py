"""OpenAI's envelope of errors, which also those have that are of no API."""

from __future__ import annotations

from typing import Any

from st_modules.serve.problems import Problem

_TYPES = {"key": "authentication_error", "busy": "rate_limit_error", "timeout": "timeout", "internal": "server_error"}
_CODES = {
    "key": "invalid_api_key",
    "busy": "rate_limit_exceeded",
    "body": "request_too_large",
    "path": "not_found",
    "unknown": "not_found",
}


def render_problem(problem: Problem) -> Any:
    """Write a problem as OpenAI does."""
    kind = _TYPES.get(problem.kind, "invalid_request_error")
    code = _CODES.get(problem.kind)
    return {"error": {"message": problem.message, "type": kind, "param": problem.param, "code": code}}
