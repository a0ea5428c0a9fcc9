"""What LanceDB raises, as errors that say what the user can do."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from st_modules.errors import InputError, STModulesError, in_one_line, shorten


class ConditionError(InputError):
    """A condition is none, or names what the index does not have."""


class UnknownItemError(InputError):
    """An index has no item with an id."""


# Beginnings that name its layers, and where in its own source an error was made.
_LAYERS = re.compile(
    r"^(lance error: |Invalid input, |LanceError\(\w+\): |Query Execution error: |Execution error: "
    r"|Error applying filter expression to batch: |Error resolving filter expression .*?: |Invalid user input: "
    r"|Arrow error: |Schema error: |Compute error: |A prerequisite task failed: )+"
)
_PARSER = "(sql parser error: "
_PLACE = re.compile(r",? /\S+\.rs:\d+:\d+.*$")
# What it raises of a condition where the query is run; the rest is of files and of the network.
_OF_CONDITIONS = ("Query Execution", "Arrow error", "Schema error", "parsing statement", "filter", "Filter", "panicked")
_LONGEST = 20_000
# Each is a step deeper than the one before it, and some 600 overflow the stack of LanceDB's planner: the process ends.
_MOST_STEPS = 300
_STEP = re.compile(r"[+*/%]|\|\||::|\bis\b|(?<=[\w)\]'\"`])\s*-", re.IGNORECASE)
# Whichever begins first: there may be a quotation mark in a comment, and two hyphens in quotation marks.
_SKIPPED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|--[^\n]*|/\*.*?\*/", re.DOTALL)
_PLACEHOLDER = re.compile(r"[?$]|(?<!:):(?!:)")
# As columns they stand between backticks, like those that are no plain words.
_WORDS_OF_SQL = frozenset(
    {
        "all",
        "and",
        "as",
        "asc",
        "between",
        "by",
        "case",
        "cast",
        "cross",
        "current_date",
        "current_time",
        "current_timestamp",
        "date",
        "desc",
        "distinct",
        "else",
        "end",
        "except",
        "exists",
        "false",
        "from",
        "full",
        "group",
        "having",
        "ilike",
        "in",
        "inner",
        "intersect",
        "interval",
        "is",
        "join",
        "left",
        "like",
        "limit",
        "natural",
        "not",
        "null",
        "offset",
        "on",
        "or",
        "order",
        "outer",
        "over",
        "right",
        "rlike",
        "select",
        "set",
        "similar",
        "table",
        "then",
        "time",
        "timestamp",
        "true",
        "union",
        "unnest",
        "using",
        "values",
        "when",
        "where",
        "window",
        "with",
    }
)


def enclose(where: str) -> str:
    """Return a condition as one that others can be joined to.

    LanceDB reads the first expression of a text and nothing of what follows a semicolon; in brackets all of it counts.

    Raises:
        ConditionError: It is none.
    """
    if not isinstance(where, str) or not where.strip():
        raise ConditionError(f'where={shorten(where)}: pass a condition, as "page < 3".')
    if len(where) > _LONGEST:
        raise ConditionError(f"where: a condition of {len(where)} characters; at most {_LONGEST} are read.")
    bare = _SKIPPED.sub("''", where)
    _check_brackets(where, bare)
    if (steps := len(_STEP.findall(bare))) > _MOST_STEPS:
        raise ConditionError(
            f"where: a condition with {steps} sums, casts, IS and the like; at most {_MOST_STEPS} are read."
        )
    # They end the thread that plans the query, which says so on stderr.
    if placeholder := _PLACEHOLDER.search(bare):
        raise ConditionError(
            f"where={shorten(where)}: {placeholder[0]} stands for a value, and none is passed; write it out."
        )
    # A comment ends with its line.
    return f"({where}\n)"


def _check_brackets(where: str, bare: str) -> None:
    """Make sure that a condition stays within the brackets that it is put into."""
    depth = 0
    for bracket in re.findall(r"[()]", bare):
        depth += 1 if bracket == "(" else -1
        if depth < 0:
            break
    if depth:
        raise ConditionError(f"where={shorten(where)}: a bracket is missing.")


@contextmanager
def name_problems(path: str, where: str | None = None, columns: Sequence[str] = ()) -> Generator[None, None, None]:
    """Turn what LanceDB raises into an ``InputError``.

    Args:
        path: The index.
        where: The condition that it was given.
        columns: The columns that a condition may name.

    Raises:
        ConditionError: The condition is wrong.
        InputError: The index cannot be read.
    """
    try:
        yield
    except STModulesError:
        raise
    except UnicodeError as error:
        problem = "half of a character, which is no Unicode; leave it out."
        if where is not None and re.search("[\ud800-\udfff]", where):
            raise ConditionError(f"where={shorten(where)}: {problem}") from error
        raise InputError(f"The query has {problem}") from error
    except Exception as error:
        # A panic of LanceDB's has a type of its own, which cannot be imported.
        if not isinstance(error, ValueError | RuntimeError | OSError) and type(error).__name__ != "RustPanic":
            raise
        if where is not None and _is_of_condition(error):
            raise ConditionError(
                f"where={shorten(where)}: {_explain(error)}. The columns are {', '.join(map(name_column, columns))}."
                f"{_explain_quotes(where, columns)}"
            ) from error
        raise InputError(
            f"{path}: damaged, or not within reach: {_explain(error)}. Index its sources again, which mends an index "
            "of words; where that does not help, build it anew."
        ) from error


def _explain_quotes(where: str, columns: Sequence[str]) -> str:
    """What to say of double quotes, between which SQL has the names of columns, where none of those is meant."""
    names = {name.lower() for name in columns}
    quoted = [found[0][1:-1] for found in _SKIPPED.finditer(where) if found[0].startswith('"')]
    strings = [each.replace("'", "''") for each in quoted if each.lower() not in names]
    return f" Strings stand in single quotes: '{shorten(strings[-1])[1:-1]}'." if strings else ""


def name_column(name: str) -> str:
    """Write the name of a column as a condition has to: one that is no plain word stands between backticks."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) and name not in _WORDS_OF_SQL else f"`{name}`"


def _is_of_condition(error: Exception) -> bool:
    return isinstance(error, ValueError) or any(words in str(error) for words in _OF_CONDITIONS)


def _explain(error: Exception) -> str:
    """What an error says to the user: without the layers that it came through, and the columns, which we list."""
    line = _PLACE.sub("", " ".join(str(error).split()))
    if _PARSER in line:  # the whole statement stands before it
        line = line.rpartition(_PARSER)[2].removesuffix(")")
    line = _LAYERS.sub("", line).partition(" Valid fields are")[0]
    return in_one_line(RuntimeError(line) if line else error).rstrip(".")
