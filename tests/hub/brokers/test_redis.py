"""Redis that is away, comes back or hangs, and what waits for it meanwhile."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.redis_server import free_port
from ws_middleware.errors import BrokerUnavailable
from ws_middleware.hub.brokers import connections, listening, publishing
from ws_middleware.hub.brokers.redis import RedisBroker

from .ear import Ear
from .scripted import confirmations, obedient, scripted
from .test_contract import opened, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.redis_server import RedisServer

NOBODY = "redis://127.0.0.1:1"


def test_killed_and_restarted_empty_it_is_heard_again(redis: RedisServer) -> None:
    async def work() -> None:
        async with opened(RedisBroker(redis.url), "a") as (broker, ear):
            for _ in range(3):
                lives = ear.connections
                redis.kill()
                await ear.until(lambda: len(ear.losses) >= lives)  # noqa: B023 - awaited here
                waiting = broker.publish("a", b"waiting")
                redis.start()
                await ear.until(lambda: ear.connections > lives)  # noqa: B023
                await waiting  # never sent, so it is sent now
                ear.heard.clear()
                await broker.publish("a", b"after")
                await ear.until(lambda: ("a", b"after") in ear.heard)

    run(work())


def test_a_cut_connection_to_listen_on_is_replaced(redis: RedisServer) -> None:
    async def work() -> None:
        async with opened(RedisBroker(redis.url), "a") as (broker, ear):
            with redis.client as client:
                assert client.client_kill_filter(_type="pubsub") == 1
            await ear.until(lambda: ear.connections == 2)
            await broker.publish("a", b"x")
            await ear.until(lambda: ear.heard == [("a", b"x")])

    run(work())


def test_a_cut_connection_to_publish_on_loses_nothing_that_comes_later(
    redis: RedisServer,
) -> None:
    async def work() -> None:
        async with opened(RedisBroker(redis.url), "a") as (broker, ear):
            await broker.publish("a", b"1")
            with redis.client as client:
                assert client.client_kill_filter(_type="normal", skipme=True) == 1
            await asyncio.sleep(0.05)  # the end has come, and nothing was on its way
            await broker.publish("a", b"2")
            await ear.until(lambda: len(ear.heard) == 2)
            assert ear.losses == []

    run(work())


def test_a_rebuilt_broker_publishes_on_another_connection_too(redis: RedisServer) -> None:
    """It may be the one that is deaf: what is published on a former master is heard by nobody."""

    async def work() -> None:
        async with opened(RedisBroker(redis.url), "a") as (broker, ear):
            await broker.publish("a", b"x")
            with redis.client as client:
                before = {each["id"] for each in client.client_list() if each["name"]}
                broker.rebuild()
                await ear.until(lambda: ear.connections == 2)
                await broker.publish("a", b"x")
                after = {each["id"] for each in client.client_list() if each["name"]}
            assert len(after) == 2
            assert not before & after

    run(work())


def test_a_listener_that_reads_too_slowly_for_redis_is_cut_and_comes_back(
    redis: RedisServer,
) -> None:
    async def work() -> None:
        async with opened(RedisBroker(redis.url), "a") as (broker, ear):
            with redis.client as client:
                client.config_set("client-output-buffer-limit", "pubsub 64kb 32kb 1")
                for _ in range(200):  # this thread has the loop, so nothing is read
                    client.publish("a", b"x" * 64 * 1024)
                client.config_set("client-output-buffer-limit", "pubsub 32mb 8mb 60")
            await ear.until(lambda: ear.connections == 2)
            await broker.publish("a", b"again")
            await ear.until(lambda: ear.heard[-1] == ("a", b"again"))

    run(work())


@pytest.mark.slow
def test_a_server_that_hangs_fails_what_it_was_sent_and_holds_up_nobody(
    redis: RedisServer,
) -> None:
    async def work() -> None:
        async with opened(RedisBroker(redis.url), "a") as (broker, ear):
            redis.send(signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="no answer in 5 s"):
                await broker.publish("a", b"x")
            assert time.monotonic() - began < 8
            broker.rebuild()
            await ear.until(lambda: ear.losses)
            assert "deaf" in str(ear.losses[0])
            late = broker.publish("a", b"late")
            await broker.close()
            with pytest.raises(BrokerUnavailable, match="closed"):
                await late
            assert time.monotonic() - began < 10

    run(work())


@pytest.mark.slow
def test_a_server_that_hangs_while_it_is_connected_to_is_given_up_and_tried_again(
    redis: RedisServer,
) -> None:
    async def work() -> None:
        redis.send(signal.SIGSTOP)  # the kernel still takes connections for it
        broker, ear = RedisBroker(redis.url), Ear()
        broker.open(ear)
        broker.subscribe("a")
        receipt = broker.publish("a", b"old news")
        await ear.until(lambda: ear.losses)
        assert "no answer in 5 s" in str(ear.losses[0])
        with pytest.raises(BrokerUnavailable, match="away for 10 s"):
            await receipt
        redis.send(signal.SIGCONT)
        await ear.until(lambda: ear.connections)
        await broker.publish("a", b"x")
        await ear.until(lambda: ear.heard == [("a", b"x")])
        await broker.close()

    run(work())


def test_an_answer_is_waited_for_from_when_it_was_due_and_not_from_when_it_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publishing, "_PATIENCE", 0.6)
    monkeypatch.setattr(publishing, "_TICK", 0.01)

    async def work() -> None:
        port = free_port()
        async with opening(f"redis://127.0.0.1:{port}") as (broker, ear):
            waiting = broker.publish("a", b"x")
            await asyncio.sleep(1)  # it waits for longer than an answer may take
            async with scripted(obedient, port=port, delay=0.2) as server:
                assert await waiting == 0
                # Each is answered in time, though the last is not answered until much later.
                for receipt in [broker.publish("a", b"x") for _ in range(6)]:
                    assert await receipt == 0
                assert ear.connections == 1
                assert server.connections == 2

    run(work())


def test_close_ends_within_a_second_whatever_the_server_does(redis: RedisServer) -> None:
    async def work() -> None:
        async def close(broker: RedisBroker) -> None:
            receipts = [broker.publish("a", b"x" * 1024**2) for _ in range(32)]
            began = time.monotonic()
            await broker.close()
            assert time.monotonic() - began < 2
            assert all(each.done for each in receipts)
            with pytest.raises(BrokerUnavailable, match="closed"):
                await broker.publish("a", b"x")

        connected, ear = RedisBroker(redis.url), Ear()
        connected.open(ear)
        await ear.until(lambda: ear.connections)
        redis.send(signal.SIGSTOP)
        await close(connected)
        connecting = RedisBroker(redis.url)
        connecting.open(Ear())
        await asyncio.sleep(0.1)
        await close(connecting)
        for broker in (RedisBroker(NOBODY), RedisBroker(redis.url)):
            broker.open(Ear())
            await close(broker)
        await close(RedisBroker(NOBODY))  # never opened

    run(work())


def test_without_a_server_a_message_waits_and_then_fails() -> None:
    async def work() -> None:
        broker = RedisBroker("redis://:secret@127.0.0.1:1/0")
        receipt = broker.publish("a", b"x")
        assert not receipt.done
        await broker.close()
        with pytest.raises(BrokerUnavailable) as caught:
            await receipt
        assert "redis://127.0.0.1:1/0" in str(caught.value)
        assert "secret" not in str(caught.value)

    run(work())


def test_what_waits_is_bounded() -> None:
    async def work() -> None:
        broker = RedisBroker(NOBODY)
        receipts = [broker.publish("a", b"") for _ in range(100_001)]
        assert not receipts[99_999].done
        with pytest.raises(BrokerUnavailable, match="too much waits"):
            await receipts[-1]
        large = RedisBroker(NOBODY)
        receipts = [large.publish("a", b"x" * 1024**2) for _ in range(65)]
        assert [receipt.done for receipt in receipts] == [False] * 64 + [True]
        await large.close()
        await broker.close()

    run(work())


def test_what_a_server_that_hangs_was_sent_is_bounded_too(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_PATIENCE", 0.5)
    monkeypatch.setattr(publishing, "_QUEUED_FOR", 0.5)
    monkeypatch.setattr(connections, "_CONNECT", 0.5)

    before = waiting_to_be_written()  # by other tests

    async def work() -> None:
        async with opened(RedisBroker(redis.url)) as (broker, _):
            redis.send(signal.SIGSTOP)
            for _ in range(3):
                receipts = [broker.publish("a", b"x" * 1024**2) for _ in range(65)]
                assert sum(not receipt.done for receipt in receipts) == 64
                for receipt in receipts:
                    with pytest.raises(BrokerUnavailable):
                        await receipt
                del receipts
                for _ in range(500):  # soon nothing is left of dropped connections
                    if waiting_to_be_written() <= before:
                        break
                    await asyncio.sleep(0.01)
                else:
                    pytest.fail("a dropped connection still holds what was to be written")
            redis.send(signal.SIGCONT)
            for _ in range(200):  # and what was counted has been given back
                try:
                    await broker.publish("a", b"x" * 1024**2)
                    break
                except BrokerUnavailable:
                    await asyncio.sleep(0.05)
            else:
                pytest.fail("nothing can be published any more")

    run(work())


def waiting_to_be_written() -> int:
    """Return the bytes in all transports there are, open or not."""
    gc.collect()
    # By their types: an app's lazy objects do not like to be asked.
    found = [each for each in gc.get_objects() if issubclass(type(each), asyncio.WriteTransport)]
    return sum(each.get_write_buffer_size() for each in found)


def test_a_subscription_that_is_never_confirmed_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_PATIENCE", 0.5)

    async def work() -> None:
        async with scripted(lambda command: b"") as server:
            broker, ear = RedisBroker(server.url), Ear()
            broker.open(ear)
            broker.subscribe("a")
            await ear.until(lambda: ear.losses)
            assert "no channel confirmed" in str(ear.losses[0])
            assert ear.connections == 0
            server.script = obedient
            await ear.until(lambda: ear.connections)
            server.script = lambda command: confirmations(command[:-1])  # all but the last
            for name in "bcd":
                broker.subscribe(name)
            await ear.until(lambda: len(ear.losses) >= 2)
            assert "no channel confirmed" in str(ear.losses[-1])
            await broker.close()

    run(work())


def test_a_server_that_ends_each_connection_is_asked_less_and_less() -> None:
    async def work() -> None:
        async with scripted(lambda command: None) as server:
            broker, ear = RedisBroker(server.url), Ear()
            broker.open(ear)
            broker.subscribe("a")
            broker.publish("a", b"x")
            await asyncio.sleep(2.5)
            # At full speed it would be thousands: .1, .2, .4, .8, 1.6 s apart for each of the two.
            assert 4 <= server.connections <= 16
            await broker.close()

    run(work())


def test_a_server_that_confirms_and_then_ends_is_asked_less_and_less() -> None:
    async def work() -> None:
        answered = 0

        def script(command: list[bytes]) -> bytes | None:
            nonlocal answered
            answered += 1
            return None if answered % 2 == 0 else obedient(command)

        async with scripted(script) as server:
            broker, ear = RedisBroker(server.url), Ear()
            broker.open(ear)
            broker.subscribe("a")
            end = time.monotonic() + 2.5
            while time.monotonic() < end:
                name = f"b{ear.connections}"
                broker.subscribe(name)
                await asyncio.sleep(0.01)
                broker.unsubscribe(name)
            assert 2 <= ear.connections <= 8
            await broker.close()

    run(work())


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n" * 9, b":1\r\n"])
def test_a_server_that_is_no_redis_is_a_loss_and_ends_nothing(
    redis: RedisServer, answer: bytes
) -> None:
    async def work() -> None:
        async with scripted(lambda command: answer) as server:
            broker, ear = RedisBroker(server.url), Ear()
            broker.open(ear)
            broker.subscribe("a")
            broker.publish("a", b"x")
            await ear.until(lambda: len(ear.losses) >= 2)
            server.script = obedient
            await ear.until(lambda: ear.connections)
            assert await broker.publish("a", b"x") == 0
            await broker.close()

    run(work())


@asynccontextmanager
async def opening(url: str) -> AsyncIterator[tuple[RedisBroker, Ear]]:
    """Open a broker whose server need not be there."""
    broker, ear = RedisBroker(url), Ear()
    broker.open(ear)
    try:
        yield broker, ear
    finally:
        await broker.close()


LEFT_BEHIND = """
import asyncio, sys
from ws_middleware.hub.brokers.redis import RedisBroker

class Subscriber:
    def received(self, channel, data): pass
    def connected(self): pass
    def lost(self, error): pass

async def main():
    broker = RedisBroker(sys.argv[1])
    broker.open(Subscriber())
    broker.subscribe("a")
    receipt = broker.publish("a", b"x" * 1024**2)
    await asyncio.sleep(float(sys.argv[2]))
    return broker, receipt

broker, receipt = asyncio.run(main())  # which cancels what it finds, at any point of its way
assert receipt.done
"""


@pytest.mark.parametrize("stopped", [False, True], ids=["answers", "hangs"])
@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_a_loop_that_ends_without_closing_it_leaves_nothing_behind(
    server: RedisServer, kind: str, *, stopped: bool
) -> None:
    url = {"tcp": server.url, "tls": server.tls_url}[kind]
    if stopped:
        server.send(signal.SIGSTOP)
    try:
        for wait in ("0", "0.001", "0.02", "0.3"):
            done = subprocess.run(
                [sys.executable, "-X", "dev", "-W", "error", "-c", LEFT_BEHIND, url, wait],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, "")
    finally:
        server.send(signal.SIGCONT)


def test_of_several_hosts_the_next_is_tried(redis: RedisServer) -> None:
    async def work() -> None:
        url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{redis.port},127.0.0.1:2"
        for _ in range(4):  # wherever it begins
            async with opened(RedisBroker(url), "a") as (broker, ear):
                await broker.publish("a", b"x")
                await ear.until(lambda: ear.heard == [("a", b"x")])
                assert ear.losses == []

    run(work())


def test_over_tls_another_authority_is_not_believed(server: RedisServer, tmp_path: Path) -> None:
    async def work() -> None:
        broker, ear = RedisBroker(f"rediss://127.0.0.1:{server.tls_port}"), Ear()
        broker.open(ear)
        await ear.until(lambda: ear.losses)
        assert "certificate" in str(ear.losses[0]).lower()
        await broker.close()

    run(work())
