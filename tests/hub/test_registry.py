from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.hub.members import Member
from ws_middleware.hub.registry import Address, Registry

if TYPE_CHECKING:
    import unittest


def joined(*rooms: str, user: str = "") -> tuple[Registry, Member]:
    registry, member = Registry(), Member("1", user=user)
    registry.add(member)
    for room in rooms:
        registry.join(member, room)
    return registry, member


def test_an_open_socket_is_found_by_everything_it_is() -> None:
    registry, member = joined("x", user="ann")
    assert set(registry.addresses) == {
        Address("socket", "1"),
        Address("everyone"),
        Address("everyone", route="/ws"),
        Address("user", "ann"),
        Address("user", "ann", "/ws"),
        Address("room", "x"),
        Address("room", "x", "/ws"),
    }
    for address in registry.addresses:
        assert registry.members(address) == (member,)
        assert registry.count(address) == 1
    assert member in registry
    assert len(registry) == 1


def test_a_socket_is_not_found_by_what_it_is_not() -> None:
    registry, _ = joined("x", user="ann")
    for address in (
        Address("socket", "2"),
        Address("socket", "1", "/ws"),
        Address("everyone", route="/other"),
        Address("user", "bob"),
        Address("user", "ann", "/other"),
        Address("room", "y"),
        Address("room", "x", "/other"),
        Address("user", "x"),
        Address("room", "ann"),
    ):
        assert registry.members(address) == ()
        assert registry.count(address) == 0


def test_who_does_not_outlive_a_gap_is_found_by_that() -> None:
    registry, member = Registry(), Member("1", closes_for_gap=True)
    for each in (Member("2"), member):
        registry.add(each)
    assert registry.members(Address("gap")) == (member,)
    registry.remove(member)
    assert registry.count(Address("gap")) == 0


def test_nobody_is_in_no_user_audience() -> None:
    registry, _ = joined()
    assert {address.kind for address in registry.addresses} == {"socket", "everyone"}


def test_members_come_in_the_order_they_came() -> None:
    registry = Registry()
    members = [Member(str(number)) for number in range(20)]
    for member in members:
        registry.add(member)
    for member in reversed(members):
        registry.join(member, "x")
    registry.leave(members[5], "x")
    registry.join(members[5], "x")
    assert registry.members(Address("everyone")) == tuple(members)
    expected = [*[each for each in reversed(members) if each is not members[5]], members[5]]
    assert registry.members(Address("room", "x")) == tuple(expected)


def test_what_was_handed_out_does_not_change() -> None:
    registry, member = joined("x")
    taken = registry.members(Address("room", "x"))
    registry.remove(member)
    assert taken == (member,)


def test_a_socket_leaves_one_room_only() -> None:
    registry, member = joined("x", "y")
    registry.leave(member, "x")
    assert registry.count(Address("room", "x")) == 0
    assert registry.count(Address("room", "x", "/ws")) == 0
    assert registry.members(Address("room", "y")) == (member,)


def test_leaving_what_one_is_not_in_is_nothing() -> None:
    registry, member = joined("x")
    registry.leave(member, "y")
    registry.leave(Member("2"), "x")
    assert registry.members(Address("room", "x")) == (member,)


def test_a_socket_that_has_gone_joins_nothing() -> None:
    registry, member = joined()
    registry.remove(member)
    registry.join(member, "x")
    assert list(registry.addresses) == []
    assert len(registry) == 0


def test_removing_twice_or_what_was_never_there_is_nothing() -> None:
    registry, member = joined("x")
    registry.remove(Member("2"))
    assert len(registry) == 1
    registry.remove(member)
    registry.remove(member)
    assert (len(registry), list(registry.addresses)) == (0, [])


def test_a_socket_that_comes_again_is_in_no_room() -> None:
    registry, member = joined("x", user="ann")
    registry.remove(member)
    registry.add(member)
    assert registry.count(Address("room", "x")) == 0
    assert registry.count(Address("user", "ann")) == 1


def test_a_socket_that_was_added_twice_leaves_nothing_behind() -> None:
    registry, member = joined("x", user="ann")
    registry.add(member)
    registry.remove(member)
    assert (len(registry), list(registry.addresses)) == (0, [])


def test_a_watcher_hears_of_the_first_to_come_and_the_last_to_go_only() -> None:
    registry = Registry()
    heard: list[tuple[str, bool]] = []
    room = Address("room", "x")

    def hear(address: Address, *, present: bool) -> None:
        if address == room:
            heard.append((address.name, present))

    registry.on_change = hear
    ann, bob = Member("1"), Member("2")
    for member in (ann, bob):
        registry.add(member)
    assert heard == []
    for member in (ann, bob, ann):
        registry.join(member, "x")
    assert heard == [("x", True)]
    registry.leave(ann, "x")
    registry.leave(ann, "x")
    assert heard == [("x", True)]
    registry.remove(bob)
    registry.remove(bob)
    assert heard == [("x", True), ("x", False)]
    registry.join(ann, "x")
    assert heard == [("x", True), ("x", False), ("x", True)]


def test_10000_sockets_leave_nothing_behind() -> None:
    registry = Registry()
    members = [
        Member(str(n), route=f"/{n % 3}", user=str(n % 100) if n % 2 else "") for n in range(10_000)
    ]
    for number, member in enumerate(members):
        registry.add(member)
        for room in range(number % 4):
            registry.join(member, f"room{room}")
    assert registry.count(Address("everyone")) == 10_000
    assert registry.count(Address("room", "room2")) == 2_500
    assert registry.count(Address("user", "1")) == 100
    for member in members:
        registry.remove(member)
    assert (len(registry), list(registry.addresses)) == (0, [])


# --- any order -----------------------------------------------------------------------------------

ROOMS = ["x", "y", "everyone", "ann"]
MEMBERS = [
    Member(str(number), route=route, user=user, closes_for_gap=number % 3 == 0)
    for number, (route, user) in enumerate(
        [("/a", "ann"), ("/a", "ann"), ("/b", "ann"), ("/a", "bob"), ("/b", ""), ("/a", "")]
    )
]
ADDRESSES = [
    *(Address("socket", member.id) for member in MEMBERS),
    Address("gap"),
    *(
        address._replace(route=route)
        for route in (None, "/a", "/b", "/c")
        for address in (
            Address("everyone"),
            *(Address("user", name) for name in ("ann", "bob", "x")),
            *(Address("room", name) for name in ROOMS),
        )
    ),
]

_member = st.sampled_from(MEMBERS)
_room = st.sampled_from(ROOMS)


def belongs(member: Member, rooms: set[str], address: Address) -> bool:
    """Whether a socket in `rooms` is at `address`, thought through anew."""
    if address.kind == "socket":
        return member.id == address.name
    if address.kind == "gap":
        return member.closes_for_gap
    if address.route not in {None, member.route_name}:
        return False
    if address.kind == "everyone":
        return True
    if address.kind == "user":
        return member.user_id == address.name
    return address.name in rooms


class AgainstAModel(RuleBasedStateMachine):
    """The registry beside a dict from each open socket to the set of its rooms."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry()
        self.registry.on_change = self.hear
        self.model: dict[Member, set[str]] = {}
        #: Who was where before the last step, in the order they came.
        self.before: dict[Address, tuple[Member, ...]] = dict.fromkeys(ADDRESSES, ())
        #: What the watcher has heard in the last step.
        self.heard: list[tuple[Address, bool]] = []

    def hear(self, address: Address, *, present: bool) -> None:
        # Whoever is told looks at once, and must see what it is told.
        assert self.registry.count(address) == (1 if present else 0)
        assert (address in set(self.registry.addresses)) is present
        self.heard.append((address, present))

    @rule(member=_member)
    def add(self, member: Member) -> None:
        self.registry.add(member)
        self.model.setdefault(member, set())

    @rule(member=_member)
    def remove(self, member: Member) -> None:
        self.registry.remove(member)
        self.model.pop(member, None)

    @rule(member=_member, room=_room)
    def join(self, member: Member, room: str) -> None:
        self.registry.join(member, room)
        if member in self.model:
            self.model[member].add(room)

    @rule(member=_member, room=_room)
    def leave(self, member: Member, room: str) -> None:
        self.registry.leave(member, room)
        self.model.get(member, set()).discard(room)

    @precondition(lambda self: bool(self.model))
    @rule()
    def remove_all(self) -> None:
        for member in list(self.model):
            self.remove(member)
        assert list(self.registry.addresses) == []

    def expected(self, address: Address) -> tuple[Member, ...]:
        """Return who must be at `address`: those who stay, and behind them who has come."""
        there = {member for member, rooms in self.model.items() if belongs(member, rooms, address)}
        stayed = [member for member in self.before[address] if member in there]
        return (*stayed, *(there - set(stayed)))  # a step lets one come at the most

    @invariant()
    def is_as_the_model(self) -> None:
        now = {address: self.expected(address) for address in ADDRESSES}
        for address, members in now.items():
            assert self.registry.members(address) == members
            assert self.registry.count(address) == len(members)
        assert set(self.registry.addresses) == {each for each, members in now.items() if members}
        assert len(self.registry) == len(self.model)
        assert all((member in self.registry) == (member in self.model) for member in MEMBERS)

        changed = [
            (each, bool(now[each])) for each in now if bool(now[each]) != bool(self.before[each])
        ]
        assert sorted(self.heard, key=str) == sorted(changed, key=str)
        self.before, self.heard = now, []

    def teardown(self) -> None:
        present = {each for each, members in self.before.items() if members}
        for member in MEMBERS:
            self.registry.remove(member)
        assert list(self.registry.addresses) == []
        assert len(self.registry) == 0
        assert sorted(self.heard, key=str) == sorted([(each, False) for each in present], key=str)


TestAgainstAModel: type[unittest.TestCase] = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(  # type: ignore[attr-defined]
    derandomize=True, deadline=None, max_examples=60, stateful_step_count=40
)
