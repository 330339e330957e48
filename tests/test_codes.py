from __future__ import annotations

from typing import Any

import pytest

from ws_middleware.codes import check_close


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4401, 4999]
)
def test_what_an_endpoint_may_send(code: int) -> None:
    check_close(code, "")


@pytest.mark.parametrize(
    "code",
    [-1, 0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535, 65_536, True, "1000"],
)
def test_other_codes_are_told_in_words(code: Any) -> None:
    with pytest.raises(ValueError) as caught:
        check_close(code, "")
    assert str(caught.value) == (
        f"close code {code!r} cannot be sent: 1000-1003, 1007-1014 and 3000-4999 can "
        "(4000-4999 are yours)"
    )


@pytest.mark.parametrize(("character", "fits"), [("x", 123), ("\xe9", 61), ("\U0001f600", 30)])
def test_a_reason_has_123_bytes(character: str, fits: int) -> None:
    check_close(1000, character * fits)
    size = len(character.encode()) * (fits + 1)
    with pytest.raises(ValueError) as caught:
        check_close(1000, character * (fits + 1))
    assert str(caught.value) == f"a close reason has at most 123 bytes of UTF-8, not {size}"


def test_a_reason_is_utf_8() -> None:
    with pytest.raises(ValueError):
        check_close(1000, "\ud800")
