"""The README in Chinese says what the English one does, and the links of both hold outside of the repository."""

from __future__ import annotations

import re

import pytest

from tests.helpers.paths import ROOT

ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
HOME = "https://github.com/st-modules/st-modules/blob/main/"


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


def levels(text: str) -> list[str]:
    return re.findall(r"^(#+) ", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)


def names(text: str) -> list[str]:
    """The first cells of the tables."""
    return re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)


def test_both_have_the_same_blocks_of_code() -> None:
    blocks = re.findall(r"```.*?```", ENGLISH, re.DOTALL)
    assert len(blocks) >= 7
    assert re.findall(r"```.*?```", CHINESE, re.DOTALL) == blocks


def test_both_have_the_same_commands() -> None:
    commands = re.findall(r"^    \S.*$", ENGLISH, re.MULTILINE)
    assert len(commands) >= 15
    assert re.findall(r"^    \S.*$", CHINESE, re.MULTILINE) == commands


def test_both_have_headings_of_the_same_levels_and_the_same_models() -> None:
    assert levels(CHINESE) == levels(ENGLISH)
    assert names(CHINESE) == names(ENGLISH)


def test_both_have_the_same_links_and_name_each_other() -> None:
    assert [ENGLISH.count(f"]({HOME}README.zh.md)"), CHINESE.count(f"]({HOME}README.md)")] == [1, 1]
    assert links(CHINESE.replace(f"]({HOME}README.md)", f"]({HOME}README.zh.md)")) == links(ENGLISH)


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["README.md", "README.zh.md"])
def test_no_link_is_relative(text: str) -> None:
    # A package index shows the README without the repository.
    assert [link for link in links(text) if not link.startswith("https://")] == []
