from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.gate.upgrades import Entry, policy, upgrade
from ws_middleware import Anonymous, WebSockets
from ws_middleware.config import ServerLimits
from ws_middleware.errors import Refused
from ws_middleware.gate.gate import Candidate, Gate
from ws_middleware.gate.routing import PathTemplate
from ws_middleware.net.asking import Asker
from ws_middleware.net.threads import ThreadGroup
from ws_middleware.types import Granted, Principal, Refusal, UpgradeRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Served
    from ws_middleware.net.runtime import Runtime

IN_HOST: ContextVar[bool] = ContextVar("IN_HOST", default=False)


@contextlib.contextmanager
def host_context() -> Iterator[None]:
    token = IN_HOST.set(True)
    try:
        yield
    finally:
        IN_HOST.reset(token)


@pytest.fixture
def runtime(serve: Callable[[WebSockets], Served]) -> Callable[[], Runtime]:
    sockets = WebSockets(auth=Anonymous())
    serve(sockets)
    assert sockets._front.sidecar is not None
    return sockets._front.sidecar.ensure


def no_runtime() -> Runtime:
    pytest.fail("a sync authenticator needs no loop")


def ask(
    auth: Callable[..., Any],
    runtime: Callable[[], Runtime] = no_runtime,
    *,
    authorize: Any = None,
    timeout: float = 10.0,
) -> Granted | Refusal:
    gate = Gate(ServerLimits())
    gate.add(PathTemplate("/ws"), Entry("chat", replace(policy(auth), authorize=authorize)))
    candidate = gate.check(upgrade(origin="https://myapp.com"), 0.0)
    assert isinstance(candidate, Candidate)
    asker = Asker(host_context, ThreadGroup("auth", 1))
    return asker.ask_blocking(candidate, runtime, timeout)


def refusal_of(*args: Any, **kwargs: Any) -> Refusal:
    verdict = ask(*args, **kwargs)
    assert isinstance(verdict, Refusal)
    return verdict


# --- who is it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("ann", Granted(Principal("ann"))),
        (7, Granted(Principal("7"))),
        (Principal("ann"), Granted(Principal("ann"))),
        (Granted("ann", (("X-A", "1"),)), Granted(Principal("ann"), (("X-A", "1"),))),
    ],
)
def test_sync_and_async_say_the_same(
    said: Any, expected: Granted, runtime: Callable[[], Runtime]
) -> None:
    async def slow(request: UpgradeRequest) -> Any:
        return said

    assert ask(lambda request: said) == expected
    assert ask(slow, runtime) == expected

    def hands_on(request: UpgradeRequest) -> Any:
        return slow(request)

    assert ask(hands_on, runtime) == expected


@pytest.mark.parametrize("nobody", [None, ""])
def test_nobody_is_a_401(nobody: Any, runtime: Callable[[], Runtime]) -> None:
    async def slow(request: UpgradeRequest) -> Any:
        return nobody

    for refusal in (refusal_of(lambda request: nobody), refusal_of(slow, runtime)):
        assert (refusal.status, refusal.code) == (401, "credential_refused")


def test_sync_runs_here_and_async_on_the_loop(runtime: Callable[[], Runtime]) -> None:
    def here(request: UpgradeRequest) -> str:
        assert IN_HOST.get()
        return str(threading.get_ident())

    async def there(request: UpgradeRequest) -> str:
        assert IN_HOST.get()
        assert asyncio.get_running_loop() is runtime().loop
        return str(threading.get_ident())

    async def sender(name: str, request: UpgradeRequest) -> str:
        return f"{name} {IN_HOST.get()}"

    class Slow:
        async def __call__(self, request: UpgradeRequest) -> str:
            return "object"

    assert ask(here) == Granted(Principal(str(threading.get_ident())))
    assert ask(there, runtime) == Granted(Principal(str(runtime().thread_id)))
    assert ask(functools.partial(sender, "p"), runtime) == Granted(Principal("p True"))
    assert ask(Slow(), runtime) == Granted(Principal("object"))
    assert not IN_HOST.get()


# --- may they ------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_slow", [False, True])
@pytest.mark.parametrize("said", [True, False, None, 1, "yes"])
def test_only_true_lets_in(
    is_slow: bool,  # noqa: FBT001
    said: Any,
    runtime: Callable[[], Runtime],
) -> None:
    asked: list[tuple[Principal, str]] = []

    def may(user: Principal, request: UpgradeRequest) -> Any:
        asked.append((user, request.path))
        return said

    async def may_slowly(user: Principal, request: UpgradeRequest) -> Any:
        return may(user, request)

    verdict = ask(lambda request: "ann", runtime, authorize=may_slowly if is_slow else may)
    assert asked == [(Principal("ann"), "/ws")]
    if said is True:
        assert verdict == Granted(Principal("ann"))
    else:
        assert isinstance(verdict, Refusal)
        assert (verdict.status, verdict.code) == (403, "not_allowed")


def test_nobody_is_not_asked_whether_they_may() -> None:
    def may(user: Principal, request: UpgradeRequest) -> bool:
        pytest.fail("there is nobody")

    assert refusal_of(lambda request: None, authorize=may).status == 401


# --- what goes wrong -----------------------------------------------------------------------------


def test_refused_is_sent_as_it_is(runtime: Callable[[], Runtime]) -> None:
    def no(request: UpgradeRequest) -> str:
        raise Refused(418, "teapot", headers=[("X-A", "1")], body=b"no", why="tea")

    async def slow_no(request: UpgradeRequest) -> str:
        return no(request)

    for refusal in (refusal_of(no), refusal_of(slow_no, runtime)):
        assert (refusal.status, refusal.code, refusal.why) == (418, "teapot", "tea")
        assert (refusal.headers, refusal.body) == ((("X-A", "1"),), b"no")


def test_an_exception_is_a_500_and_an_error(
    runtime: Callable[[], Runtime], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(request: UpgradeRequest) -> str:
        msg = "secret"
        raise LookupError(msg)

    async def slow_broken(request: UpgradeRequest) -> str:
        return broken(request)

    def broken_may(user: Principal, request: UpgradeRequest) -> bool:
        msg = "secret"
        raise LookupError(msg)

    cases: list[tuple[str, Callable[[], Refusal]]] = [
        ("broken", lambda: refusal_of(broken)),
        ("slow_broken", lambda: refusal_of(slow_broken, runtime)),
        ("broken_may", lambda: refusal_of(lambda request: "ann", authorize=broken_may)),
    ]
    for name, case in cases:
        caplog.clear()
        refusal = case()
        assert (refusal.status, refusal.code) == (500, "authenticator_failed")
        assert "secret" not in refusal.detail + refusal.why
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert f"{name} of route chat failed" in record.getMessage()
        assert record.exc_info is not None


@pytest.mark.parametrize("said", [True, False, 1.5, [], b"ann"])
def test_a_strange_answer_is_a_500(said: Any, caplog: pytest.LogCaptureFixture) -> None:
    refusal = refusal_of(lambda request: said)
    assert (refusal.status, refusal.code) == (500, "authenticator_failed")
    (record,) = caplog.records
    assert "an authenticator returns a Principal, Granted, str, int, or None" in record.getMessage()
    assert record.exc_info is None


def test_no_answer_in_time_is_a_503(runtime: Callable[[], Runtime]) -> None:
    async def stuck(request: UpgradeRequest) -> str:
        await asyncio.Event().wait()
        return "ann"

    async def stuck_may(user: Principal, request: UpgradeRequest) -> bool:
        await asyncio.Event().wait()
        return True

    refusal = refusal_of(stuck, runtime, timeout=0.01)
    assert (refusal.status, refusal.code) == (503, "upgrade_timeout")
    assert "stuck gave no answer in 0.01 s (upgrade_timeout)" in refusal.why
    refusal = refusal_of(lambda request: "ann", runtime, authorize=stuck_may, timeout=0.01)
    assert (refusal.status, refusal.code) == (503, "upgrade_timeout")
    assert "stuck_may" in refusal.why


def test_what_was_given_up_is_cancelled(runtime: Callable[[], Runtime]) -> None:
    begun: list[asyncio.Task[Any] | None] = []

    async def stuck(request: UpgradeRequest) -> str:
        begun.append(asyncio.current_task())
        await asyncio.Event().wait()
        return "ann"

    async def look() -> bool:
        (task,) = begun
        assert task is not None
        return task.done() or task.cancelling() > 0

    assert refusal_of(stuck, runtime, timeout=0.2).status == 503
    assert runtime().submit(look()).result(5)


def test_a_timeout_of_its_own_is_a_500(runtime: Callable[[], Runtime]) -> None:
    async def database(request: UpgradeRequest) -> str:
        msg = "the database"
        raise TimeoutError(msg)

    assert refusal_of(database, runtime).status == 500


def test_a_cancelled_authenticator_is_a_500(runtime: Callable[[], Runtime]) -> None:
    async def cancelled(request: UpgradeRequest) -> str:
        raise asyncio.CancelledError

    assert refusal_of(cancelled, runtime).status == 500


def test_a_loop_that_has_ended_is_a_500() -> None:
    sockets = WebSockets(auth=Anonymous())
    sockets.listen(port=0)
    assert sockets._front.sidecar is not None
    runtime = sockets._front.sidecar.ensure()
    sockets.close(timeout=3).result(10)

    async def slow(request: UpgradeRequest) -> str:
        return "ann"

    assert refusal_of(slow, lambda: runtime).status == 500
