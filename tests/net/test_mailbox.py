from __future__ import annotations

import asyncio
import functools
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest

from tests.net.fakes import FakeLoop
from ws_middleware.net.mailbox import Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    return FakeLoop(monkeypatch)


@pytest.fixture
def mailbox(loop: FakeLoop) -> Mailbox:
    return Mailbox(loop.as_loop)


def note(seen: list[int], number: int) -> Callable[[], None]:
    return functools.partial(seen.append, number)


def test_a_batch_wakes_the_loop_once_and_runs_in_order(loop: FakeLoop, mailbox: Mailbox) -> None:
    seen: list[int] = []
    for number in range(100):
        assert mailbox.post(note(seen, number))
    assert loop.wakes == 1
    assert seen == []
    loop.turn()
    assert seen == list(range(100))
    assert mailbox.post(note(seen, 100))
    assert loop.wakes == 2


def test_what_is_posted_while_it_runs_is_not_forgotten(loop: FakeLoop, mailbox: Mailbox) -> None:
    seen: list[int] = []
    mailbox.post(lambda: mailbox.post(note(seen, 1)))
    loop.turn()
    loop.turn()
    assert seen == [1]


def test_a_flood_leaves_turns_to_others(loop: FakeLoop, mailbox: Mailbox) -> None:
    seen: list[int] = []
    for number in range(2500):
        mailbox.post(note(seen, number))
    turns = []
    while len(seen) < 2500:
        loop.turn()
        turns.append(len(seen))
    assert turns == [1000, 2000, 2500]
    assert loop.wakes == 1


def test_an_action_that_fails_is_logged_and_the_rest_runs(
    loop: FakeLoop, mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []
    mailbox.post(lambda: seen.append(1 // 0))
    mailbox.post(note(seen, 2))
    loop.turn()
    assert seen == [2]
    assert "ZeroDivisionError" in caplog.text


def test_close_runs_what_is_there_and_takes_no_more(loop: FakeLoop, mailbox: Mailbox) -> None:
    seen: list[int] = []
    for number in range(1500):
        mailbox.post(note(seen, number))
    mailbox.close()
    assert seen == list(range(1500))
    assert not mailbox.post(note(seen, -1))
    loop.turn()
    assert -1 not in seen


def test_a_loop_that_was_closed_takes_nothing_however_often_it_is_asked(
    loop: FakeLoop, mailbox: Mailbox
) -> None:
    loop.closed = True
    assert [mailbox.post(lambda: None) for _ in range(3)] == [False, False, False]


user: ContextVar[str] = ContextVar("user")


def test_the_context_of_whoever_wakes_the_loop_stays_with_him() -> None:
    async def run() -> None:
        mailbox = Mailbox(asyncio.get_running_loop())
        seen: list[str] = []
        done = asyncio.Event()

        async def task() -> None:
            seen.append(user.get("nobody"))
            done.set()

        async def start() -> None:
            seen.append(user.get("nobody"))
            tasks.append(asyncio.create_task(task()))

        def request() -> None:
            user.set("ann")
            mailbox.post(lambda: tasks.append(asyncio.create_task(start())))

        tasks: list[asyncio.Task[None]] = []
        await asyncio.to_thread(request)
        await done.wait()
        assert seen == ["nobody", "nobody"]

    asyncio.run(asyncio.wait_for(run(), 10))


def test_many_threads_each_in_its_order_on_a_real_loop() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        mailbox = Mailbox(loop)
        seen: list[tuple[int, int]] = []
        done = asyncio.Event()

        def work(name: int) -> None:
            for number in range(2000):
                mailbox.post(functools.partial(seen.append, (name, number)))

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        mailbox.post(done.set)
        await asyncio.wait_for(done.wait(), 5)
        for name in range(4):
            assert [n for who, n in seen if who == name] == list(range(2000))

    asyncio.run(asyncio.wait_for(run(), 10))
