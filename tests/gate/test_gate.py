from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gate.upgrades import Entry, Field, policy, upgrade
from ws_middleware.config import DEFAULT_LIMITS, EffectivePolicy, Limits, ServerLimits
from ws_middleware.errors import ConfigError
from ws_middleware.gate.auth.anonymous import ANONYMOUS
from ws_middleware.gate.auth.jwt import JWTAuth
from ws_middleware.gate.gate import Candidate, Gate, Slot
from ws_middleware.gate.routing import PathTemplate
from ws_middleware.types import Principal, Refusal, UpgradeRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ANN, BOB = Principal("ann"), Principal("bob")
JWT = JWTAuth("k" * 32, algorithms=["HS256"])


def by_cookie(request: UpgradeRequest) -> str | None:
    return request.cookies.get("user")


def gate_of(
    route: EffectivePolicy,
    limits: ServerLimits | None = None,
    *,
    path: str = "/ws",
    refuse_with: str = "http",
) -> Gate:
    gate = Gate(limits or ServerLimits(), refuse_with)
    gate.add(PathTemplate(path), Entry("ws", route))
    return gate


def candidate_of(gate: Gate, target: str = "/ws", **fields: Field) -> Candidate:
    outcome = gate.check(upgrade(target, **fields), 0.0)
    assert isinstance(outcome, Candidate)
    return outcome


def refusal_of(gate: Gate, target: str = "/ws", **fields: Field) -> Refusal:
    outcome = gate.check(upgrade(target, **fields), 0.0)
    assert isinstance(outcome, Refusal)
    return outcome


def admitted(gate: Gate, principal: Principal = ANN) -> Slot:
    slot = gate.admit(candidate_of(gate), principal, 0.0)
    assert isinstance(slot, Slot)
    return slot


def limited(per_user: int | None) -> Limits:
    return Limits(connections_per_user=per_user).inherit(DEFAULT_LIMITS)


# --- the order of the questions ------------------------------------------------------------------


def test_a_candidate_knows_its_route_and_its_parameters() -> None:
    gate = gate_of(policy(), path="/chat/<int:room>")
    candidate = candidate_of(gate, "/chat/7")
    assert candidate.entry.name == "ws"
    assert candidate.request.path_params == {"room": 7}


@pytest.mark.parametrize(
    ("target", "fields", "expected"),
    [
        pytest.param("/no", {"upgrade": None}, (404, "route_unknown"), id="route-first"),
        pytest.param(
            "/ws",
            {"upgrade": None, "origin": "https://evil.example"},
            (426, "upgrade_required"),
            id="validity-before-origin",
        ),
        pytest.param(
            "/ws",
            {"origin": "https://evil.example"},
            (403, "origin_not_allowed"),
            id="origin-before-credential",
        ),
        pytest.param("/ws", {}, (403, "origin_missing"), id="origin-needed-for-cookies"),
        pytest.param("/ws%FF", {}, (404, "route_unknown"), id="invalid-utf-8"),
    ],
)
def test_the_first_no_counts(
    target: str, fields: dict[str, Field], expected: tuple[int, str]
) -> None:
    gate = gate_of(policy(by_cookie))
    refusal = refusal_of(gate, target, **fields)
    assert (refusal.status, refusal.code) == expected
    assert gate.counts == (0, 0, 0)


def test_an_unknown_path_is_told_without_naming_it() -> None:
    assert refusal_of(gate_of(policy()), "/secret") == Refusal(
        404, "route_unknown", "there is no WebSocket endpoint at this path"
    )


def test_an_authenticator_that_reads_no_cookies_needs_no_origin() -> None:
    assert isinstance(gate_of(policy(JWT)).check(upgrade(), 0.0), Candidate)


def test_the_token_is_taken_out_before_the_authenticator_is_asked() -> None:
    candidate = candidate_of(gate_of(policy(JWT)), "/ws?token=SECRET")
    assert candidate.request.credential is not None
    assert candidate.request.credential.token == "SECRET"
    assert candidate.request.target == "/ws?token=-"
    assert "SECRET" not in repr(candidate)


def test_a_route_is_found_with_its_parameters_and_without_its_token() -> None:
    gate = gate_of(policy(JWT), path="/chat/<int:room>")
    routed = gate.find(upgrade("/chat/7?token=SECRET", host=None))
    assert routed is not None
    assert (routed.request.target, routed.request.path_params) == ("/chat/7?token=-", {"room": 7})
    assert "SECRET" not in repr(routed)
    assert gate.counts == (0, 0, 0), "nothing has been asked yet"
    refusal = gate.check_routed(routed, 0.0)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "upgrade_malformed"


def test_a_path_that_is_none_of_ours_is_not_found() -> None:
    assert gate_of(policy()).find(upgrade("/other")) is None


def test_a_callable_without_sources_sees_the_request_as_sent() -> None:
    request = upgrade("/ws?token=x", origin="http://myapp.com", sec_websocket_protocol="bearer, x")
    outcome = gate_of(policy(by_cookie)).check(request, 0.0)
    assert isinstance(outcome, Candidate)
    assert outcome.request == request


def test_no_refusal_of_the_gate_names_the_token() -> None:
    gate = gate_of(policy(JWT))
    wrong: list[dict[str, Field]] = [
        {"origin": "https://evil.example"},
        {"upgrade": None},
        {"connection": None},
        {"sec_websocket_version": None},
        {"sec_websocket_key": None},
        {"host": "x y"},
    ]
    for fields in wrong:
        refusal = gate.check(
            upgrade(
                "/ws?token=SECRET",
                authorization="Bearer SECRET",
                **{"sec_websocket_protocol": "bearer, SECRET", "origin": "null", **fields},
            ),
            0.0,
        )
        assert isinstance(refusal, Refusal)
        assert "SECRET" not in repr(refusal)


def test_an_origin_that_is_none_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"^origins: 'myapp.com' is no origin"):
        gate_of(policy(JWT, origins=("myapp.com",)))


def test_a_path_that_is_taken_is_a_config_error() -> None:
    gate = gate_of(policy())
    with pytest.raises(ConfigError, match=r"^there is a route for /ws already$"):
        gate.add(PathTemplate("/ws"), Entry("other", policy()))


# --- the form of a refusal -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "route", "target", "fields", "status", "as_close"),
    [
        pytest.param("http", "http", "/no", {}, 404, False, id="http"),
        pytest.param("close", "http", "/no", {}, 404, True, id="no-route-is-the-apps-business"),
        pytest.param("http", "close", "/no", {}, 404, False, id="no-route-is-not-a-routes"),
        pytest.param("close", "http", "/no", {"upgrade": None}, 404, False, id="no-websocket"),
        pytest.param(
            "close",
            "http",
            "/no",
            {"sec_websocket_key": "x"},
            404,
            False,
            id="no-101-without-a-key",
        ),
        pytest.param("http", "close", "/ws", {"origin": "null"}, 403, True, id="origin"),
        pytest.param("close", "http", "/ws", {"origin": "null"}, 403, False, id="the-routes-word"),
        pytest.param(
            "close", "close", "/ws", {"upgrade": None}, 426, False, id="malformed-is-http"
        ),
        pytest.param(
            "close", "close", "/ws", {"content_length": "5"}, 400, False, id="smuggling-is-http"
        ),
    ],
)
def test_a_close_instead_of_http_needs_a_valid_upgrade(
    app: str,
    route: str,
    target: str,
    fields: dict[str, Field],
    status: int,
    as_close: bool,  # noqa: FBT001 - a row
) -> None:
    gate = gate_of(policy(refuse_with="close" if route == "close" else "http"), refuse_with=app)
    refusal = refusal_of(gate, target, **fields)
    assert (refusal.status, refusal.as_close) == (status, as_close)


def test_a_refusal_for_want_of_room_takes_the_form_of_the_policy() -> None:
    gate = gate_of(policy(refuse_with="close"), ServerLimits(undecided=1))
    candidate_of(gate)
    refusal = refusal_of(gate)
    assert (refusal.status, refusal.code, refusal.as_close) == (503, "server_full", True)


def test_a_refusal_after_the_check_takes_the_form_of_the_policy() -> None:
    plain = Refusal(401, "credential_refused", "no")
    for refuse_with in ("http", "close"):
        gate = gate_of(policy(refuse_with="close" if refuse_with == "close" else "http"))
        dressed = gate.dress(plain, candidate_of(gate))
        assert dressed == replace(plain, as_close=refuse_with == "close")


# --- caps ----------------------------------------------------------------------------------------


def test_a_place_goes_from_undecided_to_open_to_free() -> None:
    gate = gate_of(policy())
    assert gate.counts == (0, 0, 0)
    candidate = candidate_of(gate)
    assert gate.counts == (1, 0, 0)
    slot = gate.admit(candidate, ANN, 0.0)
    assert slot is candidate.slot
    assert gate.counts == (0, 1, 1)
    candidate.slot.release()
    assert gate.counts == (0, 0, 0)


def test_a_place_is_given_back_once_however_often_it_is_released() -> None:
    gate = gate_of(policy())
    others = [admitted(gate), admitted(gate)]
    undecided = candidate_of(gate)
    gone, given_up = admitted(gate), candidate_of(gate)
    for _ in range(3):
        gone.release()
        given_up.slot.release()
    assert gate.counts == (1, 2, 1)
    undecided.slot.release()
    for slot in others:
        slot.release()
    assert gate.counts == (0, 0, 0)


def test_the_undecided_are_capped() -> None:
    gate = gate_of(policy(), ServerLimits(undecided=2))
    first = candidate_of(gate)
    candidate_of(gate)
    refusal = refusal_of(gate)
    assert refusal == Refusal(
        503,
        "server_full",
        "the server takes no more connections for now",
        "2 reached (ServerLimits.undecided)",
        retry_after=5,
    )
    assert gate.counts == (2, 0, 0)
    first.slot.release()
    candidate_of(gate)
    assert gate.counts == (2, 0, 0)


def test_a_decided_one_leaves_the_undecided() -> None:
    gate = gate_of(policy(), ServerLimits(undecided=1))
    for _ in range(5):
        admitted(gate)
    assert gate.counts == (0, 5, 1)


def test_connections_are_capped_at_both_ends() -> None:
    gate = gate_of(policy(), ServerLimits(connections=2))
    early, late = candidate_of(gate), candidate_of(gate)
    first = admitted(gate)
    assert isinstance(gate.admit(early, BOB, 0.0), Slot)
    full = Refusal(
        503,
        "server_full",
        "the server takes no more connections for now",
        "2 reached (ServerLimits.connections)",
        retry_after=5,
    )
    assert gate.admit(late, BOB, 0.0) == full
    assert gate.counts == (1, 2, 2)
    late.slot.release()
    assert refusal_of(gate) == full
    assert gate.counts == (0, 2, 2)
    first.release()
    admitted(gate)
    assert gate.counts == (0, 2, 2)


def test_the_sockets_of_one_user_are_capped() -> None:
    gate = gate_of(policy(limits=limited(2)))
    slots = [admitted(gate, ANN), admitted(gate, ANN)]
    third = candidate_of(gate)
    assert gate.admit(third, ANN, 0.0) == Refusal(
        429,
        "too_many_connections",
        "you have too many open connections",
        "user 'ann' has 2 sockets here (connections_per_user)",
        retry_after=60,
    )
    assert gate.counts == (1, 2, 1)
    third.slot.release()
    admitted(gate, BOB)
    assert gate.counts == (0, 3, 2)
    slots[0].release()
    admitted(gate, ANN)
    assert gate.counts == (0, 3, 2)


def test_a_cap_per_user_is_counted_route_by_route() -> None:
    gate = gate_of(policy(limits=limited(1)))
    gate.add(PathTemplate("/other"), Entry("other", policy(limits=limited(1))))
    admitted(gate, ANN)
    slot = gate.admit(candidate_of(gate, "/other"), ANN, 0.0)
    assert isinstance(slot, Slot)
    assert gate.counts == (0, 2, 2)


def test_nobody_has_no_cap_per_user() -> None:
    gate = gate_of(policy(limits=limited(1)))
    slots = [admitted(gate, ANONYMOUS) for _ in range(5)]
    assert gate.counts == (0, 5, 0)
    for slot in slots:
        slot.release()
    assert gate.counts == (0, 0, 0)


def test_none_is_no_cap() -> None:
    gate = gate_of(policy(limits=limited(None)), ServerLimits(connections=None, undecided=None))
    candidates = [candidate_of(gate) for _ in range(1200)]
    slots = [gate.admit(candidate, ANN, 0.0) for candidate in candidates]
    assert all(isinstance(slot, Slot) for slot in slots)
    assert gate.counts == (0, 1200, 1)


def test_a_cap_that_refuses_in_admit_takes_the_form_of_the_policy() -> None:
    gate = gate_of(policy(limits=limited(1), refuse_with="close"), ServerLimits(connections=2))
    admitted(gate, ANN)
    for_user = gate.admit(candidate_of(gate), ANN, 0.0)
    last = candidate_of(gate)
    admitted(gate, BOB)
    for_all = gate.admit(last, BOB, 0.0)
    assert isinstance(for_user, Refusal)
    assert isinstance(for_all, Refusal)
    assert (for_user.status, for_user.as_close) == (429, True)
    assert (for_all.status, for_all.as_close) == (503, True)


def test_a_candidate_whose_peer_has_gone_leaves_no_place_taken() -> None:
    gate = gate_of(policy())
    candidate = candidate_of(gate)
    candidate.slot.release()
    outcome = gate.admit(candidate, ANN, 0.0)
    if isinstance(outcome, Slot):
        outcome.release()
    assert gate.counts == (0, 0, 0)


@pytest.mark.parametrize(
    ("limits", "per_user", "principals"),
    [
        pytest.param(ServerLimits(), 20, [ANN], id="per-user"),
        pytest.param(ServerLimits(connections=20), None, [ANN, BOB], id="connections"),
    ],
)
def test_64_candidates_in_threads_get_the_20_places_there_are(
    limits: ServerLimits, per_user: int | None, principals: list[Principal]
) -> None:
    gate = gate_of(policy(limits=limited(per_user)), limits)
    candidates = [candidate_of(gate) for _ in range(64)]
    assert gate.counts == (64, 0, 0)
    outcomes: list[Refusal | Slot] = []
    start = threading.Barrier(64)

    def ask(number: int) -> None:
        start.wait()
        principal = principals[number % len(principals)]
        outcome = gate.admit(candidates[number], principal, 0.0)
        outcomes.append(outcome)
        if isinstance(outcome, Refusal):
            candidates[number].slot.release()

    _in_threads([partial(ask, number) for number in range(64)])
    slots = [outcome for outcome in outcomes if isinstance(outcome, Slot)]
    assert len(outcomes) == 64
    assert len(slots) == 20
    assert gate.counts == (0, 20, len(principals))
    _in_threads([slot.release for slot in slots for _ in range(3)])
    assert gate.counts == (0, 0, 0)


def test_64_requests_in_threads_get_the_20_undecided_places_there_are() -> None:
    gate = gate_of(policy(), ServerLimits(undecided=20))
    outcomes: list[Refusal | Candidate] = []
    start = threading.Barrier(64)

    def ask() -> None:
        start.wait()
        outcomes.append(gate.check(upgrade(), 0.0))

    _in_threads([ask] * 64)
    assert sum(isinstance(outcome, Candidate) for outcome in outcomes) == 20
    assert gate.counts == (20, 0, 0)


def _in_threads(actions: Sequence[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


# --- any bytes -----------------------------------------------------------------------------------

_NAMES = [
    b"host",
    b"origin",
    b"upgrade",
    b"connection",
    b"authorization",
    b"cookie",
    b"content-length",
    b"transfer-encoding",
    b"sec-websocket-key",
    b"sec-websocket-version",
    b"sec-websocket-protocol",
    b"sec-websocket-extensions",
]
_VALUES = [
    b"",
    b"websocket",
    b"Upgrade",
    b"13",
    b"dGhlIHNhbXBsZSBub25jZQ==",
    b"bearer, a.b.c",
    b"Bearer a.b.c",
    b"https://myapp.com",
    b"myapp.com",
    b"[::1]:80",
    b",;= \t\"'%00",
]
_lines = st.tuples(
    st.sampled_from(_NAMES) | st.binary(max_size=12),
    st.sampled_from(_VALUES) | st.binary(max_size=40),
).map(b":".join)
_valid = upgrade().head.split(b"\n")
_heads = (
    st.lists(_lines, max_size=3).map(lambda more: b"\n".join([*_valid, *more]))
    | st.lists(_lines, max_size=2).map(lambda more: b"\n".join([*more, *_valid]))
    | st.lists(st.sampled_from(_valid) | _lines, max_size=16).map(b"\n".join)
    | st.binary(max_size=200)
)
_latin_1 = st.text(st.characters(max_codepoint=255), max_size=40)
_starts = ["/ws", "/ws?", "/ws?token=", "/chat/", "/chat/%", "/x/", "http://myapp.com/ws", "http:"]
_served = st.sampled_from(["/ws", "/ws?token=a.b.c", "/chat/1?x", "/x/y?token", "/x/%00"])
_targets = _served | _served | st.builds(str.__add__, st.sampled_from(_starts), _latin_1) | _latin_1


@settings(derandomize=True, deadline=None, max_examples=600)
@given(
    st.builds(
        UpgradeRequest,
        method=st.just("GET") | st.just("GET") | st.text(max_size=5),
        target=_targets,
        http_version=st.just("1.1") | st.just("1.1") | st.sampled_from(["1.0", ""]),
        head=_heads,
        scheme=st.sampled_from(["http", "https", ""]),
    )
)
def test_any_request_is_a_candidate_or_a_refusal_and_never_raises(request: UpgradeRequest) -> None:
    gate = Gate(ServerLimits(), "close")
    gate.add(PathTemplate("/ws"), Entry("jwt", policy(JWT, refuse_with="close")))
    gate.add(PathTemplate("/chat/<room>"), Entry("cookie", policy(by_cookie)))
    gate.add(
        PathTemplate("/<path:rest>"), Entry("rest", policy(JWT, origins=("https://myapp.com",)))
    )
    outcome = gate.check(request, 0.0)
    if isinstance(outcome, Candidate):
        assert gate.counts == (1, 0, 0)
        outcome.slot.release()
    else:
        assert 400 <= outcome.status <= 599
    assert gate.counts == (0, 0, 0)
