"""What kind of thing an app gave us to call: through partials, methods and callable objects."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["is_async", "name_of", "unwrapped"]


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function whose kind counts."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        return type(function).__call__
    return function


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(unwrapped(function))


def name_of(function: object) -> str:
    """Return a name for logs and errors."""
    if isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", type(function).__qualname__)
