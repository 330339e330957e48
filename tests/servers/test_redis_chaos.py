"""Redis dies, hangs, cuts connections and loses what it holds, again and again, under traffic.

Three workers, whose members talk all the time. After each round everybody hears everybody again
within seconds, nobody has heard anything twice, and the app has been told of what it missed.

`WSM_CHAOS_ROUNDS` says how many rounds there are, `WSM_CHAOS_SEED` which; with `pytest -s` they
print how long it took.
"""

from __future__ import annotations

import os
import random
import re
import signal
import statistics
import subprocess
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from .mesh import Mesh
from .test_several import WORKERS, post, several

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.redis_server import RedisServer

    from .conftest import Running

ROUNDS = int(os.environ.get("WSM_CHAOS_ROUNDS", "10"))
SEED = int(os.environ.get("WSM_CHAOS_SEED", "1"))

#: Seconds from Redis being reachable until each worker hears each other.
BACK = 10.0
#: Seconds that a send may take in a view. It takes microseconds; Redis' deadlines are seconds.
NO_WAIT = 1.0


class Chaos:
    """A server with three workers, its Redis, and what goes wrong between the two."""

    def __init__(self, redis: RedisServer, server: Running, mesh: Mesh) -> None:
        self._redis = redis
        self._server = server
        self._mesh = mesh
        self._texts = 0
        self._random = random.Random(SEED)
        #: Seconds until all was well again, by kind.
        self.took: dict[str, list[float]] = defaultdict(list)

    # --- what goes wrong: each returns when Redis is reachable again -------------------------

    def kill(self) -> None:
        self._redis.kill()
        self.meanwhile()
        time.sleep(self._random.uniform(0, 2))  # attempts meet nobody, and are made less often
        self._redis.start()

    def stop(self, seconds: float = 2.0) -> None:
        self._redis.send(signal.SIGSTOP)
        end = time.monotonic() + seconds
        self.meanwhile()
        while time.monotonic() < end:
            time.sleep(0.05)
        self._redis.send(signal.SIGCONT)

    def cut_listening(self) -> None:
        with self._redis.client as client:
            assert client.client_kill_filter(_type="pubsub") >= WORKERS
        self.meanwhile()

    def cut_publishing(self) -> None:
        with self._redis.client as client:
            assert client.client_kill_filter(_type="normal", skipme=True) >= WORKERS
        self.meanwhile()

    def overflow(self) -> None:
        with self._redis.client as client:
            before = {each["id"] for each in client.client_list(_type="pubsub")}
            client.config_set("client-output-buffer-limit", "pubsub 64kb 32kb 1")
            while before & {each["id"] for each in client.client_list(_type="pubsub")} == before:
                flood = client.pipeline(transaction=False)
                for _ in range(200):
                    flood.publish("test:room::7", b"x" * 60_000)
                flood.execute()
            client.config_set("client-output-buffer-limit", "pubsub 32mb 8mb 60")
        self.meanwhile()

    # --- what must hold ----------------------------------------------------------------------

    def meanwhile(self) -> None:
        """A view sends, does not wait, and reaches the members of its own worker."""
        self._texts += 1
        text = f"meanwhile-{self._texts}"
        told = post(self._server, f"/fire/7/{text}")
        assert told["took"] < NO_WAIT
        owner = str(told["pid"])
        self._until(lambda: self._mesh.has_reached(text, owner), 5)

    def round(self, kind: str) -> None:
        losses, gaps = self._count(" is away ("), self._count("tests a gap from")
        act: Callable[[], None] = getattr(self, kind)
        act()
        self.took[kind].append(self._mesh.until_whole(BACK))
        self._until(lambda: self._count(" is away (") == self._count("tests a gap from"), BACK)
        assert not self._mesh.twice
        assert "Traceback" not in self._server.log
        lost, told = self._count(" is away (") - losses, self._count("tests a gap from") - gaps
        assert set(lost) == set(told)
        if kind in {"kill", "cut_listening", "stop_long"}:
            assert set(told) == set(self._mesh.workers)
        if kind == "cut_publishing":
            assert not told

    def stop_long(self) -> None:
        self.stop(20.0)

    def _count(self, words: str) -> Counter[str]:
        """Return how often each worker has logged it."""
        return Counter(
            re.findall(rf"^(\d+) \w+ .*{re.escape(words)}", self._server.log, re.MULTILINE)
        )

    def _until(self, done: Callable[[], object], timeout: float) -> None:
        self._mesh.until(done, timeout, lambda: self._server.log[-3000:])

    def end(self) -> None:
        """The server ends in time, though Redis hangs."""
        self._redis.send(signal.SIGSTOP)
        self.meanwhile()
        self._server.process.send_signal(signal.SIGTERM)
        try:
            assert self._server.process.wait(12) == 0  # gunicorn kills its workers after 5 s
        except subprocess.TimeoutExpired:
            pytest.fail(self._server.log[-3000:])
        assert "SIGKILL" not in self._server.log
        assert not self._mesh.twice

    def report(self) -> None:
        for kind, took in self.took.items():
            middle, worst = statistics.median(took), max(took)
            print(f"\n{kind:>15}: {len(took)} rounds, median {middle:.2f} s, worst {worst:.2f} s")


@contextmanager
def chaos(redis: RedisServer, folder: Path) -> Iterator[Chaos]:
    with several(redis, folder) as (server, members), Mesh(members) as mesh:
        mesh.until_whole(BACK)
        made = Chaos(redis, server, mesh)
        yield made
        made.end()
        made.report()


KINDS = ("kill", "stop", "cut_listening", "cut_publishing", "overflow")


def plan(rounds: int, seed: int) -> list[str]:
    """Return kinds in an order of the seed's, each as often as the others."""
    order = random.Random(seed)
    kinds = [KINDS[number % len(KINDS)] for number in range(rounds)]
    order.shuffle(kinds)
    return kinds


@pytest.mark.slow
def test_whatever_happens_to_redis_the_workers_hear_each_other_again(
    redis: RedisServer, tmp_path: Path
) -> None:
    with chaos(redis, tmp_path) as made:
        for kind in plan(ROUNDS, SEED):
            made.round(kind)


@pytest.mark.slow
def test_after_redis_hung_for_twenty_seconds_they_do_too(
    redis: RedisServer, tmp_path: Path
) -> None:
    with chaos(redis, tmp_path) as made:
        made.round("stop_long")
