"""Which conditions requests may send: LanceDB's SQL has functions that cost any time and memory."""

from __future__ import annotations

import re

from st_modules.serve.problems import Problem

_LONGEST = 2000
# Each may be a step deeper into LanceDB's planner, whose end is that of its thread's stack, and of the process.
_MOST_OPERATORS = 100
# A pattern with many of them takes time without end on a long text.
_MOST_WILDCARDS = 10
_FUNCTIONS = ("abs", "cast", "coalesce", "contains", "length", "lower", "starts_with", "upper")
_BEFORE_BRACKETS = frozenset({"", "and", "between", "else", "in", "like", "not", "or", "then", "when", *_FUNCTIONS})
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`""")
_BRACKET = re.compile(r"""([\w'"`)\]]*)\s*\(""")
_OPERATOR = re.compile(r"\b(?:and|between|case|ilike|in|is|like|not|or|when)\b|[-+*/%=<>|&^~!(\[:]", re.IGNORECASE)


def check_condition(where: str) -> None:
    """Refuse a condition that could cost more than a look at each row.

    Raises:
        Problem: It is too long or too deep, or has what conditions of requests may not have.
    """
    if len(where) > _LONGEST:
        raise _refuse(f"a condition of {len(where)} characters; at most {_LONGEST} are read.")
    if re.search(r"\bi?like\b", where, re.IGNORECASE):
        wildcards = sum(quoted.count("%") + quoted.count("_") for quoted in _QUOTED.findall(where))
        if wildcards > _MOST_WILDCARDS:
            raise _refuse(f"{wildcards} of % and _ in a condition with LIKE; at most {_MOST_WILDCARDS} are read.")
    # What stands in quotes, and may look like anything, becomes a mark.
    bare = _QUOTED.sub(lambda found: found[0][0], where)
    if re.search(r"--|/\*|\\|[\w&]'", bare):
        raise _refuse("comments, backslashes and letters before a quotation mark are not read here; leave them out.")
    if re.search(r"\bselect\b", bare, re.IGNORECASE):
        raise _refuse("a condition on the columns of one row alone, without another query.")
    for bracket in _BRACKET.finditer(bare):
        if bracket[1].lower() not in _BEFORE_BRACKETS:
            raise _refuse(f"{bracket[1]}(...) is not computed here; the functions are {', '.join(_FUNCTIONS)}.")
    if (count := len(_OPERATOR.findall(bare))) > _MOST_OPERATORS:
        raise _refuse(f"{count} operators and brackets; at most {_MOST_OPERATORS} are read. Compare with lists, by IN.")


def _refuse(message: str) -> Problem:
    return Problem("input", f"where: {message}", "where")
