"""The table of settings by door: every setting is in it, and options are those of the servers."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from tests.docs.doors import PAGE, replaced
from ws_middleware import Heartbeat, Limits, ServerLimits, WebSockets
from ws_middleware.config import Policy
from ws_middleware.door_table import EVERYWHERE, TABLE
from ws_middleware.doors import Door, Server, Who

if TYPE_CHECKING:
    from ws_middleware.doors import Cell

#: Settings that are groups of others.
GROUPS = {"limits": Limits, "server_limits": ServerLimits, "heartbeat": Heartbeat}


def test_the_page_has_the_table_as_the_code_has_it() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == replaced(page), "python -m tests.docs.doors writes it"


def test_a_page_without_a_place_for_it_is_told() -> None:
    with pytest.raises(ValueError, match=r"python -m tests\.docs\.doors"):
        replaced("# A page\n")


def test_every_setting_has_a_row_or_is_alike_everywhere() -> None:
    own = inspect.signature(WebSockets).parameters
    settings = {name for name, each in own.items() if each.kind is each.KEYWORD_ONLY}
    settings |= set(Policy.__annotations__)
    rows = {each for each in TABLE if "." not in each} - {"heartbeat=None"}
    assert rows | set(EVERYWHERE) == settings - set(GROUPS)
    assert rows.isdisjoint(EVERYWHERE)


@pytest.mark.parametrize("kind", GROUPS.values())
def test_every_field_has_a_row(kind: type[Limits | ServerLimits | Heartbeat]) -> None:
    name = kind.__name__
    rows = [each.partition(".")[2] for each in TABLE if each.startswith(f"{name}.")]
    assert rows == [each.name for each in fields(kind)]


def test_every_row_has_a_cell_for_each_door_and_says_why_where_a_setting_may_not_hold() -> None:
    for setting, row in TABLE.items():
        assert list(row.cells) == list(Door), setting
        for cell in row.cells.values():
            if cell.who in {Who.SERVERS, Who.NOBODYS} or cell.holds is not None:
                assert cell.why or row.why, setting


# --- the options are the servers' own ------------------------------------------------------------

#: Modules that print what can be set, by door.
COMMANDS = {
    Door.WSGI: "gunicorn",
    Door.UVICORN_OURS: "uvicorn",
    Door.UVICORN: "uvicorn",
    Door.HYPERCORN: "hypercorn",
    Door.DAPHNE: "daphne",
    Door.GRANIAN: "granian",
    Door.GUNICORN: "gunicorn",
}


@cache
def flags(module: str) -> set[str]:
    """The words of what a server prints when it is asked for help."""
    command = [sys.executable, "-m", module, "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return set(printed.stdout.replace("[", " ").replace("]", " ").split())


def settings_of(door: Door) -> Any:
    """An object with a server's settings as they are by default, as it has it on the stack."""
    if door is Door.DAPHNE:
        return import_module("daphne.server").Server(None, endpoints=["tcp:0"])
    name = {Door.GUNICORN: "gunicorn", Door.WSGI: "gunicorn", Door.HYPERCORN: "hypercorn"}.get(door)
    config = import_module(f"{name or 'uvicorn'}.config").Config
    return config() if name else config("app:app")


CELLS = {
    f"{setting}-{door.name}": (door, cell)
    for setting, row in TABLE.items()
    for door, cell in row.cells.items()
    if cell.option
}
READ = {name: each for name, each in CELLS.items() if each[1].setting}


@pytest.mark.parametrize(("door", "cell"), CELLS.values(), ids=CELLS)
def test_an_option_is_one_that_the_server_has(door: Door, cell: Cell) -> None:
    for option in cell.option.split(" and "):
        if option.startswith("-"):
            assert option in flags(COMMANDS[door])
        else:
            assert hasattr(settings_of(door), option)


@pytest.mark.parametrize(("door", "cell"), READ.values(), ids=READ)
def test_a_bound_that_is_read_is_there_under_its_name(door: Door, cell: Cell) -> None:
    settings = settings_of(door)
    assert hasattr(settings, cell.setting)
    read = getattr(settings, cell.setting)
    if cell.bound is not None and door is not Door.DAPHNE:  # whose command has other defaults
        assert read == cell.bound
    server = Server(door, door.value, lambda name: getattr(settings, name))
    if read is not None:
        assert cell.keeps(read, server), "what the server has set is what it does"
