"""The scripts of bench/ run, with tiny numbers. What they measure in time is not looked at."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bench.__main__ import SCRIPTS
from tests.docs.pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TINY = ["--rounds", "1"]
TINY_HTTP = ["--sockets", "12", "--seconds", "0.5", "--rate", "20", "--attempts", "1"]


def run(folder: Path, name: str, *options: str) -> tuple[str, dict[str, Any]]:
    """Return what a script prints, and its figures."""
    path = folder / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", name, *TINY, *options, "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text())


def test_a_request_that_is_not_ours(tmp_path: Path) -> None:
    out, figures = run(tmp_path, "wsgi_passthrough", "--calls", "100")
    assert "| bare us | wrapped us | added us |" in out
    assert len(figures["added_us"]) == 1
    assert figures["versions"]["ws-middleware"] != "none"


@pytest.mark.slow
def test_idle_sockets_beside_http(tmp_path: Path) -> None:
    out, figures = run(tmp_path, "wsgi_idle", *TINY_HTTP)
    assert "| threads of the worker | " in out
    before, after = figures["threads"][0]
    assert before == after
    check_loads(figures, 4)
    assert figures["received_per_second"]["idle"] == [0]
    assert figures["received_per_second"]["1 message/s each, spread"][0] > 0
    assert figures["received_per_second"]["1 message/s each, at once"][0] > 0
    # A worker thread for a socket: with four of them in use, nobody is left to answer.
    assert figures["flask_sock"] == {"asked": 8, "opened": 4, "http": False}


@pytest.mark.slow
def test_events_that_block_beside_http(tmp_path: Path) -> None:
    _, figures = run(tmp_path, "wsgi_events", *TINY_HTTP, "--messages", "20")
    check_loads(figures, 3)
    assert figures["received_per_second"]["20 blocking events a second"][0] > 0


def check_loads(figures: dict[str, Any], conditions: int) -> None:
    """Every request of every condition was answered, with keep-alive and without."""
    assert len(figures["loads"]) == 2 * conditions
    for each in figures["loads"]:
        (one,) = each["rounds"]
        assert (one["answers"], one["errors"]) == (10, 0), each


@pytest.mark.slow
def test_workers_and_their_shares(tmp_path: Path) -> None:
    _, figures = run(tmp_path, "wsgi_workers", "--sockets", "9", "--workers", "2")
    for kind in ("sync", "gthread --threads 4"):
        for at_once in (1, 20):
            (shares,) = figures[f"{kind}, {at_once} at once"]
            assert len(shares) == 2
            assert sum(shares) == 9


@pytest.mark.slow
def test_opening_sockets_on_several_servers(tmp_path: Path) -> None:
    names = ["waitress, 4 threads", "wsgiref"]
    _, figures = run(tmp_path, "wsgi_connect", "--sockets", "8", "--servers", *names)
    for name in names:
        (one,) = figures[name]
        assert (one["failed"], one["threads_added"]) == (0, 0)


@pytest.mark.slow
def test_sends_to_a_room_whatever_redis_does(tmp_path: Path) -> None:
    out, figures = run(tmp_path, "hub_send", "--sockets", "12", "--sends", "3", "--attempts", "1")
    found = {(each["system"], each["redis"]): each["rounds"][0] for each in figures["found"]}
    for (system, state), sends in found.items():
        # With Redis hanging a view of the others waits for it, for ever; ours never does.
        ends = (system, state) != ("Flask-SocketIO", "stopped")
        assert len(sends["view_us"]) == (3 if ends else 2)
        assert all((each is not None) is ends for each in sends["view_us"])
        assert None not in sends["all_ms"]
        assert (sends["rate"] is not None) is ends
    states = ["up", "stopped", "refusing"]
    wanted = {("ours", "none"), *itertools.product(["ours", "Flask-SocketIO"], states)}
    if figures["missing"]:
        assert "CI" not in os.environ, figures["missing"]
        assert all(f"Not measured: {what}" in out for what in figures["missing"])
        pytest.skip(f"missing: {figures['missing']}")
    assert set(found) == wanted


@pytest.mark.slow
def test_echoes(tmp_path: Path) -> None:
    out, figures = run(tmp_path, "echo", "--sockets", "2", "--messages", "3")
    assert "| 16 bytes, 8 in flight | server us an echo | ratio to the first |" in out
    loads = [figures[name] for name in figures if "in flight" in name]
    assert [len(each) for each in loads] == [8, 8, 8]
    assert all(len(rounds) == 1 for each in loads for rounds in each.values())


def test_exactly_the_scripts_there_are_can_be_run_and_are_explained() -> None:
    there = {path.stem for path in (ROOT / "bench").glob("*.py") if "__" not in path.stem}
    assert set(SCRIPTS) == there
    page = (ROOT / "bench" / "README.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == there


def test_an_unknown_name_is_told_which_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "nothing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no script is called 'nothing'" in done.stderr
    assert "wsgi_idle" in done.stderr
