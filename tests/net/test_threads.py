from __future__ import annotations

import queue
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest

from tests.clients.python import until
from ws_middleware.net import threads as threads_module
from ws_middleware.net.threads import ThreadGroup

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def group() -> Iterator[ThreadGroup]:
    group = ThreadGroup("test", 3)
    yield group
    group.close()
    until(lambda: group.threads == 0)


def test_a_job_runs_in_a_daemon_thread_of_the_groups_name(group: ThreadGroup) -> None:
    where: queue.Queue[threading.Thread] = queue.Queue()
    assert group.threads == 0
    assert group.submit(lambda: where.put(threading.current_thread()))
    thread = where.get(timeout=5)
    assert thread.name == "ws-test"
    assert thread.daemon


def test_there_are_never_more_threads_than_its_size_and_all_jobs_run(group: ThreadGroup) -> None:
    go = threading.Event()
    done: queue.Queue[int] = queue.Queue()

    def job(number: int) -> None:
        go.wait(5)
        done.put(number)

    for number in range(20):
        group.submit(lambda number=number: job(number))  # type: ignore[misc]
        assert group.threads <= 3
    assert group.threads == 3
    go.set()
    assert {done.get(timeout=5) for _ in range(20)} == set(range(20))


def test_one_thread_runs_its_jobs_in_order() -> None:
    group = ThreadGroup("one", 1)
    seen: list[int] = []
    done = threading.Event()
    for number in range(100):
        group.submit(lambda number=number: seen.append(number))  # type: ignore[misc]
    group.submit(done.set)
    assert done.wait(5)
    assert seen == list(range(100))
    group.close()


def test_an_idle_thread_is_used_again(group: ThreadGroup) -> None:
    names: queue.Queue[int] = queue.Queue()
    for _ in range(20):
        group.submit(lambda: names.put(threading.get_ident()))
        names.get(timeout=5)
        until(lambda: group._idle == group.threads)
    assert group.threads == 1


def test_two_jobs_at_once_get_two_threads_though_one_is_idle(group: ThreadGroup) -> None:
    group.submit(lambda: None)
    until(lambda: group._idle == 1)
    both = threading.Barrier(3)

    def meet() -> None:
        both.wait(5)

    group.submit(meet)
    group.submit(meet)
    both.wait(5)  # neither waits for the other's thread


def test_an_idle_thread_ends_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "_IDLE", 0.05)
    group = ThreadGroup("idle", 2)
    ran: queue.Queue[None] = queue.Queue()
    for _ in range(2):
        group.submit(lambda: ran.put(None))
        ran.get(timeout=5)
        until(lambda: group.threads == 0)
    group.close()


def test_a_job_that_fails_is_logged_and_its_thread_goes_on(
    group: ThreadGroup, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise SystemExit(3)

    ran = threading.Event()
    group.submit(fail)
    until(lambda: "a job in a test thread failed" in caplog.text)
    group.submit(ran.set)
    assert ran.wait(5)
    assert group.threads == 1


def no_thread(*args: object) -> None:
    msg = "can't start new thread"
    raise RuntimeError(msg)


def test_a_thread_that_is_not_to_be_had_takes_no_place(
    group: ThreadGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: queue.Queue[int] = queue.Queue()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        for _ in range(5):
            with pytest.raises(RuntimeError, match="can't start"):
                group.submit(lambda: ran.put(0))
        assert group.threads == 0
    assert group.submit(lambda: ran.put(1))
    assert ran.get(timeout=5) == 1  # what could not be done then is not done now


def test_what_gets_no_thread_waits_for_one_that_is_there(
    group: ThreadGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, ran = threading.Event(), threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        go.wait(5)

    group.submit(job)
    assert begun.wait(5)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        assert group.submit(ran.set)
    assert group.threads == 1
    go.set()
    assert ran.wait(5)


def test_places_are_reserved_and_given_back(group: ThreadGroup) -> None:
    assert [group.reserve() for _ in range(4)] == [True, True, True, False]
    assert group.reserved == 3
    group.release()
    assert group.reserve()
    assert not group.reserve()
    for _ in range(3):
        group.release()
    assert group.reserved == 0


def test_of_many_at_once_exactly_as_many_reserve_as_there_are_places() -> None:
    group = ThreadGroup("race", 10)
    start = threading.Barrier(40)
    got: list[bool] = []

    def work() -> None:
        start.wait(5)
        got.append(group.reserve())

    workers = [threading.Thread(target=work) for _ in range(40)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (got.count(True), group.reserved) == (10, 10)


def test_close_drops_what_is_queued_and_waits_for_nobody(group: ThreadGroup) -> None:
    go, ran = threading.Event(), threading.Event()
    running = threading.Barrier(4)

    def job() -> None:
        running.wait(5)
        go.wait(5)

    for _ in range(3):
        group.submit(job)
    running.wait(5)
    group.submit(ran.set)
    group.close()
    assert not group.submit(ran.set)
    assert not group.reserve()
    go.set()
    until(lambda: group.threads == 0)
    assert not ran.is_set()


user: ContextVar[str] = ContextVar("user", default="nobody")


def test_what_a_job_sets_is_not_there_for_the_next() -> None:
    group = ThreadGroup("test", 1)
    seen: queue.Queue[str] = queue.Queue()

    def job() -> None:
        seen.put(user.get())
        user.set("ann")

    try:
        for _ in range(2):
            group.submit(job)
        assert [seen.get(timeout=5) for _ in range(2)] == ["nobody", "nobody"]
    finally:
        group.close()
