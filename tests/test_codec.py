from __future__ import annotations

import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ws_middleware.codec import dump_json, load_json
from ws_middleware.errors import BadMessage


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('{"a":[1,2.5,true,null,"x"]}', {"a": [1, 2.5, True, None, "x"]}),
        (b'{"a":1}', {"a": 1}),
        ('"\xe9\u65e5"', "\xe9\u65e5"),
        ('"\xe9\u65e5"'.encode(), "\xe9\u65e5"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        (" 1 ", 1),
        ("-0.0", -0.0),
        ("1e308", 1e308),
        ("1e-999", 0.0),
        ("9" * 4000, int("9" * 4000)),
    ],
)
def test_json_is_read(message: str | bytes, expected: object) -> None:
    assert load_json(message) == expected


BAD: list[Any] = [
    pytest.param("", id="empty"),
    pytest.param(b"", id="empty-bytes"),
    pytest.param("SECRET", id="no-json"),
    pytest.param("{'SECRET': 1}", id="python"),
    pytest.param('{"SECRET": 1,}', id="comma-behind"),
    pytest.param('["SECRET"] x', id="more-behind"),
    pytest.param('"SECRET\n"', id="line-feed-in-text"),
    pytest.param("NaN", id="nan"),
    pytest.param("[Infinity]", id="infinity"),
    pytest.param('{"a":-Infinity}', id="minus-infinity"),
    pytest.param("1e999", id="1e999"),
    pytest.param("-1e999", id="minus-1e999"),
    pytest.param("9" * 400 + ".0", id="400-digits-and-a-point"),
    pytest.param("9" * 5000, id="5000-digits"),
    pytest.param("[" * 100_000, id="100000-open"),
    pytest.param("[" * 100_000 + "]" * 100_000, id="100000-nested"),
    pytest.param('{"a":' * 100_000 + "1" + "}" * 100_000, id="100000-objects"),
    pytest.param(b'"\xff"', id="invalid-utf-8"),
    pytest.param(b'"\xc3"', id="cut-utf-8"),
    pytest.param(b'"\xc0\x80"', id="overlong-utf-8"),
    pytest.param(b'"\xed\xa0\x80"', id="surrogate-in-utf-8"),
    pytest.param('"a"'.encode("utf-16-le"), id="utf-16"),
    pytest.param('"a"'.encode("utf-32"), id="utf-32"),
    pytest.param('"\\ud800"', id="lone-surrogate-escaped"),
    pytest.param('"\\udc00\\ud800"', id="surrogates-in-the-wrong-order"),
    pytest.param('{"\\ud800":1}', id="lone-surrogate-in-a-name"),
    pytest.param('[["x\\udfff"]]', id="lone-surrogate-deep-inside"),
    pytest.param(b'"\\ud800"', id="lone-surrogate-escaped-in-bytes"),
    pytest.param('"\ud800"', id="lone-surrogate-as-such"),
]


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_json_is_a_bad_message(message: str | bytes) -> None:
    with pytest.raises(BadMessage, match=r"^not JSON: "):
        load_json(message)


def test_the_error_does_not_quote_the_message() -> None:
    for message in ("SECRET", '{"SECRET": SECRET}', b'\xff"SECRET"', '["SECRET"] x'):
        with pytest.raises(BadMessage) as caught:
            load_json(message)
        assert "SECRET" not in "".join(traceback.format_exception(caught.value))
        assert "SECRET" not in str(caught.value)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text() | st.binary())
def test_any_message_is_json_or_bad(message: str | bytes) -> None:
    try:
        load_json(message)
    except BadMessage as error:
        assert str(error).startswith("not JSON: ")  # noqa: PT017 - most examples do not raise


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 2.5, True, None]}, '{"a":[1,2.5,true,null]}'),
        ("\xe9\u65e5", '"\xe9\u65e5"'),
        ((1, 2), "[1,2]"),
        ({1: 2}, '{"1":2}'),
    ],
)
def test_json_is_compact_and_plain_utf_8(value: object, expected: str) -> None:
    assert dump_json(value) == expected


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), {"a": object()}, {(1,): 2}, 1j])
def test_what_json_has_no_form_for_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError):
        dump_json(value)


_itself: list[object] = []
_itself.append(_itself)

_deep: list[object] = []
for _ in range(100_000):
    _deep = [_deep]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(float("nan"), id="nan"),
        pytest.param([float("inf")], id="infinity"),
        pytest.param({float("nan"): 1}, id="nan-as-a-name"),
        pytest.param(_itself, id="itself"),
        pytest.param(10**5000, id="5000-digits"),
        pytest.param(_deep, id="100000-nested"),
    ],
)
def test_what_json_cannot_carry_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError):
        dump_json(value)


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(derandomize=True, deadline=None)
@given(_values)
def test_what_is_written_can_be_read(value: object) -> None:
    text = dump_json(value)
    assert load_json(text) == value
    assert load_json(text.encode()) == value
