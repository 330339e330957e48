"""Tasks in real Celery workers tell users something, whatever becomes of the sockets' Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.integration.serving import ROOT, Server, Visitor, serving
from tests.redis_server import RedisServer, need_redis
from ws_middleware import Publisher

pytest.importorskip("celery")

from celery import Celery  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from redis import Redis
    from websockets.sync.client import ClientConnection

pytestmark = pytest.mark.slow

PREFIX = "tasks"
CHILDREN = 2

#: Two seconds are promised, and a machine may be busy.
SOON = 4.0

#: One with a `Publisher`, one with the `sockets` of the app.
both_ways = pytest.mark.parametrize("task", ["by_publisher", "by_app"])


class Queue(NamedTuple):
    """Celery with its workers, and a Redis of its own that nobody stops."""

    celery: Celery
    redis: Redis
    worker: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def call(self, task: str, text: str) -> None:
        self.celery.send_task(task, ("7", text))

    def tries(self, text: str = "") -> list[dict[str, Any]]:
        """What the workers have noted of their tries so far."""
        notes = [json.loads(each) for each in self.redis.lrange("notes", 0, -1)]
        return [each for each in notes if each["text"] == text or not text]

    def until(self, done: Callable[[], object], timeout: float = 30.0) -> None:
        end = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < end, (self.tries(), self.log[-3000:])
            time.sleep(0.02)

    def until_failed(self, text: str) -> None:
        """Wait until a first try has failed, and see that it did as it should."""
        self.until(lambda: self.tries(text))
        first = self.tries(text)[0]
        assert (first["retries"], first["error"]) == (0, "BrokerUnavailable")
        assert first["took"] < SOON

    def until_sent(self, text: str) -> None:
        self.until(lambda: any(not each["error"] for each in self.tries(text)))

    def signal(self, number: signal.Signals) -> None:
        """Send it to the worker and its children."""
        os.killpg(self.worker.pid, number)


@contextmanager
def working(folder: Path, redis: RedisServer, **environ: str) -> Iterator[Queue]:
    """Run a worker with two processes."""
    options = ("--pool", "prefork", "--concurrency", str(CHILDREN), "--loglevel", "INFO")
    quiet = ("--without-gossip", "--without-mingle")
    command = ["celery", "--app", "tests.integration.apps.tasks", "worker", *options, *quiet]
    log_path = folder / "celery.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={**os.environ, **environ, "CELERY_BROKER": redis.url},
            start_new_session=True,
        )
    with Celery(broker=redis.url) as celery, redis.client as client:
        queue = Queue(celery, client, process, log_path)
        try:
            queue.until(lambda: " ready." in queue.log)
            yield queue
        finally:
            stop(process)
    assert "Traceback" not in queue.log, queue.log[-3000:]


def stop(process: subprocess.Popen[bytes]) -> None:
    """Let it finish, or end it with all its children."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def site(tmp_path: Path, redis: RedisServer) -> Iterator[Server]:
    environ = {"WSM_BROKER": redis.url, "WSM_PREFIX": PREFIX}
    with serving("gunicorn", "notified", tmp_path, **environ) as server:
        yield server


@pytest.fixture
def queue(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, redis: RedisServer
) -> Iterator[Queue]:
    own = RedisServer(need_redis(), tmp_path_factory.mktemp("c"))
    own.start()
    try:
        with working(tmp_path, own, WSM_BROKER=redis.url, WSM_PREFIX=PREFIX) as queue:
            yield queue
    finally:
        own.kill()


@contextmanager
def listening(site: Server, redis: RedisServer, user: str = "7") -> Iterator[ClientConnection]:
    """Open a socket of a user; it is known to Redis by then."""
    visitor = Visitor(site)
    visitor.cookies["user"] = user
    with visitor.connect("/ws/news") as socket, redis.client as client:
        channel = f"{PREFIX}:user::{user}"
        site.until(lambda: client.pubsub_numsub(channel)[0][1] == 1)
        yield socket


def heard(socket: ClientConnection, redis: RedisServer, user: str = "7") -> list[str]:
    """Return all that came; what is told last marks the end."""
    Publisher(redis.url, prefix=PREFIX).user(user).send("the end")
    messages = []
    while (message := str(socket.recv(10))) != "the end":
        messages.append(message)
    return messages


@both_ways
def test_a_task_reaches_every_tab_of_a_user_once_and_nobody_else(
    site: Server, queue: Queue, redis: RedisServer, task: str
) -> None:
    with (
        listening(site, redis) as one,
        listening(site, redis) as other,
        listening(site, redis, "8") as elsewhere,
    ):
        texts = [str(number) for number in range(20)]
        for text in texts:
            queue.call(task, text)
        for text in texts:
            queue.until_sent(text)
        for socket in (one, other):
            assert sorted(heard(socket, redis), key=int) == texts
        assert heard(elsewhere, redis, "8") == []
    assert {each["retries"] for each in queue.tries()} == {0}


@both_ways
def test_while_redis_is_stopped_the_first_try_fails_soon_and_a_retry_arrives_once(
    site: Server, queue: Queue, redis: RedisServer, task: str
) -> None:
    with listening(site, redis) as socket:
        redis.send(signal.SIGSTOP)
        queue.call(task, "late")
        queue.until_failed("late")
        redis.send(signal.SIGCONT)
        queue.until_sent("late")
        assert heard(socket, redis) == ["late"]


@both_ways
def test_a_redis_that_hangs_is_given_nothing_that_it_would_carry_out_later(
    site: Server, queue: Queue, redis: RedisServer, task: str
) -> None:
    with listening(site, redis) as socket:
        warm_up(queue, task)
        redis.send(signal.SIGSTOP)
        queue.call(task, "late")
        queue.until_failed("late")
        redis.send(signal.SIGCONT)
        queue.until_sent("late")
        assert heard(socket, redis).count("late") == 1


@both_ways
def test_after_redis_was_killed_a_retry_arrives_once(
    site: Server, queue: Queue, redis: RedisServer, task: str
) -> None:
    with listening(site, redis) as socket:
        warm_up(queue, task)
        redis.kill()
        queue.call(task, "late")
        queue.until_failed("late")
        # What is sent before the site is back is lost: nobody hears it.
        queue.signal(signal.SIGSTOP)
        redis.start()
        site.until(lambda: "is back after" in site.log, 20)
        queue.signal(signal.SIGCONT)
        queue.until_sent("late")
        assert heard(socket, redis).count("late") == 1


def warm_up(queue: Queue, task: str) -> None:
    """Send until each of the worker's processes has done so, and is connected."""
    number = 0
    while len({each["pid"] for each in queue.tries()}) < CHILDREN:
        batch = [f"warm {number + each}" for each in range(10)]
        for text in batch:
            queue.call(task, text)
        for text in batch:
            queue.until_sent(text)
        number += len(batch)
        assert number < 1000, queue.tries()
