"""What every broker does, whatever carries its messages."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import pytest

from ws_middleware.errors import BrokerUnavailable
from ws_middleware.hub.brokers.memory import Bus, MemoryBroker
from ws_middleware.hub.brokers.redis import RedisBroker

from .conftest import KINDS
from .ear import Ear

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from ws_middleware.hub.brokers import Broker


#: What makes the loop of a test. In a server it is uvloop's where that is installed.
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop

WAYS = ["memory asyncio", *(f"{kind} {loop}" for kind in KINDS for loop in LOOPS)]


class Maker(NamedTuple):
    """Makes brokers that hear each other, and runs what uses them."""

    kind: str
    loop: str
    broker: Callable[[], Broker]

    def run(self, work: Coroutine[object, object, None]) -> None:
        run(work, LOOPS[self.loop])


@pytest.fixture(params=WAYS)
def make(request: pytest.FixtureRequest, urls_of: Callable[[str], list[str]]) -> Maker:
    kind, loop = request.param.split()
    if kind == "memory":
        bus = Bus()
        return Maker(kind, loop, lambda: MemoryBroker(bus))
    urls = cycle(urls_of(kind))
    return Maker(kind, loop, lambda: RedisBroker(next(urls)))


def run(
    work: Coroutine[object, object, None],
    loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(work, 30))


@asynccontextmanager
async def opened(broker: Broker, *channels: str) -> AsyncIterator[tuple[Broker, Ear]]:
    """Open a broker and wait until it receives."""
    ear = Ear()
    broker.open(ear)
    for channel in channels:
        broker.subscribe(channel)
    await ear.until(lambda: ear.connections)
    try:
        yield broker, ear
    finally:
        await broker.close()


async def settle(broker: Broker, ear: Ear) -> None:
    """Wait until all that was asked of `broker` before has been done."""
    broker.subscribe("settled")
    count = len(ear.heard)

    def is_heard() -> bool:
        return ("settled", b"") in ear.heard[count:]

    async with asyncio.timeout(10):
        while not is_heard():
            broker.publish("settled", b"")
            await asyncio.sleep(0.01)
    broker.unsubscribe("settled")
    ear.heard[:] = [each for each in ear.heard if each[0] != "settled"]


def test_what_is_published_is_heard_by_all_who_subscribed(make: Maker) -> None:
    async def work() -> None:
        async with (
            opened(make.broker(), "a") as (one, ear),
            opened(make.broker(), "a", "b") as (_, other),
        ):
            await one.publish("a", b"\x00first")
            await one.publish("b", b"second")
            await one.publish("c", b"nobody's")
            await other.until(lambda: len(other.heard) == 2)
            assert other.heard == [("a", b"\x00first"), ("b", b"second")]
            await ear.until(lambda: ear.heard)
            assert ear.heard == [("a", b"\x00first")]

    make.run(work())


def test_the_order_of_a_publisher_is_kept(make: Maker) -> None:
    async def work() -> None:
        async with opened(make.broker()) as (one, _), opened(make.broker(), "a", "b") as (_, ear):
            receipts = [one.publish("ab"[i % 2], b"%d" % i) for i in range(1000)]
            for receipt in receipts:
                await receipt
            await ear.until(lambda: len(ear.heard) == 1000)
            assert [data for _, data in ear.heard] == [b"%d" % i for i in range(1000)]

    make.run(work())


def test_subscriptions_come_and_go(make: Maker) -> None:
    async def work() -> None:
        async with opened(make.broker()) as (one, _), opened(make.broker(), "a") as (two, ear):
            two.subscribe("b")
            two.subscribe("b")
            two.unsubscribe("a")
            two.unsubscribe("never")
            await settle(two, ear)
            await one.publish("a", b"1")
            await one.publish("b", b"2")
            await ear.until(lambda: ear.heard)
            assert ear.heard == [("b", b"2")]
            two.unsubscribe("b")
            two.subscribe("b")
            await settle(two, ear)
            await one.publish("b", b"3")
            await ear.until(lambda: len(ear.heard) == 2)
            two.unsubscribe("b")
            await settle(two, ear)
            await one.publish("b", b"4")
            await settle(two, ear)
            assert ear.heard == [("b", b"2"), ("b", b"3")]

    make.run(work())


def test_many_channels(make: Maker) -> None:
    async def work() -> None:
        names = [f"room:{i}" for i in range(10_000)]
        async with opened(make.broker()) as (one, _), opened(make.broker(), *names) as (_, ear):
            for name in names:
                one.publish(name, name.encode())
            await ear.until(lambda: len(ear.heard) == len(names), 20)
            assert ear.heard == [(name, name.encode()) for name in names]

    make.run(work())


def test_large_messages(make: Maker) -> None:
    async def work() -> None:
        sent = [bytes([number]) * 1024**2 for number in range(8)]
        async with opened(make.broker()) as (one, _), opened(make.broker(), "a") as (_, ear):
            for each in sent:
                one.publish("a", each)
            await ear.until(lambda: len(ear.heard) == len(sent))
            assert ear.heard == [("a", each) for each in sent]

    make.run(work())


def test_a_receipt_tells_how_many_it_went_to_where_one_server_knows(make: Maker) -> None:
    async def work() -> None:
        async with opened(make.broker(), "a") as (one, _), opened(make.broker(), "a", "b"):
            told = [await one.publish(channel, b"x") for channel in "abc"]
            assert told == ([None] * 3 if make.kind == "cluster" else [2, 1, 0])

    make.run(work())


def test_a_rebuilt_broker_says_so_and_hears_again(make: Maker) -> None:
    async def work() -> None:
        async with opened(make.broker(), "a") as (broker, ear):
            broker.rebuild()
            await ear.until(lambda: ear.connections == 2)
            assert len(ear.losses) == 1
            await broker.publish("a", b"again")
            await ear.until(lambda: ear.heard)
            assert ear.heard == [("a", b"again")]

    make.run(work())


def test_after_close_nothing_is_heard_and_nothing_published(make: Maker) -> None:
    async def work() -> None:
        async with opened(make.broker(), "a") as (one, ear), opened(make.broker()) as (two, _):
            last = one.publish("a", b"last")
            await ear.until(lambda: ear.heard)
            await last
            await one.close()
            await two.publish("a", b"too late")
            with pytest.raises(BrokerUnavailable, match="closed"):
                await one.publish("a", b"nothing")
            await asyncio.sleep(0.05)
            assert ear.heard == [("a", b"last")]
            assert ear.losses == []

    make.run(work())
