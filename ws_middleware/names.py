"""Ids of users and names of rooms are text; this is the one place that says which text."""

from __future__ import annotations

import re
from uuid import UUID

__all__ = ["Name", "as_name", "is_name"]

#: What is taken where a name is meant; it is text from then on.
Name = str | int | UUID

#: The longest id or name, in bytes of UTF-8.
NAME_BYTES = 255

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def is_name(text: str) -> bool:
    """Whether `text` can be a room name or a user id: 1 to 255 bytes of UTF-8, no controls."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return 1 <= size <= NAME_BYTES and _CONTROL.search(text) is None


def as_name(value: object, what: str) -> str:
    """Return `value` as the text of an id or a name; `what` ("user id", "room") is for the error.

    Raises:
        TypeError: it is not `str`, `int` or `UUID` (a `bool` is not an id either).
        ValueError: it is not 1 to 255 bytes of UTF-8 without control characters.
    """
    if isinstance(value, str):
        text = value
    elif isinstance(value, (int, UUID)) and not isinstance(value, bool):
        text = str(value)
    else:
        hint = f"; did you mean {what.split(maxsplit=1)[0]}.id?" if hasattr(value, "id") else ""
        msg = f"{what} must be str, int or UUID, not {type(value).__name__}{hint}"
        raise TypeError(msg)
    if not is_name(text):
        msg = (
            f"{what} must be 1 to {NAME_BYTES} bytes of UTF-8 without control characters, "
            f"not {text[:40]!r}"
        )
        raise ValueError(msg)
    return text
