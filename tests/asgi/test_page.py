"""The committed page says what the table of the tests says."""

from __future__ import annotations

import re

import pytest

from tests.asgi import test_doors, test_peers
from tests.asgi.expected import EXPECTED
from tests.asgi.page import WORDS, cell, notes, render
from tests.asgi.questions import GROUPS, QUESTIONS
from tests.asgi.servers import NAMES
from tests.docs.pages import ROOT, read_tables

PAGE = ROOT / "docs" / "asgi-servers.md"


def yes_and_no() -> dict[tuple[str, str], str]:
    """Return the results of a run in which everything is as expected."""
    cells = [(each.name, server) for each in QUESTIONS for server in each.servers]
    return {each: "no" if each in EXPECTED else "ok" for each in cells}


def test_every_no_that_is_expected_is_asked_for() -> None:
    assert test_doors is not None
    assert test_peers is not None
    assert EXPECTED.keys() <= yes_and_no().keys()


@pytest.mark.parametrize("group", GROUPS)
def test_the_tables_have_every_question_and_its_answers(group: str) -> None:
    table = read_tables(PAGE)[group]
    asked = [each for each in QUESTIONS if each.group == group]
    assert [row[0] for row in table.rows] == [each.label for each in asked]
    for each, row in zip(asked, table.rows, strict=True):
        cells = dict(zip(table.columns[1:], row[1:], strict=True))
        assert cells == {name: cell(each, name) for name in table.columns[1:]}, each.label
        assert set(each.servers) <= set(cells)


def test_the_notes_are_those_of_the_table() -> None:
    rows = read_tables(PAGE)["Notes"].rows
    assert [row[2:] for row in rows] == [(each.reason, each.remedy) for each in notes()]


def test_every_server_is_there() -> None:
    assert [row[0] for row in read_tables(PAGE)["Servers"].rows] == list(NAMES)


def test_the_words_are_those_of_the_template() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for words in re.split(r"^{\w+}$", WORDS, flags=re.MULTILINE):
        assert words.strip() in text


@pytest.mark.parametrize("answer", ["failed", "ok", None])
def test_a_page_is_not_written_of_a_run_that_went_otherwise(answer: str | None) -> None:
    results = yes_and_no()
    expected = ("accept_headers", "daphne")
    results.pop(expected)
    if answer is not None:
        results[expected] = answer
    with pytest.raises(ValueError, match="accept_headers on daphne"):
        render(results)
