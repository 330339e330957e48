from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.asgi import page
from tests.asgi.servers import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.asgi.servers import Running

#: A file for the page of this run's results; its cells are those of the committed one, or it fails.
PAGE = "MATRIX_PAGE"

_CELL = re.compile(r"tests/asgi/test_(doors|peers)\.py::test_(?P<question>\w+)\[(?P<server>.+)\]")

_results: dict[tuple[str, str], str] = {}


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """One server of the matrix, which all questions to it share."""
    with run(request.param, tmp_path_factory.mktemp("server")) as running:
        yield running


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the answer of a cell: yes, a no that is known, or anything else."""
    cell = _CELL.search(report.nodeid)
    if report.when == "call" and cell is not None:
        known = "no" if hasattr(report, "wasxfail") else report.outcome
        _results[cell["question"], cell["server"]] = "ok" if report.passed else known


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = os.environ.get(PAGE)
    if path and not session.config.getoption("collectonly"):
        Path(path).write_text(page.render(_results), encoding="utf-8")
