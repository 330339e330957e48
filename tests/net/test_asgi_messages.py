"""Events as every server takes them: codes, reasons, headers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_middleware.codes import check_close
from ws_middleware.net.asgi_messages import (
    accept_event,
    close_event,
    denial_events,
    legal_close,
    refusal_of_close,
)
from ws_middleware.types import Refusal

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(),
    st.floats(),
    st.binary(),
    st.lists(st.none()),
)


@given(ANYTHING, ANYTHING)
def test_whatever_an_app_says_becomes_a_close_that_may_be_sent(
    code: object, reason: object
) -> None:
    check_close(*legal_close(code, reason))


@given(st.integers(1000, 4999), st.text(alphabet="aé€😀\ud800"))
def test_a_reason_is_cut_between_characters(code: int, reason: str) -> None:
    _, cut = legal_close(code, reason)
    assert len(cut.encode()) <= 123
    assert reason.replace("\ud800", "?").startswith(cut)
    assert len(cut) == len(reason) or len(cut.encode()) > 119


@given(st.integers(1000, 4999))
def test_daphne_is_given_only_codes_that_it_takes(code: int) -> None:
    sent = close_event(code, "", {})["code"]
    assert sent == 1000 or 3000 <= sent <= 4999
    assert close_event(code, "", {"scheme": "ws"})["code"] == legal_close(code, "")[0]


@pytest.mark.parametrize(
    "header",
    [("X: y", "z"), ("", "z"), ("X", "a\nb"), ("X", "€"), ("X", "\x7f"), ("Ä", "z"), ("X\n", "")],
)
def test_a_header_that_http_does_not_allow_is_told_and_not_sent(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="does not allow"):
        accept_event(None, [header])
    with pytest.raises(ValueError, match="does not allow"):
        denial_events(Refusal(403, "x", "x", headers=(header,)), {"extensions": DENIAL})


DENIAL: dict[str, Any] = {"websocket.http.response": {}}


def test_the_value_of_a_bad_header_is_in_no_exception() -> None:
    with pytest.raises(ValueError, match="'set-cookie'") as raised:
        accept_event(None, [("set-cookie", "secret\n")])
    assert "secret" not in str(raised.value)


def test_headers_are_lower_case_latin_1_and_trimmed() -> None:
    assert accept_event("a", [("X-One", " é\t")])["headers"] == [(b"x-one", b"\xe9")]


@pytest.mark.parametrize(
    ("code", "status"), [(4401, 401), (1012, 503), (1013, 503), (4409, 503), (1000, 503)]
)
def test_a_close_before_the_accept_has_a_status(code: int, status: int) -> None:
    assert refusal_of_close(code, "why").status == status
