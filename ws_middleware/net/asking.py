"""Asking the app's own callables: who is it, and may they?

The order of the questions and what the answers mean is written once, as a generator; two drivers
put the questions: one on an event loop, one in a thread that may block (a WSGI worker's).
"""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.callables import is_async, name_of
from ws_middleware.errors import Refused
from ws_middleware.gate.verdict import AuthenticatorError, not_allowed, read_verdict, refusal_of
from ws_middleware.receipt import Receipt
from ws_middleware.types import Granted, Principal, Refusal

from .logs import Logger, safe

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    from ws_middleware.gate.gate import Candidate

    from .runtime import Runtime
    from .threads import ThreadGroup

__all__ = ["Asker"]

_log: Final = Logger("ws_middleware.engine")

_Question = tuple["Callable[..., Any]", tuple[object, ...]]


class Asker:
    """Puts the questions, each in the host's context and where its kind belongs."""

    def __init__(
        self, context: Callable[[], AbstractContextManager[object]], threads: ThreadGroup
    ) -> None:
        self._context = context
        self._threads = threads

    async def ask(self, candidate: Candidate) -> Granted | Refusal:
        """Ask on this loop: coroutines here, blocking functions in the auth threads."""
        questions = _questions(candidate)
        try:
            question = next(questions)
            while True:
                try:
                    answer = await self._call(*question)
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # a SystemExit in here must not end the loop
                    question = questions.throw(error)
                else:
                    question = questions.send(answer)
        except StopIteration as end:
            verdict: Granted | Refusal = end.value
            return verdict

    def ask_blocking(
        self,
        candidate: Candidate,
        runtime: Callable[[], Runtime],
        timeout: float,
        principal: Principal | None = None,
    ) -> Granted | Refusal:
        """Ask in this thread, which may block.

        Coroutines run on the runtime's loop, where their clients (pools, sessions) live, and have
        `timeout` seconds. Where a view has said who it is, `principal`, only `authorize` is asked.
        """
        questions = _questions(candidate, principal)
        try:
            question = next(questions)
            while True:
                try:
                    answer = self._call_blocking(*question, runtime=runtime, timeout=timeout)
                except Exception as error:
                    question = questions.throw(error)
                else:
                    question = questions.send(answer)
        except StopIteration as end:
            verdict: Granted | Refusal = end.value
            return verdict

    async def _call(self, function: Callable[..., Any], args: tuple[object, ...]) -> Any:  # noqa: ANN401
        if is_async(function):
            with self._context():
                return await function(*args)
        if getattr(function, "runs_inline", False):
            result = function(*args)
        else:
            result = await self._in_thread(function, *args)
        return await result if inspect.isawaitable(result) else result

    async def _in_thread(self, function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401
        receipt: Receipt[Any] = Receipt()

        def call() -> None:
            try:
                with self._context():
                    receipt.resolve(function(*args))
            except BaseException as error:  # raised again by whoever waits
                receipt.fail(error if isinstance(error, Exception) else RuntimeError(repr(error)))

        if not self._threads.submit(call):
            raise Refused(503, "going_away", why="shutting down")
        return await receipt

    def _call_blocking(
        self,
        function: Callable[..., Any],
        args: tuple[object, ...],
        *,
        runtime: Callable[[], Runtime],
        timeout: float,
    ) -> Any:  # noqa: ANN401
        if not is_async(function):
            with self._context():
                result = function(*args)
            if not inspect.isawaitable(result):
                return result

        async def call() -> Any:  # noqa: ANN401
            with self._context():
                async with asyncio.timeout(timeout) as limit:
                    try:
                        return await (function(*args) if is_async(function) else result)
                    except TimeoutError as error:
                        if limit.expired():
                            raise
                        msg = "it raised a TimeoutError of its own"
                        raise RuntimeError(msg) from error

        outcome = runtime().submit(call())
        try:
            return outcome.result(timeout + 1)
        except TimeoutError:
            why = f"{name_of(function)} gave no answer in {timeout:g} s (upgrade_timeout)"
            raise Refused(503, "upgrade_timeout", why=why) from None
        except (asyncio.CancelledError, SystemExit, KeyboardInterrupt) as error:
            # On the loop's behalf: none of these is about the worker that waits here.
            raise RuntimeError(repr(error)) from error


def _questions(
    candidate: Candidate, principal: Principal | None = None
) -> Generator[_Question, Any, Granted | Refusal]:
    """Yield what to ask, take the answers, return the verdict; whatever goes wrong is a refusal."""
    request, policy = candidate.request, candidate.entry.policy
    asked: object = policy.auth
    try:
        said = principal if principal is not None else (yield policy.auth, (request,))
        verdict = read_verdict(said)
        if isinstance(verdict, Granted) and verdict.path_params is not None:
            request = replace(request, path_params=verdict.path_params)
        if isinstance(verdict, Granted) and policy.authorize is not None:
            asked = policy.authorize
            assert isinstance(verdict.principal, Principal)
            if (yield policy.authorize, (verdict.principal, request)) is not True:
                return not_allowed(verdict.principal.id)
    except Refused as refused:
        return refusal_of(refused)
    except GeneratorExit:
        raise
    except BaseException as error:
        wrong = isinstance(error, AuthenticatorError)
        _log.error(
            "%s of route %s %s",
            name_of(asked),
            safe(candidate.entry.name),
            error if wrong else "failed",
            exc_info=None if wrong else error,
        )
        why = f"{name_of(asked)} failed; see the error before this line"
        return Refusal(500, "authenticator_failed", "the server could not decide", why)
    return verdict
