from __future__ import annotations

import functools
from typing import Any

import pytest

from ws_middleware.callables import is_async, name_of, unwrapped


def plain(ws: object) -> None: ...


async def coroutine(ws: object) -> None: ...


class Plain:
    def __call__(self, ws: object) -> None: ...

    def method(self, ws: object) -> None: ...

    async def coroutine(self, ws: object) -> None: ...

    @classmethod
    async def of_class(cls, ws: object) -> None: ...

    @staticmethod
    async def static(ws: object) -> None: ...


class Coroutine:
    async def __call__(self, ws: object) -> None: ...


@functools.wraps(coroutine)
def wrapper(ws: object) -> Any:
    return coroutine(ws)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param(plain, False, id="def"),
        pytest.param(coroutine, True, id="async-def"),
        pytest.param(lambda ws: None, False, id="lambda"),
        pytest.param(Plain().method, False, id="method"),
        pytest.param(Plain().coroutine, True, id="async-method"),
        pytest.param(Plain.of_class, True, id="async-classmethod"),
        pytest.param(Plain.static, True, id="async-staticmethod"),
        pytest.param(Plain(), False, id="object"),
        pytest.param(Coroutine(), True, id="async-object"),
        pytest.param(functools.partial(plain, 1), False, id="partial"),
        pytest.param(functools.partial(coroutine, 1), True, id="async-partial"),
        pytest.param(
            functools.partial(functools.partial(coroutine), 1), True, id="partial-of-partial"
        ),
        pytest.param(functools.partial(Coroutine()), True, id="partial-of-async-object"),
        pytest.param(functools.partial(Plain().coroutine), True, id="partial-of-async-method"),
        pytest.param(wrapper, False, id="def-that-wraps-an-async-def"),
        pytest.param(Coroutine, False, id="a-class"),
        pytest.param(print, False, id="builtin"),
    ],
)
def test_what_is_async(function: Any, expected: bool) -> None:  # noqa: FBT001 - a row
    assert is_async(function) is expected


def test_the_function_whose_kind_counts() -> None:
    assert unwrapped(plain) is plain
    assert unwrapped(functools.partial(functools.partial(plain), 1)) is plain
    assert unwrapped(Coroutine()) is Coroutine.__call__
    assert unwrapped(functools.partial(Plain())) is Plain.__call__


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (plain, "plain"),
        (Plain().method, "Plain.method"),
        (Plain(), "Plain"),
        (Plain, "Plain"),
        (functools.partial(plain, 1), "plain"),
        (functools.partial(Plain(), 1), "Plain"),
        (wrapper, "coroutine"),
        (print, "print"),
    ],
)
def test_names_for_logs(function: object, expected: str) -> None:
    assert name_of(function) == expected
