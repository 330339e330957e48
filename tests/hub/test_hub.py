from __future__ import annotations

import threading

import pytest

from tests.hub.members import Branch, Member
from ws_middleware.hub.fan_out import TURN
from ws_middleware.hub.hub import Hub, Sent
from ws_middleware.hub.registry import Address
from ws_middleware.types import EncodedMessage

EVERYONE = Address("everyone")
NOBODY: frozenset[str] = frozenset()


def many(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def hub_of(*branches: Branch) -> Hub:
    hub = Hub()
    for branch in branches:
        hub.attach(branch)
    return hub


def reached(branch: Branch) -> int:
    return sum(len(member.link.delivered) for member in branch.members)


# --- one loop ------------------------------------------------------------------------------------


def test_a_send_reaches_all_and_is_encoded_once() -> None:
    branch = Branch("1", "2", "3")
    message = EncodedMessage("x")
    receipt = hub_of(branch).send(EVERYONE, message, NOBODY)
    assert receipt.result(timeout=0) == Sent(3)
    assert [member.link.delivered for member in branch.members] == [[message]] * 3
    assert all(member.link.delivered[0] is message for member in branch.members)
    assert branch.clock.idle


def test_those_left_out_are_not_counted() -> None:
    branch = Branch("1", "2", "3")
    receipt = hub_of(branch).send(EVERYONE, EncodedMessage("x"), frozenset({"2", "9"}))
    assert receipt.result(timeout=0) == Sent(2)
    assert [member.link.texts for member in branch.members] == [["x"], [], ["x"]]


def test_only_those_at_the_address_are_reached() -> None:
    branch = Branch("1", "2", "3")
    branch.registry.join(branch.members[1], "x")
    hub = hub_of(branch)
    room = Address("room", "x")
    assert hub.send(room, EncodedMessage("x"), NOBODY).result(timeout=0) == Sent(1)
    assert hub.send(Address("room", "y"), EncodedMessage("x"), NOBODY).result(timeout=0) == Sent(0)
    assert [len(member.link.delivered) for member in branch.members] == [0, 1, 0]
    assert hub.count(room) == 1
    assert list(hub.local(room)) == [branch.members[1]]


def test_a_turn_of_the_loop_serves_1000_links() -> None:
    assert TURN == 1000
    branch = Branch(*many(2500))
    receipt = hub_of(branch).send(EVERYONE, EncodedMessage("x"), NOBODY)
    assert reached(branch) == 1000
    assert not receipt.done
    branch.clock.turn()
    assert reached(branch) == 2000
    assert not receipt.done
    branch.clock.turn()
    assert reached(branch) == 2500
    assert receipt.result(timeout=0) == Sent(2500)
    assert branch.clock.idle
    assert {len(member.link.delivered) for member in branch.members} == {1}


@pytest.mark.parametrize("count", [999, 1000, 1001, 2000])
def test_each_is_reached_once_whatever_the_number(count: int) -> None:
    branch = Branch(*many(count))
    receipt = hub_of(branch).send(EVERYONE, EncodedMessage("x"), NOBODY)
    assert reached(branch) == min(count, 1000)
    branch.clock.run()
    assert receipt.result(timeout=0) == Sent(count)
    assert {len(member.link.delivered) for member in branch.members} == {1}


def test_sends_stay_in_their_order() -> None:
    branch = Branch(*many(1500))
    hub = hub_of(branch)
    last = Address("socket", "1499")
    receipts = [
        hub.send(EVERYONE, EncodedMessage("a"), NOBODY),
        hub.send(last, EncodedMessage("b"), NOBODY),
        hub.send(EVERYONE, EncodedMessage("c"), NOBODY),
    ]
    assert [receipt.done for receipt in receipts] == [False, False, False]
    branch.clock.turn()
    assert [receipt.done for receipt in receipts] == [True, True, False]
    assert reached(branch) == 2000
    branch.clock.run()
    assert branch.members[0].link.texts == ["a", "c"]
    assert branch.members[1499].link.texts == ["a", "b", "c"]
    assert [receipt.result(timeout=0).local for receipt in receipts] == [1500, 1, 1500]


def test_small_sends_share_a_turn() -> None:
    branch = Branch(*many(1300))
    hub = hub_of(branch)
    for number in range(600):
        branch.registry.join(branch.members[number], "x")
    hub.send(EVERYONE, EncodedMessage("a"), NOBODY)
    hub.send(Address("room", "x"), EncodedMessage("b"), NOBODY)
    hub.send(Address("room", "x"), EncodedMessage("c"), NOBODY)
    branch.clock.turn()
    assert reached(branch) == 1000 + 300 + 600 + 100
    branch.clock.turn()
    assert reached(branch) == 1300 + 600 + 600
    assert branch.clock.idle


def test_who_is_there_is_looked_up_when_the_send_begins() -> None:
    branch = Branch(*many(1500))
    hub = hub_of(branch)
    first = hub.send(EVERYONE, EncodedMessage("a"), NOBODY)
    second = hub.send(EVERYONE, EncodedMessage("b"), NOBODY)
    late = Member("late")
    branch.registry.add(late)
    branch.clock.run()
    assert late.link.texts == ["b"]
    assert (first.result(timeout=0), second.result(timeout=0)) == (Sent(1500), Sent(1501))


def test_one_that_has_gone_meanwhile_gets_nothing_and_is_not_counted() -> None:
    branch = Branch(*many(1500))
    receipt = hub_of(branch).send(EVERYONE, EncodedMessage("a"), NOBODY)
    branch.registry.remove(branch.members[1499])
    branch.clock.run()
    assert branch.members[1499].link.texts == []
    assert receipt.result(timeout=0) == Sent(1499)


def test_those_left_out_take_their_place_in_a_turn() -> None:
    branch = Branch(*many(1200))
    receipt = hub_of(branch).send(EVERYONE, EncodedMessage("a"), frozenset(many(1000)))
    assert reached(branch) == 0
    branch.clock.turn()
    assert reached(branch) == 200
    assert receipt.result(timeout=0) == Sent(200)


def test_a_link_that_closes_its_socket_on_delivery_harms_no_other() -> None:
    branch = Branch("1", "2", "3")

    def drop(message: EncodedMessage) -> None:
        branch.registry.remove(branch.members[0])
        branch.registry.remove(branch.members[1])

    branch.members[0].link.deliver = drop  # type: ignore[method-assign]
    receipt = hub_of(branch).send(EVERYONE, EncodedMessage("x"), NOBODY)
    assert receipt.result(timeout=0) == Sent(2)
    assert [member.link.texts for member in branch.members] == [[], [], ["x"]]


@pytest.mark.parametrize("count", [1, 1500])
def test_a_callback_of_a_receipt_may_send(count: int) -> None:
    branch = Branch(*many(count), direct=False)
    hub = hub_of(branch)
    first = hub.send(EVERYONE, EncodedMessage("a"), NOBODY)
    first.add_done_callback(
        lambda: branch.on_its_thread(lambda: hub.send(EVERYONE, EncodedMessage("b"), NOBODY))
    )
    branch.run_posted()
    branch.clock.run()
    assert first.result(timeout=0) == Sent(count)
    assert [member.link.texts for member in branch.members] == [["a", "b"]] * count
    assert branch.clock.idle


# --- closing -------------------------------------------------------------------------------------


def test_a_close_reaches_all_at_once() -> None:
    branch = Branch("1", "2")
    receipt = hub_of(branch).close(EVERYONE, 4000, "bye", 0.0)
    assert receipt.result(timeout=0) == Sent(2)
    assert [member.link.closed for member in branch.members] == [[(0.0, 4000, "bye")]] * 2


def test_a_close_is_spread_over_its_time() -> None:
    branch = Branch(*many(5))
    receipt = hub_of(branch).close(EVERYONE, 1012, "restart", 10.0)
    assert not receipt.done
    branch.clock.run()
    assert [member.link.closed for member in branch.members] == [
        [(at, 1012, "restart")] for at in (0.0, 2.0, 4.0, 6.0, 8.0)
    ]
    assert receipt.result(timeout=0) == Sent(5)
    assert branch.clock.now == 10.0


def test_a_close_of_nobody_is_done_at_once() -> None:
    receipt = hub_of(Branch()).close(EVERYONE, 1000, "", 10.0)
    assert receipt.result(timeout=0) == Sent(0)


def test_a_close_that_is_spread_holds_no_send_up() -> None:
    branch = Branch(*many(4))
    hub = hub_of(branch)
    hub.close(EVERYONE, 1012, "", 8.0)
    receipt = hub.send(EVERYONE, EncodedMessage("x"), NOBODY)
    assert receipt.result(timeout=0) == Sent(4)
    assert branch.clock.now == 0.0


def test_one_that_has_gone_before_its_turn_is_not_closed() -> None:
    branch = Branch(*many(3))
    receipt = hub_of(branch).close(EVERYONE, 1012, "", 3.0)
    branch.registry.remove(branch.members[2])
    branch.clock.run()
    assert [len(member.link.closed) for member in branch.members] == [1, 1, 0]
    assert receipt.result(timeout=0) == Sent(2)


# --- several loops -------------------------------------------------------------------------------


def test_a_send_to_nobody_is_done() -> None:
    hub = Hub()
    assert hub.send(EVERYONE, EncodedMessage("x"), NOBODY).result(timeout=0) == Sent(0)
    assert hub.count(EVERYONE) == 0
    assert list(hub.local(EVERYONE)) == []


def test_the_shares_of_several_loops_add_up() -> None:
    branches = [Branch("1", "2"), Branch("3", direct=False), Branch(*many(1500))]
    receipt = hub_of(*branches).send(EVERYONE, EncodedMessage("x"), frozenset({"2"}))
    branches[2].clock.run()
    assert not receipt.done
    branches[1].run_posted()
    assert receipt.result(timeout=0) == Sent(1 + 1 + 1499)


def test_a_loop_that_is_slow_holds_no_other_up() -> None:
    slow, quick = Branch("1", direct=False), Branch("2")
    receipt = hub_of(slow, quick).send(EVERYONE, EncodedMessage("x"), NOBODY)
    assert reached(quick) == 1
    assert reached(slow) == 0
    assert not receipt.done
    slow.run_posted()
    assert receipt.result(timeout=0) == Sent(2)


def test_a_loop_that_has_ended_has_a_share_of_nothing() -> None:
    for order in (1, -1):
        ended, going = Branch("1"), Branch("2")
        ended.ended = True
        hub = hub_of(*[ended, going][::order])
        receipt = hub.send(EVERYONE, EncodedMessage("x"), NOBODY)
        assert receipt.result(timeout=0) == Sent(1)
        assert reached(ended) == 0
    alone = Branch("1")
    alone.ended = True
    assert hub_of(alone).send(EVERYONE, EncodedMessage("x"), NOBODY).result(timeout=0) == Sent(0)


def test_a_loop_that_is_detached_is_asked_no_more() -> None:
    one, two = Branch("1"), Branch("2")
    hub = hub_of(one, two)
    hub.detach(one)
    hub.detach(Branch())
    assert hub.count(EVERYONE) == 1
    assert hub.send(EVERYONE, EncodedMessage("x"), NOBODY).result(timeout=0) == Sent(1)
    assert (reached(one), reached(two)) == (0, 1)


def test_counting_and_looking_go_over_all_loops() -> None:
    one, two = Branch("1", "2"), Branch("3")
    hub = hub_of(one, two)
    assert hub.count(EVERYONE) == 3
    assert list(hub.local(EVERYONE)) == [*one.members, *two.members]


def test_a_child_after_a_fork_has_none_of_the_loops() -> None:
    hub = hub_of(Branch("1"))
    hub.after_fork()
    assert hub.count(EVERYONE) == 0
    hub.attach(Branch("2"))
    assert hub.count(EVERYONE) == 1


def test_receipts_add_up_whatever_threads_the_loops_are() -> None:
    branches = [Branch(*many(5), direct=False) for _ in range(16)]
    hub = hub_of(*branches)
    receipts = [hub.send(EVERYONE, EncodedMessage("x"), NOBODY) for _ in range(20)]
    threads = [threading.Thread(target=branch.run_posted) for branch in branches]
    for thread in threads:
        thread.start()
    assert [receipt.result(timeout=10).local for receipt in receipts] == [80] * 20
    for thread in threads:
        thread.join(10)


def test_loops_may_come_and_go_while_others_send() -> None:
    hub = hub_of(Branch("1"))
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            branch = Branch("2", "3")
            hub.attach(branch)
            hub.detach(branch)

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    counts = {
        hub.send(EVERYONE, EncodedMessage("x"), NOBODY).result(timeout=10).local for _ in range(300)
    }
    stop.set()
    for thread in threads:
        thread.join(10)
    assert counts <= {1, 3, 5, 7}
    assert hub.count(EVERYONE) == 1
