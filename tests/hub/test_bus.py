"""Several processes on one bus: each a hub with a loop of its own, all of it driven by hand."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.hub.members import Branch, Member
from ws_middleware.errors import BrokerRequired, BrokerUnavailable
from ws_middleware.hub.bus import Bus
from ws_middleware.hub.canary import BEAT
from ws_middleware.hub.hub import Hub, Sent
from ws_middleware.hub.questions import Answers
from ws_middleware.hub.registry import Address
from ws_middleware.receipt import Receipt
from ws_middleware.types import EncodedMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from ws_middleware.hub.brokers import Subscriber

EVERYONE = Address("everyone")
NOBODY: frozenset[str] = frozenset()


class Wire:
    """What the brokers of a test have in common; what is published arrives when it is told to."""

    def __init__(self) -> None:
        self.brokers: list[Broker] = []
        self.published: list[tuple[str, bytes]] = []

    def carry(self) -> None:
        published, self.published = self.published, []
        for channel, data in published:
            for broker in self.brokers:
                broker.hear(channel, data)


class Broker:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.subscriber: Subscriber
        self.channels: set[str] = set()
        self.away = self.hears_nothing = False
        self.rebuilt = 0
        wire.brokers.append(self)

    def __repr__(self) -> str:
        return "<Broker>"

    def open(self, subscriber: Subscriber) -> None:
        self.subscriber = subscriber
        subscriber.connected()

    def subscribe(self, channel: str) -> None:
        self.channels.add(channel)

    def unsubscribe(self, channel: str) -> None:
        self.channels.discard(channel)

    def publish(self, channel: str, data: bytes) -> Receipt[int | None]:
        if self.away:
            return Receipt.failed(BrokerUnavailable("away"))
        self._wire.published.append((channel, data))
        return Receipt.ready(sum(channel in each.channels for each in self._wire.brokers))

    def hear(self, channel: str, data: bytes) -> None:
        if channel in self.channels and not self.hears_nothing:
            self.subscriber.received(channel, data)

    def rebuild(self) -> None:
        self.rebuilt += 1
        self.subscriber.lost(BrokerUnavailable("deaf"))

    async def close(self) -> None: ...


class Process:
    """One process: its hub, its loop, its members."""

    def __init__(
        self,
        wire: Wire,
        node: str,
        secret: bytes | None = None,
        respond: Callable[[Any], object] | None = None,
    ) -> None:
        self.branch = Branch()
        self.hub = Hub()
        self.broker = Broker(wire)
        self.gaps: list[tuple[float, float]] = []
        self.node = node
        self.bus = Bus(
            self.broker,
            self.branch,
            prefix="wsm:shop",
            node=node,
            deliver=self.hub.deliver,
            on_gap=lambda since, until: self.gaps.append((since, until)),
            respond=respond or self.hub.respond,
            wall=lambda: self.branch.clock.now,
            largest=lambda: 1000,
            secret=secret,
        )
        self.hub.uplink.offer(self.branch, lambda: self.bus)
        self.branch.clock.turn()
        self.hub.attach(self.branch)
        self.count = 0

    def member(self, *, route: str = "/ws", user: str = "", room: str | None = None) -> Member:
        self.count += 1
        member = Member(f"{self.node}-{self.count}", route=route, user=user)
        self.branch.registry.add(member)
        if room is not None:
            self.branch.registry.join(member, room)
        return member

    def beat(self, wire: Wire, *, carry: bool = True) -> None:
        self.branch.clock.now += BEAT
        self.branch.clock.turn()
        if carry:
            wire.carry()


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_a_message_reaches_each_member_of_each_process_once(wire: Wire) -> None:
    processes = [Process(wire, node) for node in ("a", "b", "c")]
    members = [each.member(room="7") for each in processes for _ in range(2)]
    others = [each.member(room="8") for each in processes]
    room = Address("room", "7", "/ws")
    receipt = processes[0].hub.send(room, EncodedMessage("hi"), frozenset({"a-1", "b-2"}))
    assert receipt.result(0) == Sent(1, published=True)
    wire.carry()
    wire.carry()
    assert [each.link.texts for each in members] == [[], ["hi"], ["hi"], [], ["hi"], ["hi"]]
    assert [each.link.texts for each in others] == [[], [], []]


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        pytest.param(Address("everyone"), "all", id="everyone"),
        pytest.param(Address("everyone", "", "/ws"), "ann bob", id="everyone of a route"),
        pytest.param(Address("user", "ann"), "ann other", id="a user"),
        pytest.param(Address("user", "ann", "/ws"), "ann", id="a user of a route"),
        pytest.param(Address("socket", "b-2"), "bob", id="a socket"),
        pytest.param(Address("socket", "b-9"), "", id="a socket that has gone"),
    ],
)
def test_every_kind_of_address_is_reached(wire: Wire, address: Address, reached: str) -> None:
    here, there = Process(wire, "a"), Process(wire, "b")
    members = {
        "ann": there.member(user="ann"),
        "bob": there.member(user="bob"),
        "other": there.member(route="/other", user="ann"),
    }
    here.hub.send(address, EncodedMessage("x"), NOBODY)
    wire.carry()
    found = {name for name, member in members.items() if member.link.texts}
    assert found == (set(members) if reached == "all" else set(reached.split()))


def test_the_order_of_a_sender_is_kept(wire: Wire) -> None:
    here, there = Process(wire, "a"), Process(wire, "b")
    member = there.member()
    for i in range(100):
        here.hub.send(EVERYONE, EncodedMessage(str(i)), NOBODY)
    wire.carry()
    assert member.link.texts == [str(i) for i in range(100)]


def test_a_close_reaches_them_too_and_is_spread(wire: Wire) -> None:
    here, there = Process(wire, "a"), Process(wire, "b")
    members = [there.member(user="ann") for _ in range(4)]
    here.hub.close(Address("user", "ann"), 4401, "logged_out", 2.0)
    wire.carry()
    there.branch.clock.run_until(2.0)
    assert [each.link.closed[0][1:] for each in members] == [(4401, "logged_out")] * 4


def test_only_what_somebody_wants_to_hear_is_subscribed_to(wire: Wire) -> None:
    process = Process(wire, "a")
    own = {"wsm:shop:node:a", "wsm:shop:nodes"}
    assert process.broker.channels == own
    one, two = process.member(room="7"), process.member(room="7")
    assert process.broker.channels == own | {
        "wsm:shop:everyone:",
        "wsm:shop:everyone:/ws",
        "wsm:shop:room:/ws:7",
        "wsm:shop:room::7",
    }
    process.branch.registry.join(one, "7")
    process.branch.registry.leave(one, "7")
    assert "wsm:shop:room::7" in process.broker.channels
    process.branch.registry.remove(two)
    assert "wsm:shop:room::7" not in process.broker.channels
    process.branch.registry.remove(one)
    assert process.broker.channels == own


def test_a_loop_that_ends_wants_to_hear_nothing(wire: Wire) -> None:
    process = Process(wire, "a")
    process.member(room="7", user="ann")
    process.hub.detach(process.branch)
    assert process.broker.channels == {"wsm:shop:node:a", "wsm:shop:nodes"}


def test_two_loops_share_a_subscription(wire: Wire) -> None:
    process = Process(wire, "a")
    other = Branch()
    process.hub.attach(other)
    one, two = process.member(), Member("a-9")
    other.registry.add(two)
    Process(wire, "b").hub.send(EVERYONE, EncodedMessage("x"), NOBODY)
    wire.carry()
    assert (one.link.texts, two.link.texts) == (["x"], ["x"])
    process.branch.registry.remove(one)
    assert "wsm:shop:everyone:" in process.broker.channels
    other.registry.remove(two)
    assert process.broker.channels == {"wsm:shop:node:a", "wsm:shop:nodes"}


# --- a broker that is away -----------------------------------------------------------------------


def test_while_the_broker_is_away_those_here_are_reached(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    process = Process(wire, "a")
    member = process.member()
    assert process.bus.is_ready
    process.branch.clock.now = 100.0
    process.broker.away = True
    for _ in range(3):
        process.broker.subscriber.lost(ConnectionError("refused"))
    assert not process.bus.is_ready
    receipt = process.hub.send(EVERYONE, EncodedMessage("x"), NOBODY)
    assert receipt.result(0) == Sent(1, published=False)
    assert member.link.texts == ["x"]
    process.branch.clock.now = 120.0
    process.broker.away = False
    process.broker.subscriber.connected()
    assert process.bus.is_ready
    assert process.gaps == [(0.0, 120.0)]  # since it was last known to carry anything
    warnings = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert warnings == [
        "<Broker> is away (refused): messages go to the sockets of this process only; trying again",
        (
            "<Broker> is back after 120.0 s; what others sent meanwhile is lost, and 1 sends of "
            "this process so far"
        ),
    ]


def test_a_deaf_process_says_so_and_subscribes_anew(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(wire, "a")
    process.beat(wire)
    process.beat(wire)
    assert process.bus.is_ready
    last = process.branch.clock.now
    process.broker.hears_nothing = True
    while process.bus.is_ready:
        process.beat(wire)
        assert process.branch.clock.now - last <= 15
    assert process.broker.rebuilt == 1
    assert "deaf: two beats of this process did not come back" in caplog.text
    process.beat(wire)
    assert process.broker.rebuilt == 1  # it is being rebuilt
    process.broker.hears_nothing = False
    process.broker.subscriber.connected()
    assert process.bus.is_ready
    assert process.gaps == [(last, process.branch.clock.now)]
    for _ in range(5):
        process.beat(wire)
    assert process.bus.is_ready
    assert process.bus.counts["deaf"] == 1


def test_a_bus_that_ends_beats_no_more(wire: Wire) -> None:
    process = Process(wire, "a")
    coroutine = process.bus.close()
    with pytest.raises(StopIteration):
        coroutine.send(None)
    process.beat(wire, carry=False)
    assert wire.published == []
    assert not process.bus.is_ready


# --- what others publish -------------------------------------------------------------------------


def test_an_outsider_is_heard(wire: Wire) -> None:
    member = Process(wire, "a").member(room="7")
    wire.published.append(("wsm:shop:room:/ws:7", b'{"v": 1, "json": {"hi": 1}}'))
    wire.carry()
    assert member.link.texts == ['{"hi":1}']


def test_what_cannot_be_read_is_counted_and_told_once(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(wire, "a")
    member = process.member()
    for data in (b"\x80", b"{}", b'{"v":1,"text":"\\ud800"}', b'{"v":9,"text":"x"}'):
        wire.published.append(("wsm:shop:everyone:", data))
    wire.carry()
    assert member.link.texts == []
    assert process.bus.counts == {"dropped_malformed": 3, "dropped_version": 1}
    assert len(caplog.records) == 2
    wire.published.append(("wsm:shop:everyone:", b'{"v":1,"text":"next"}'))
    wire.carry()
    assert member.link.texts == ["next"]


def test_with_a_secret_only_those_who_have_it_are_heard(wire: Wire) -> None:
    secret = b"s" * 32
    one, two = Process(wire, "a", secret), Process(wire, "b", secret)
    stranger, member = Process(wire, "c"), two.member()
    one.hub.send(EVERYONE, EncodedMessage("ours"), NOBODY)
    stranger.hub.send(EVERYONE, EncodedMessage("theirs"), NOBODY)
    wire.carry()
    assert member.link.texts == ["ours"]
    assert two.bus.counts["dropped_forged"] == 1


def test_nobody_else_can_beat_for_a_process(wire: Wire) -> None:
    process = Process(wire, "a")
    process.broker.hears_nothing = True
    for _ in range(3):
        process.beat(wire)
        forged = json.dumps({"v": 1, "beat": 10**6, "node": "a"}).encode()
        process.bus.received("wsm:shop:node:a", forged)
    assert not process.bus.is_ready


def test_siblings_without_a_bus_are_told_of(wire: Wire) -> None:
    process = Process(wire, "a")
    process.hub.has_siblings = True
    process.hub.send(EVERYONE, EncodedMessage("x"), NOBODY)
    process.hub.uplink.withdraw(process.branch)
    with pytest.raises(BrokerRequired):
        process.hub.send(EVERYONE, EncodedMessage("x"), NOBODY)


# --- what processes ask each other ---------------------------------------------------------------


def test_a_count_is_of_all_processes(wire: Wire) -> None:
    processes = [Process(wire, node) for node in ("a", "b", "c")]
    for number, each in enumerate(processes):
        for _ in range(number + 1):
            each.member(room="7")
        each.member(room="8")
    receipt = processes[0].hub.count_everywhere(Address("room", "7"))
    assert not receipt.done
    wire.carry()  # the question
    wire.carry()  # the answers
    assert receipt.result(0) == 6


def test_a_count_of_a_process_that_is_alone(wire: Wire) -> None:
    process = Process(wire, "a")
    process.member()
    receipt = process.hub.count_everywhere(EVERYONE)
    assert receipt.result(0) == 1
    alone = Hub()
    alone.attach(Branch("1", "2"))
    assert alone.count_everywhere(EVERYONE).result(0) == 2


def test_a_process_that_does_not_answer_is_missed_after_two_seconds(wire: Wire) -> None:
    one, two = Process(wire, "a"), Process(wire, "b")
    two.broker.hears_nothing = True
    receipt = one.hub.count_everywhere(EVERYONE)
    wire.carry()
    one.branch.clock.run_until(1.9)
    assert not receipt.done
    one.branch.clock.run_until(2.0)
    with pytest.raises(BrokerUnavailable, match="1 of 1 other processes did not answer"):
        receipt.result(0)


def test_a_process_that_has_just_begun_asks_when_it_is_connected(wire: Wire) -> None:
    one, two = Process(wire, "a"), Process(wire, "b")
    two.member()
    one.bus.is_ready = False
    receipt = one.hub.count_everywhere(EVERYONE)
    wire.carry()
    assert not receipt.done
    one.broker.subscriber.connected()
    wire.carry()
    wire.carry()
    assert receipt.result(0) == 1


def test_while_the_broker_is_away_nobody_can_be_asked(wire: Wire) -> None:
    process = Process(wire, "a")
    process.broker.subscriber.lost(ConnectionError("refused"))
    receipt = process.hub.count_everywhere(EVERYONE)
    process.branch.clock.run_until(2.0)
    with pytest.raises(BrokerUnavailable, match="<Broker> is away"):
        receipt.result(0)
    process.broker.subscriber.connected()
    process.broker.away = True
    with pytest.raises(BrokerUnavailable):
        process.hub.count_everywhere(EVERYONE).result(0)
    process.branch.ended = True
    with pytest.raises(BrokerUnavailable):
        process.hub.count_everywhere(EVERYONE).result(0)


def test_an_answer_that_cannot_be_given_is_missing(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(ask: object) -> object:
        raise ZeroDivisionError

    one = Process(wire, "a")
    two = Process(wire, "b", respond=fail)
    member = two.member()
    receipt = one.hub.ask("stats")
    wire.carry()
    wire.carry()
    one.branch.clock.run_until(2.0)
    assert receipt.result(0) == Answers((), missing=1)
    assert "could not be answered" in caplog.text
    one.hub.send(EVERYONE, EncodedMessage("next"), NOBODY)
    wire.carry()
    assert member.link.texts == ["next"]


# --- on which loop it lives ----------------------------------------------------------------------


class Loops:
    """A process of several loops, each of which offers the bus a home."""

    def __init__(self, wire: Wire) -> None:
        self.hub = Hub()
        self.gaps: list[tuple[float, float]] = []
        self.branches = [Branch(), Branch()]
        self.buses: list[Bus] = []
        self.wire = wire
        for branch in self.branches:
            self.hub.attach(branch)
            self.hub.uplink.offer(branch, partial(self.make, branch))
            branch.clock.turn()

    def make(self, branch: Branch) -> Bus:
        bus = Bus(
            Broker(self.wire),
            branch,
            prefix="wsm:shop",
            node="a",
            deliver=self.hub.deliver,
            on_gap=lambda since, until: self.gaps.append((since, until)),
            respond=self.hub.respond,
            wall=lambda: branch.clock.now,
            largest=lambda: 1000,
        )
        self.buses.append(bus)
        return bus


def test_the_bus_moves_when_its_loop_ends(wire: Wire) -> None:
    process, other = Loops(wire), Process(wire, "b")
    one, two = process.branches
    members = [Member("a-1", user="ann"), Member("a-2", user="bob")]
    one.registry.add(members[0])
    two.registry.add(members[1])
    assert len(process.buses) == 1
    assert process.hub.bus is process.buses[0]

    one.ended = True
    process.hub.detach(one)
    left = process.hub.uplink.withdraw(one)
    assert left is process.buses[0]
    wire.brokers.remove(left._broker)  # type: ignore[arg-type]
    assert process.hub.bus is process.buses[1]
    two.clock.turn()
    assert process.gaps == [(0.0, 0.0)]  # what came in between is lost

    other.hub.send(EVERYONE, EncodedMessage("x"), NOBODY)
    wire.carry()
    assert (members[0].link.texts, members[1].link.texts) == ([], ["x"])
    channels = wire.brokers[-1].channels
    assert "wsm:shop:user::bob" in channels
    assert "wsm:shop:user::ann" not in channels
    two.registry.remove(members[1])
    assert wire.brokers[-1].channels == {"wsm:shop:node:a", "wsm:shop:nodes"}


def test_the_end_of_another_loop_moves_nothing(wire: Wire) -> None:
    process = Loops(wire)
    two = process.branches[1]
    process.hub.detach(two)
    assert process.hub.uplink.withdraw(two) is None
    assert process.hub.bus is process.buses[0]
    assert process.hub.uplink.withdraw(process.branches[0]) is process.buses[0]
    assert process.hub.bus is None


def test_a_loop_that_came_before_the_bus_is_heard(wire: Wire) -> None:
    hub, branch = Hub(), Branch("a-1")
    hub.attach(branch)
    process = Loops(wire)
    process.hub.attach(branch)
    assert "wsm:shop:everyone:" in wire.brokers[0].channels


# --- sockets that do not go on after a gap -------------------------------------------------------


def test_after_a_gap_sockets_are_closed_where_the_route_says_so(wire: Wire) -> None:
    process = Process(wire, "a")
    kept = process.member()
    closing = [Member(f"a-x{number}", closes_for_gap=True) for number in range(3)]
    for member in closing:
        process.branch.registry.add(member)
    assert not any("gap" in channel for channel in process.broker.channels)
    process.hub.close_for_gap()
    process.branch.clock.run_until(1.0)
    assert [each.link.closed[0][1:] for each in closing] == [(1013, "messages_missed")] * 3
    assert kept.link.closed == []
    for member in closing:
        process.branch.registry.remove(member)
    process.hub.close_for_gap()
