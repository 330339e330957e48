"""What is read off the stack of a server; real servers with workers are in tests/asgi/."""

from __future__ import annotations

import multiprocessing
from types import FunctionType
from typing import Any

import pytest

from ws_middleware.net.siblings import has_siblings


def call_from(package: str, *, workers: object, holder: str = "config") -> bool:
    """Ask from a function of a server's module that has an object of it, with its settings."""

    def serve(server: object) -> bool:
        return has_siblings() and server is not None

    own = {"__module__": f"{package}.server"}
    settings = type("Settings", (), {**own, "workers": workers})()
    server = type("Server", (), {**own, holder: settings})()
    names = {"__name__": f"{package}.server", "has_siblings": has_siblings}
    asked: Any = FunctionType(serve.__code__, names)
    return bool(asked(server))


@pytest.fixture
def is_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "parent_process", object)


def test_there_are_none_where_no_server_is() -> None:
    assert not has_siblings()


@pytest.mark.parametrize(
    ("workers", "several"), [(1, False), (2, True), (None, False), ("2", False)]
)
def test_gunicorn_says_how_many_there_are(workers: object, several: bool) -> None:  # noqa: FBT001
    assert call_from("gunicorn", workers=workers, holder="cfg") is several


@pytest.mark.usefixtures("is_child")
@pytest.mark.parametrize("package", ["uvicorn", "hypercorn", "granian"])
def test_in_a_child_of_multiprocessing_the_others_do(package: str) -> None:
    assert call_from(package, workers=2)
    assert not call_from(package, workers=1)


@pytest.mark.parametrize("package", ["uvicorn", "hypercorn", "granian"])
def test_a_number_that_nobody_has_started_is_none(package: str) -> None:
    assert not call_from(package, workers=4)


@pytest.mark.usefixtures("is_child")
def test_what_is_called_workers_elsewhere_says_nothing() -> None:
    assert not call_from("celery", workers=8)
