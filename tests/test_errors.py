from __future__ import annotations

import re

import pytest

from ws_middleware import errors
from ws_middleware.errors import (
    BadMessage,
    ConfigError,
    ConnectionClosed,
    MessageTooBig,
    Refused,
    TooManyRooms,
    WebSocketError,
)

_LINE = re.compile(
    r"^    (?P<branch>[├└]── )?(?P<name>\w+)(?: +\(also (?P<also>\w+)\))?", re.MULTILINE
)


def drawn() -> dict[str, tuple[str, ...]]:
    """The tree as the docstring draws it: name to the names of its bases."""
    assert errors.__doc__ is not None
    found: dict[str, tuple[str, ...]] = {}
    for line in _LINE.finditer(errors.__doc__):
        root = ("WebSocketError",) if line["branch"] else ("Exception",)
        found[line["name"]] = root + ((line["also"],) if line["also"] else ())
    return found


def test_the_tree_is_the_one_in_the_docstring() -> None:
    real = {
        name: tuple(base.__name__ for base in each.__bases__)
        for name, each in vars(errors).items()
        if isinstance(each, type)
    }
    assert real == drawn()


def test_all_is_the_whole_tree() -> None:
    assert sorted(errors.__all__) == sorted(drawn())


@pytest.mark.parametrize("kind", [ConfigError, BadMessage, MessageTooBig])
def test_what_is_a_value_error_too(kind: type[Exception]) -> None:
    assert issubclass(kind, WebSocketError)
    assert issubclass(kind, ValueError)


def test_what_is_no_value_error() -> None:
    for kind in (ConnectionClosed, Refused, TooManyRooms):
        assert issubclass(kind, WebSocketError)
        assert not issubclass(kind, ValueError)


@pytest.mark.parametrize(
    ("error", "text", "reason"),
    [
        (ConnectionClosed(1000, "bye"), "1000 bye", "bye"),
        (ConnectionClosed(1006), "1006", ""),
    ],
)
def test_a_closed_connection_says_why(error: ConnectionClosed, text: str, reason: str) -> None:
    assert str(error) == text
    assert (error.code, error.reason) == (int(text[:4]), reason)


def test_refused_by_default() -> None:
    refused = Refused()
    assert (refused.status, refused.code) == (403, "refused")
    assert (refused.headers, refused.body, refused.why) == ((), b"", "")
    assert str(refused) == "403 refused"


def test_refused_in_full_does_not_show_the_log_line() -> None:
    refused = Refused(401, "who", headers=[("A", "b")], body=b"x", why="SECRET")
    assert refused.headers == (("A", "b"),)
    assert refused.body == b"x"
    assert str(refused) == "401 who"
    assert "SECRET" not in repr(refused)


@pytest.mark.parametrize("status", [400, 401, 599])
def test_refused_takes_an_error_status(status: int) -> None:
    assert Refused(status).status == status


@pytest.mark.parametrize("status", [0, 101, 200, 302, 399, 600, -1])
def test_refused_takes_no_other_status(status: int) -> None:
    with pytest.raises(ValueError) as caught:
        Refused(status)
    assert str(caught.value) == (
        f"Refused(status=...) takes an HTTP error status, 400 to 599, not {status}"
    )
