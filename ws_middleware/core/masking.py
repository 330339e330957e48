"""Taking the mask off what a client has sent (RFC 6455 section 5.3).

In C where the package `websockets` is installed (the extra "speed"): from a few kilobytes on that
is twenty times as quick as anything in Python. Else a short payload goes as one large number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SHORT", "unmask_in_c", "unmask_short"]

unmask_in_c: Callable[[bytes, bytes], bytes] | None
try:
    # Not in its documentation, but where its own frames get it from, and always was.
    from websockets.speedups import apply_mask as unmask_in_c
except ImportError:
    unmask_in_c = None

#: Up to so many bytes one large number is quicker than anything else in Python.
SHORT: Final = 1024


def unmask_short(payload: bytes, key: bytes) -> bytes:
    """Take the mask off: the payload and its key as one number each."""
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    number = int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")
    return number.to_bytes(size, "little")
