from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ws_middleware.names import as_name, is_name

ID = UUID("f47ac10b-58cc-4372-a567-0e02b2c3d479")


@dataclass
class User:
    id: int


class Room:
    pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a", True, id="one-letter"),
        pytest.param(" ", True, id="blank"),
        pytest.param("a:b/c*?[]%", True, id="any-punctuation"),
        pytest.param("\u65e5\u672c", True, id="any-script"),
        pytest.param("\u2028", True, id="line-separator-is-no-control"),
        pytest.param("x" * 255, True, id="255-bytes"),
        pytest.param("\U0001f600" * 63 + "xxx", True, id="255-bytes-of-utf-8"),
        pytest.param("", False, id="empty"),
        pytest.param("x" * 256, False, id="256-bytes"),
        pytest.param("\U0001f600" * 64, False, id="256-bytes-of-utf-8"),
        pytest.param("a\x00", False, id="nul"),
        pytest.param("a\nb", False, id="line-feed"),
        pytest.param("a\n", False, id="line-feed-at-the-end"),
        pytest.param("\x1b[0m", False, id="escape"),
        pytest.param("\x1f", False, id="last-of-c0"),
        pytest.param("\x7f", False, id="delete"),
        pytest.param("\x80", False, id="first-of-c1"),
        pytest.param("\x9f", False, id="last-of-c1"),
        pytest.param("\xa0", True, id="after-c1"),
        pytest.param("a\ud800", False, id="lone-surrogate"),
    ],
)
def test_which_text_is_a_name(text: str, expected: bool) -> None:  # noqa: FBT001 - a row
    assert is_name(text) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("ann", "ann"), (7, "7"), (0, "0"), (-1, "-1"), (ID, str(ID)), (10**20, "1" + "0" * 20)],
)
def test_text_numbers_and_uuids_become_text(value: object, expected: str) -> None:
    name = as_name(value, "room")
    assert name == expected
    assert type(name) is str


@pytest.mark.parametrize(
    ("value", "what", "message"),
    [
        pytest.param(
            User(1),
            "user id",
            "user id must be str, int or UUID, not User; did you mean user.id?",
            id="an-object-with-an-id",
        ),
        pytest.param(
            User(1),
            "room",
            "room must be str, int or UUID, not User; did you mean room.id?",
            id="a-room-with-an-id",
        ),
        pytest.param(Room(), "room", "room must be str, int or UUID, not Room", id="no-id"),
        pytest.param(True, "user id", "user id must be str, int or UUID, not bool", id="true"),
        pytest.param(False, "user id", "user id must be str, int or UUID, not bool", id="false"),
        pytest.param(None, "room", "room must be str, int or UUID, not NoneType", id="none"),
        pytest.param(1.0, "room", "room must be str, int or UUID, not float", id="float"),
        pytest.param(b"a", "room", "room must be str, int or UUID, not bytes", id="bytes"),
        pytest.param(("a",), "room", "room must be str, int or UUID, not tuple", id="tuple"),
    ],
)
def test_another_type_is_told_in_words(value: Any, what: str, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        as_name(value, what)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "''"),
        ("a\nb", "'a\\nb'"),
        ("\ud800", "'\\ud800'"),
        ("x" * 300, repr("x" * 40)),
        (10**255, repr("1" + "0" * 39)),
    ],
)
def test_a_text_that_is_no_name_is_told_in_words(text: object, shown: str) -> None:
    with pytest.raises(ValueError) as caught:
        as_name(text, "room")
    assert str(caught.value) == (
        f"room must be 1 to 255 bytes of UTF-8 without control characters, not {shown}"
    )


@settings(derandomize=True, deadline=None)
@given(st.text() | st.integers() | st.uuids())
def test_a_name_is_text_that_is_a_name_or_a_value_error(value: object) -> None:
    try:
        name = as_name(value, "room")
    except ValueError:
        assert not is_name(str(value))
    else:
        assert name == str(value)
        assert is_name(name)
