"""A cluster: what is published on one node is heard on all, and any node may die."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.redis_server import until
from tests.redis_sets import Cluster
from ws_middleware import Publisher
from ws_middleware.hub.brokers.redis import RedisBroker

from .test_contract import opened, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.redis_server import RedisServer
    from ws_middleware.hub.brokers import Broker

    from .ear import Ear

#: Seconds from a node's death until messages flow again. It is seen at once, and the next node is
#: tried at once; the rest is for a busy machine.
BOUND = 10.0


async def until_carried(broker: Broker, ear: Ear, data: bytes, timeout: float = BOUND) -> None:
    async with asyncio.timeout(timeout):
        while ("a", data) not in ear.heard:
            broker.publish("a", data)
            await asyncio.sleep(0.1)


def ours(node: RedisServer) -> list[dict[str, str]]:
    """Return the connections of brokers to a node."""
    with node.client as client:
        return [each for each in client.client_list() if each["name"] == "ws_middleware"]


def listens(node: RedisServer) -> bool:
    return any(int(each["sub"]) for each in ours(node))


def publishes(node: RedisServer) -> bool:
    return any(not int(each["sub"]) for each in ours(node))


def are_apart(cluster: Cluster) -> bool:
    return sorted(len(ours(node)) for node in cluster.nodes) == [0, 1, 1]


def cut_listening(cluster: Cluster) -> None:
    for node in cluster.nodes:
        with node.client as client:
            client.client_kill_filter(_type="pubsub")


@pytest.mark.slow
def test_a_broker_listens_on_one_node_and_publishes_on_another(cluster: Cluster) -> None:
    async def work() -> None:
        async with opened(RedisBroker(cluster.url), "a") as (broker, ear):
            for drop in [broker.rebuild] * 2 + [lambda: cut_listening(cluster)] * 4:
                assert await broker.publish("a", b"x") is None
                await asyncio.to_thread(until, lambda: are_apart(cluster), 5)
                lives = ear.connections
                drop()
                await ear.until(lambda: ear.connections > lives)  # noqa: B023 - awaited here

    run(work())


@pytest.mark.slow
def test_when_a_node_is_killed_whoever_was_connected_to_it_goes_to_another(tmp_path: Path) -> None:
    async def work(cluster: Cluster) -> None:
        async with (
            opened(RedisBroker(cluster.url), "a") as (one, ear),
            opened(RedisBroker(cluster.url), "a") as (two, other),
        ):
            publisher = Publisher(cluster.url)
            for find in (listens, publishes):
                victim = next(node for node in cluster.nodes if find(node))
                losses = sum(len(each.losses) for each in (ear, other))
                heard_here = listens(victim)
                victim.kill()
                began = time.monotonic()
                for broker, hearing in ((one, other), (two, ear)):
                    await until_carried(broker, hearing, b"after")
                assert time.monotonic() - began < BOUND
                assert (sum(len(each.losses) for each in (ear, other)) > losses) == heard_here
                await asyncio.to_thread(publisher.everyone.send, "after")
                victim.start()
                await asyncio.to_thread(until, lambda: cluster.is_whole)
                for each in (ear, other):
                    each.heard.clear()

    with Cluster(tmp_path) as cluster:
        run(work(cluster))


@pytest.mark.slow
def test_when_a_node_hangs_whoever_is_told_so_goes_to_another(tmp_path: Path) -> None:
    async def work(cluster: Cluster) -> None:
        async with opened(RedisBroker(cluster.url), "a") as (broker, ear):
            await until_carried(broker, ear, b"before")
            victim = next(node for node in cluster.nodes if publishes(node))
            victim.send(signal.SIGSTOP)
            began = time.monotonic()
            await until_carried(broker, ear, b"after", 20)
            victim.send(signal.SIGCONT)
            victim = next(node for node in cluster.nodes if listens(node))
            victim.send(signal.SIGSTOP)
            broker.rebuild()  # as the bus does when it hears nothing of itself
            await ear.until(lambda: ear.connections == 2, 20)
            await until_carried(broker, ear, b"at last", 20)
            assert time.monotonic() - began < 40
            victim.send(signal.SIGCONT)

    with Cluster(tmp_path) as cluster:
        run(work(cluster))
