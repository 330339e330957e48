"""Every block of every page does what the page says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import PAGES, ROOT, Block, read_blocks
from tests.docs.runner import Runner

if TYPE_CHECKING:
    from pathlib import Path


#: What takes more than five seconds.
SLOW = {"docs/runbook.md", "docs/scaling.md", "docs/testing.md"}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for page in PAGES
        for name in (page.relative_to(ROOT).as_posix(),)
    ],
)
def test_every_block_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    with Runner(page, tmp_path) as runner:
        runner.run()


def test_the_quick_start_has_20_lines_of_code() -> None:
    (program,) = [block for block in read_blocks(ROOT / "README.md") if block.directive == "serve"]
    assert len([line for line in program.code.splitlines() if line.strip()]) <= 20


def test_the_readme_says_on_line_3_which_python_is_needed() -> None:
    assert "Python >= 3.11" in (ROOT / "README.md").read_text().splitlines()[2]


# --- the tests of the tests ----------------------------------------------------------------------


def run_page(text: str, folder: Path) -> None:
    page = folder / "page.md"
    page.write_text(text)
    with Runner(page, folder) as runner:
        runner.run()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```ruby\n1\n```\n", "no way to check a block in ruby"),
        ("```\n1\n```\n", "no way to check a block in no language"),
        ("  ```python\nassert 1 == 2\n  ```\n", "in the block at page.md:2"),
        ("```python\n1\n", "no ``` for what begins at 1"),
        ("```text\nanything\n```\n", "say in a comment what this text is"),
        ("<!-- test: value 1 + 1 -->\n```text\n3\n```\n", "2"),
        ("<!-- test: value 1 + 1 -->\n```nginx\n3\n```\n", "2"),
        ("<!-- test: value 1 + 1 -->\n```python\n3\n```\n", "2"),
        ("<!-- test: value [1] -->\n```json\n[2]\n```\n", r"\[1\]"),
        ("<!-- test: raises -->\n```python\n1 / 1\n```\n", "DID NOT RAISE"),
        ("<!-- test: run\nassert False\n-->\n", "in the block at page.md:2"),
        ("<!-- test: jump -->\n```python\n```\n", "no directive jump"),
        ("<!-- test: raises -->\nWords.\n", "no block after the comment"),
        ("<!-- test: raises -->\n", "no block after the comment"),
        ("Words <!-- test: raises -->\n", "has its own line"),
        ("```console\n$ make nonsense\n```\n", "make knows no nonsense"),
        ("```console\n$ rm -rf x\n```\n", "not on the list of commands"),
        ("```console\nwords\n```\n", "commands only"),
        ("```sh\nWSM_NONSENSE=1 make test\n```\n", "no variable WSM_NONSENSE"),
        ("```sh\npython nonsense.py\n```\n", "no file nonsense.py"),
        ("```console\n$ ws-middleware dance\n```\n", "ws-middleware takes no dance"),
        ("```console\n$ export WSM_NONSENSE=1\n```\n", "no variable WSM_NONSENSE"),
        ("```console\n$ export A=1 b\n```\n", "export takes variables"),
        ("<!-- test: command -->\n```console\n$ python -c 1/0\n```\n", "ZeroDivisionError"),
        ("<!-- test: command 1 -->\n```console\n$ python -c 1\n```\n", "python -c 1: 0"),
        ("<!-- test: output -->\n```text\nx\n```\n", "no command has been run"),
        ("<!-- test: begin -->\n```console\n$ python -c 'x = 5000'\n```\n", "did not open port"),
        ("```sh\npython -m ws_nonsense\n```\n", "no module ws_nonsense"),
        ("```sh\npython -m pip install -e '.[nonsense]'\n```\n", "no extra nonsense"),
    ],
)
def test_a_page_that_is_wrong_is_found_out(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises((Exception, pytest.fail.Exception), match=complaint):
        run_page(text, tmp_path)


def test_what_a_page_shows_of_an_error_is_checked(tmp_path: Path) -> None:
    block = (
        "<!-- test: raises -->\n```python\nint('x')\n```\n<!-- test: error -->\n```text\n{}\n```\n"
    )
    run_page(block.format("ValueError: invalid literal …: 'x'"), tmp_path)
    with pytest.raises(AssertionError, match="shown: ValueError: something else"):
        run_page(block.format("ValueError: something else"), tmp_path)


def test_what_a_page_shows_of_a_command_is_checked(tmp_path: Path) -> None:
    page = (
        "```console\n$ export A='one  two'\n```\n<!-- test: command -->\n"
        '```console\n$ python -c \'import os; print(os.environ["A"], "-" * 9)\'\n```\n'
        "<!-- test: output -->\n```text\n{}\n```\n"
    )
    run_page(page.format("one two ----"), tmp_path)
    with pytest.raises(AssertionError, match="shown: one ----\nactual: one two --"):
        run_page(page.format("one ----"), tmp_path)


def test_a_page_may_have_a_redis(tmp_path: Path) -> None:
    page = (
        "<!-- test: redis -->\n```python\nfrom redis import Redis\n"
        "Redis.from_url('redis://localhost:6379/0').set('a', 'b')\n```\n"
        "<!-- test: run\nassert redis_server.client.get('a') == b'b'\n-->\n"
    )
    run_page(page, tmp_path)


def test_blocks_are_found_where_they_are(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- test: file a.py -->\n\n```python\nx = 1\n```\n")
    assert read_blocks(page) == [Block("python", "x = 1\n", 6, "file", "a.py")]
