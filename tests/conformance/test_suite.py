"""The harness itself: what it asks of the suite, and what it makes of the answers."""

from __future__ import annotations

import datetime as dt
import json
import stat
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pytest

from . import suite as suite_module
from .errors import HarnessError
from .grading import PUBLISHED_REFUSALS, Report, Verdict, grade, worse_of
from .python27 import clean_environment, find_python27, ready_wstest
from .results_page import BEGIN, END, Row, render, replace_block
from .server_process import running

if TYPE_CHECKING:
    from pathlib import Path

#: Group 9 of the suite: how many cases each of its parts has.
GROUP_9 = {1: 6, 2: 6, 3: 9, 4: 9, 5: 6, 6: 6, 7: 6, 8: 6}


def entry(behavior: str = "OK", close: str = "OK", code: int | None = 1000) -> dict[str, object]:
    """Make a case's entry as the suite's index has it."""
    return {"behavior": behavior, "behaviorClose": close, "remoteCloseCode": code}


def executable(path: Path) -> Path:
    """Make a file that looks like a program."""
    path.parent.mkdir(parents=True)
    path.touch()
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def nothing_on_path(_: str) -> None:
    """Stand in for `shutil.which` on a machine that has nothing."""


# --- grading ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behavior", "close", "verdict"),
    [
        ("OK", "OK", Verdict.OK),
        ("OK", "INFORMATIONAL", Verdict.OK),
        ("INFORMATIONAL", "INFORMATIONAL", Verdict.INFORMATIONAL),
        ("NON-STRICT", "OK", Verdict.NON_STRICT),
        ("UNIMPLEMENTED", "OK", Verdict.UNIMPLEMENTED),
        ("FAILED", "OK", Verdict.FAILED),
        ("OK", "FAILED", Verdict.FAILED),
        ("OK", "WRONG CODE", Verdict.FAILED),
        ("NON-STRICT", "UNCLEAN", Verdict.FAILED),
        ("a word of a later suite", "OK", Verdict.FAILED),
    ],
)
def test_the_worse_of_verdict_and_close_counts(behavior: str, close: str, verdict: Verdict) -> None:
    assert worse_of(behavior, close) is verdict


def test_cases_are_in_the_order_of_their_numbers() -> None:
    report = grade({"10.1.1": entry(), "2.10": entry(), "2.9": entry()})

    assert [case.id for case in report.cases] == ["2.9", "2.10", "10.1.1"]


@pytest.mark.parametrize(
    ("behavior", "passed"),
    [
        ("OK", True),
        ("INFORMATIONAL", True),
        ("UNIMPLEMENTED", True),
        ("NON-STRICT", False),
        ("FAILED", False),
    ],
)
def test_failed_and_non_strict_fail_the_run(behavior: str, *, passed: bool) -> None:
    assert grade({"1.1.1": entry(behavior)}).passed is passed


def test_an_unreadable_entry_is_an_error() -> None:
    with pytest.raises(HarnessError, match=r"1\.1\.1"):
        grade({"1.1.1": "OK"})


def test_a_run_prints_the_cases_worth_a_look_and_a_summary() -> None:
    report = grade(
        {
            "1.1.1": entry(),
            "7.1.6": entry("INFORMATIONAL"),
            "3.2": entry("NON-STRICT", code=1002),
            "9.3.1": entry("FAILED", "FAILED", 1009),
        },
        ["9.3.*"],
        seconds=2.0,
    )

    assert report.lines() == [
        "3.2      NON-STRICT, close OK, code 1002",
        "9.3.1    FAILED (refused, as published), close FAILED, code 1009",
    ]
    assert report.summary() == (
        "4 cases in 2 s: 1 OK, 1 INFORMATIONAL, 0 UNIMPLEMENTED, 1 NON-STRICT, 0 FAILED, "
        "1 refused as published, 0 stale: FAIL"
    )


# --- the list of refusals -----------------------------------------------------------------------


def test_the_published_list_has_24_cases() -> None:
    ids = [f"9.{part}.{n}" for part, size in GROUP_9.items() for n in range(1, size + 1)]

    refused = [id_ for id_ in ids if any(fnmatchcase(id_, p) for p in PUBLISHED_REFUSALS)]

    assert len(refused) == 24


def test_a_published_refusal_passes() -> None:
    report = grade({"9.3.1": entry("FAILED", "FAILED", 1009)}, ["9.3.*"])

    assert report.passed
    assert [case.id for case in report.refused] == ["9.3.1"]
    assert report.count(Verdict.FAILED) == 0


def test_a_refusal_that_is_not_published_fails() -> None:
    report = grade({"9.5.1": entry("FAILED", "FAILED", 1009)}, ["9.3.*"], partial=True)

    assert [case.id for case in report.failures] == ["9.5.1"]


@pytest.mark.parametrize("code", [None, 1000, 1006, 1011])
def test_only_close_code_1009_is_a_refusal(code: int | None) -> None:
    report = grade({"9.3.1": entry("FAILED", "FAILED", code)}, ["9.3.*"])

    assert [case.id for case in report.failures] == ["9.3.1"]
    assert report.stale == ()


def test_a_published_refusal_that_passes_is_stale_and_fails() -> None:
    index = {"9.3.1": entry("FAILED", "FAILED", 1009), "9.3.2": entry()}

    report = grade(index, ["9.3.*"])

    assert report.stale == ("9.3.2 (OK)",)
    assert not report.passed
    assert report.lines()[-1] == "stale refusal: 9.3.2 (OK)"


def test_a_pattern_without_a_case_is_stale_unless_the_run_is_partial() -> None:
    assert grade({"1.1.1": entry()}, ["9.99.*"]).stale == ("9.99.* (no such case ran)",)
    assert grade({"1.1.1": entry()}, ["9.99.*"], partial=True).passed


# --- what is asked of the suite -----------------------------------------------------------------


def test_the_spec_names_server_cases_and_reports(tmp_path: Path) -> None:
    spec = suite_module.build_spec("raised", "ws://127.0.0.1:9/echo", ("1.*", "7.3.1"), tmp_path)

    assert json.loads(json.dumps(spec)) == {
        "outdir": str(tmp_path),
        "servers": [{"agent": "raised", "url": "ws://127.0.0.1:9/echo"}],
        "cases": ["1.*", "7.3.1"],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }


def test_a_set_is_a_name_or_a_list_of_cases() -> None:
    assert suite_module.select_cases("core")[-1] == "9.*"
    assert len(suite_module.select_cases("fast")) == 9 + 29
    assert suite_module.select_cases("full")[-2:] == ("12.*", "13.*")
    assert suite_module.select_cases("1.*, 7.3.1") == ("1.*", "7.3.1")
    assert suite_module.SETS.keys() == suite_module.SET_SIZES.keys()


@pytest.mark.parametrize("name", ["", ",", "ful", "1.x", "1..2"])
def test_any_other_set_is_an_error(name: str) -> None:
    with pytest.raises(HarnessError, match="neither a set"):
        suite_module.select_cases(name)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_server_on_this_machine_may_be_tested(host: str) -> None:
    url = f"ws://{host}:8001/echo"

    assert suite_module.check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "ws://example.com/echo",
        "ws://127.0.0.1.example.com/echo",
        "ws://localhost@example.com/echo",
        "wss://127.0.0.1/echo",
        "http://127.0.0.1/echo",
        "",
    ],
)
def test_any_other_server_may_not(url: str) -> None:
    with pytest.raises(HarnessError, match="not a ws:// address on this machine"):
        suite_module.check_url(url)


def test_the_directory_is_the_argument_else_the_variable_else_the_default(tmp_path: Path) -> None:
    env = {"AUTOBAHN_DIR": str(tmp_path / "variable")}

    assert suite_module.suite_directory(tmp_path, env) == tmp_path
    assert suite_module.suite_directory(None, env) == tmp_path / "variable"
    assert suite_module.suite_directory(None, {}) == suite_module.ROOT / ".cache" / "autobahn"


def test_the_index_is_read_for_one_agent(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"raised": {"1.1.1": entry()}, "other": {}}))

    assert suite_module.read_index(path, "raised", 1) == {"1.1.1": entry()}


def test_a_run_that_is_missing_or_cut_short_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    with pytest.raises(HarnessError, match="0 cases ran, not 301"):
        suite_module.read_index(path, "raised", 301)

    path.write_text(json.dumps({"raised": {"1.1.1": entry()}}))
    with pytest.raises(HarnessError, match="1 cases ran, not 301"):
        suite_module.read_index(path, "raised", 301)


# --- Python 2.7 ---------------------------------------------------------------------------------


def test_python27_is_the_one_named(tmp_path: Path) -> None:
    named = executable(tmp_path / "bin" / "some-python")
    executable(tmp_path / "versions" / "2.7.18" / "bin" / "python2.7")
    env = {"PYTHON27": str(named), "PYENV_ROOT": str(tmp_path)}

    assert find_python27(env, nothing_on_path) == named


def test_python27_is_else_the_one_of_pyenv(tmp_path: Path) -> None:
    executable(tmp_path / "versions" / "3.11.7" / "bin" / "python2.7")
    pyenvs = executable(tmp_path / "versions" / "2.7.18" / "bin" / "python2.7")

    assert find_python27({"PYENV_ROOT": str(tmp_path)}, lambda _: "/on/path") == pyenvs


def test_python27_is_else_the_one_on_path(tmp_path: Path) -> None:
    found = find_python27({"PYENV_ROOT": str(tmp_path)}, lambda name: f"/on/path/{name}")

    assert str(found) == "/on/path/python2.7"


def test_no_python27_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="set PYTHON27 to its path"):
        find_python27({"PYENV_ROOT": str(tmp_path)}, nothing_on_path)


def test_a_python27_that_is_no_program_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="not a program"):
        find_python27({"PYTHON27": str(tmp_path / "absent")}, nothing_on_path)


def test_another_python_is_an_error_and_leaves_no_stamp(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="set-up of the suite failed"):
        ready_wstest(tmp_path, {"PYTHON27": sys.executable})

    assert list(tmp_path.glob("ready-*")) == []


def test_this_pythons_packages_do_not_leak() -> None:
    assert clean_environment({"PYTHONPATH": "x", "PYTHONHOME": "y", "HOME": "z"}) == {"HOME": "z"}


# --- the server's process -----------------------------------------------------------------------


def python(code: str) -> list[str]:
    """Return the command that runs `code`."""
    return [sys.executable, "-c", code]


def test_a_server_gives_its_port_and_is_stopped(tmp_path: Path) -> None:
    code = "import time; print(4711, flush=True); time.sleep(60)"

    with running(python(code), tmp_path / "log") as port:
        assert port == 4711


@pytest.mark.parametrize("code", ["raise SystemExit('no port')", "print('no port')"])
def test_a_server_without_a_port_is_an_error(tmp_path: Path, code: str) -> None:
    with (
        pytest.raises(HarnessError, match="no port"),
        running(python(code), tmp_path / "log"),
    ):
        pytest.fail("it must not get here")


# --- the page -----------------------------------------------------------------------------------


def test_the_page_shows_the_worst_run() -> None:
    good, bad = grade({"1.1.1": entry()}), grade({"1.1.1": entry("FAILED")})

    block = render([Row("raised", [good, bad, good])], "core", dt.date(2025, 1, 2))

    assert "2025-01-02 (set `core`)" in block
    assert block.splitlines()[-1] == "| raised | 3 | 1 | 0 | 0 | 0 | 0 | 1 | 0 | **FAIL** |"


def test_a_passing_row_says_so() -> None:
    assert Row("default", [Report(())]).cells()[-1] == "pass"


def test_only_the_block_of_the_page_is_replaced() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"

    assert replace_block(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


@pytest.mark.parametrize("page", ["", BEGIN, END])
def test_a_page_without_markers_is_an_error(page: str) -> None:
    with pytest.raises(HarnessError, match="markers"):
        replace_block(page, "new")


def test_the_real_page_has_its_markers_and_names_every_refusal() -> None:
    text = (suite_module.ROOT / "docs" / "conformance.md").read_text()

    assert replace_block(text, "new").count("new\n<!--") == 1
    for pattern in PUBLISHED_REFUSALS:
        assert pattern.replace("*", "1") in text
