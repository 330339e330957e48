"""Close codes and reasons: what may be in a close frame of ours."""

from __future__ import annotations

from typing import Final

__all__ = ["check_close"]

#: What an endpoint may send: RFC 6455 section 7.4.1 and 7.4.2, and the IANA registry.
_SENDABLE: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})

#: RFC 6455 section 5.5: a control frame carries 125 bytes, and two of them are the code.
_REASON_BYTES: Final = 123


def check_close(code: int, reason: str) -> None:
    """Refuse what must not be in a close frame.

    Raises:
        ValueError: the code is none that an endpoint may send (RFC 6455 section 7.4), or the
            reason is over 123 bytes of UTF-8 (section 5.5).
    """
    if isinstance(code, bool) or code not in _SENDABLE:
        msg = (
            f"close code {code!r} cannot be sent: 1000-1003, 1007-1014 and 3000-4999 can "
            "(4000-4999 are yours)"
        )
        raise ValueError(msg)
    size = len(reason.encode())
    if size > _REASON_BYTES:
        msg = f"a close reason has at most {_REASON_BYTES} bytes of UTF-8, not {size}"
        raise ValueError(msg)
