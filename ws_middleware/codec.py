"""JSON as messages carry it: strict both ways, and never a surprise exception."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from .errors import BadMessage

__all__ = ["dump_json", "load_json"]


def dump_json(value: object) -> str:
    """Return `value` as compact JSON.

    Raises:
        TypeError: it holds what JSON has no form for.
        ValueError: it holds a NaN or an infinity, or itself.
    """
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        msg = "nested too deep for JSON"
    raise ValueError(msg)


def load_json(message: str | bytes) -> Any:  # noqa: ANN401 - JSON is what the peer makes it
    """Return what a message holds.

    Raises:
        BadMessage: it is not JSON (RFC 8259), is nested too deep, or holds a NaN or an infinity,
            written out or by a number too large for a float.
    """
    try:
        text = message if isinstance(message, str) else message.decode()
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
        if "\\u" in text or not text.isascii():
            # A lone surrogate can be written as an escape, and sent on it would raise.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        # Not the error's own text: json puts the document into it, and this one ends in logs.
        msg = f"not JSON: {type(error).__name__}"
        raise BadMessage(msg) from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(digits)
    return number
