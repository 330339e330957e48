from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.gate.upgrades import Entry, Field, policy, upgrade
from ws_middleware import WebSockets
from ws_middleware.config import EffectivePolicy, ServerLimits
from ws_middleware.errors import ConfigError
from ws_middleware.gate.auth.anonymous import Anonymous
from ws_middleware.gate.gate import Candidate, Gate
from ws_middleware.gate.proxies import HostRule, TrustedProxies
from ws_middleware.gate.routing import PathTemplate
from ws_middleware.types import Refusal, UpgradeRequest

PROXY = ("10.0.0.1", 4000)
LOCAL = ("127.0.0.1", 5000)
TRUSTED = TrustedProxies(["10.0.0.0/8", "fd00::/8"])

#: Whatever a header line can hold: latin-1, no line feed.
VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\n\r"), max_size=60)


def sent(peer: tuple[str, int] | None = PROXY, scheme: str = "http", **fields: Field) -> Field:
    return replace(upgrade(scheme=scheme, **fields), client=peer)


def client_of(*lines: str, proxies: TrustedProxies = TRUSTED) -> tuple[str, int] | None:
    seen: UpgradeRequest = proxies.apply(sent(x_forwarded_for=list(lines)))
    return seen.client


# --- trusted proxies -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hops", "expected"),
    [
        pytest.param("198.51.100.7", ("198.51.100.7", 0), id="one"),
        pytest.param("198.51.100.7, 10.0.0.2", ("198.51.100.7", 0), id="over-a-trusted-one"),
        pytest.param("6.6.6.6, 198.51.100.7", ("198.51.100.7", 0), id="spoofed-left"),
        pytest.param("10.0.0.9, 198.51.100.7", ("198.51.100.7", 0), id="spoofed-as-trusted"),
        pytest.param("x, 198.51.100.7, 10.0.0.2", ("198.51.100.7", 0), id="garbage-left"),
        pytest.param("10.0.0.3, 10.0.0.2", ("10.0.0.3", 0), id="all-trusted"),
        pytest.param("198.51.100.7:8123", ("198.51.100.7", 0), id="port"),
        pytest.param("2001:db8::7", ("2001:db8::7", 0), id="ipv6"),
        pytest.param("[2001:db8::7]", ("2001:db8::7", 0), id="brackets"),
        pytest.param("[2001:db8::7]:8123", ("2001:db8::7", 0), id="brackets-port"),
        pytest.param('"[2001:db8::7]:8123"', ("2001:db8::7", 0), id="quoted"),
        pytest.param("2001:DB8:0::7", ("2001:db8::7", 0), id="ipv6-is-normalised"),
        pytest.param("198.51.100.7, fd00::2", ("198.51.100.7", 0), id="over-trusted-ipv6"),
        pytest.param("unknown", PROXY, id="unknown"),
        pytest.param("198.51.100.7, unknown", PROXY, id="unknown-on-the-right"),
        pytest.param("198.51.100.7, _hidden, 10.0.0.2", ("10.0.0.2", 0), id="obfuscated"),
        pytest.param("198.51.100.777", PROXY, id="no-address"),
        pytest.param("010.0.0.1", PROXY, id="octal"),
        pytest.param("[2001:db8::7", ("2001:db8::7", 0), id="open-bracket"),
        pytest.param("", PROXY, id="empty"),
        pytest.param(" , ,", PROXY, id="commas"),
    ],
)
def test_the_client_is_the_first_untrusted_hop_from_the_right(
    hops: str, expected: tuple[str, int]
) -> None:
    assert client_of(hops) == expected


def test_lines_are_one_list() -> None:
    assert client_of("6.6.6.6", "198.51.100.7", "10.0.0.2") == ("198.51.100.7", 0)


def test_32_hops_are_walked_and_no_more() -> None:
    proxies = ["10.0.0.2"] * 31
    assert client_of(", ".join(["198.51.100.7", *proxies])) == ("198.51.100.7", 0)
    assert client_of(", ".join(["198.51.100.7", "10.9.9.9", *proxies])) == ("10.9.9.9", 0)


@pytest.mark.parametrize(
    "peer", [("192.0.2.1", 1), ("::1", 1), ("not-an-address", 1), ("", 0), None]
)
def test_nobody_else_is_believed(peer: tuple[str, int] | None) -> None:
    request = sent(
        peer,
        x_forwarded_for="198.51.100.7",
        x_forwarded_proto="https",
        x_forwarded_host="evil.com",
    )
    assert TRUSTED.apply(request) is request


def test_without_trusted_proxies_nothing_is_read() -> None:
    request = sent(x_forwarded_for="198.51.100.7", x_forwarded_host="evil.com")
    assert TrustedProxies(()).apply(request) is request


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "http"),
        ("https", "https"),
        ("HTTPS", "https"),
        ("https, http", "http"),
        (" ,", "http"),
    ],
)
def test_the_scheme_is_the_last_one(value: str | None, expected: str) -> None:
    assert TRUSTED.apply(sent(x_forwarded_proto=value)).scheme == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "myapp.com"),
        ("shop.example", "shop.example"),
        ("evil.com, shop.example:8443", "shop.example:8443"),
        (["evil.com", "shop.example"], "shop.example"),
        (",", "myapp.com"),
    ],
)
def test_the_host_is_the_last_one(value: Field, expected: str) -> None:
    request = TRUSTED.apply(sent(x_forwarded_host=value))
    assert request.headers.get_all("host") == [expected]
    assert request.headers["sec-websocket-version"] == "13"


def test_the_gate_judges_what_the_proxy_saw() -> None:
    gate = Gate(ServerLimits(), trusted_proxies=["10.0.0.1"])
    gate.add(PathTemplate("/ws"), Entry("ws", policy()))
    request = sent(
        origin="https://shop.example",
        x_forwarded_host="shop.example",
        x_forwarded_proto="https",
        x_forwarded_for="198.51.100.7",
    )
    outcome = gate.check(request, 0.0)
    assert isinstance(outcome, Candidate)
    assert outcome.request.client == ("198.51.100.7", 0)
    assert (outcome.request.scheme, outcome.request.host) == ("https", "shop.example")
    spoofed = gate.check(replace(request, client=("192.0.2.1", 1)), 0.0)
    assert isinstance(spoofed, Refusal)
    assert (spoofed.status, spoofed.code) == (403, "origin_not_allowed")


def test_an_address_with_host_bits_is_its_network() -> None:
    assert client_of("198.51.100.7", proxies=TrustedProxies(["10.1.2.3/8"])) == ("198.51.100.7", 0)


@pytest.mark.parametrize("entry", ["", "proxy", "10.0.0.0/33", "10.0.0", "[::1]", "10.0.0.1:80"])
def test_a_bad_entry_is_named(entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrustedProxies(["10.0.0.1", entry])
    assert str(caught.value) == (
        f"trusted_proxies: {entry!r} is no address or network, such as '10.0.0.0/8'"
    )


def test_a_bad_entry_is_found_when_a_door_opens() -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        WebSockets(auth=Anonymous(), trusted_proxies=["proxy"]).listen(port=0)


def test_an_ipv4_mapped_peer_is_its_ipv4_address() -> None:
    request = sent(("::ffff:10.0.0.1", 1), x_forwarded_for="198.51.100.7")
    assert TRUSTED.apply(request).client == ("198.51.100.7", 0)


# --- allowed_hosts -------------------------------------------------------------------------------


def allows(allowed: list[str], host: str) -> bool:
    refusal = HostRule(allowed, is_open=False, origins_listed=False).check(sent(host=host))
    if refusal is not None:
        assert (refusal.status, refusal.code) == (403, "host_not_allowed")
        assert repr(host) in refusal.why
    return refusal is None


@pytest.mark.parametrize(
    ("allowed", "host", "expected"),
    [
        ("myapp.com", "myapp.com", True),
        ("myapp.com", "myapp.com:8443", True),
        ("myapp.com", "MyApp.COM", True),
        ("MyApp.com", "myapp.com", True),
        ("myapp.com", "www.myapp.com", False),
        ("myapp.com", "evilmyapp.com", False),
        ("myapp.com", "myapp.com.evil.com", False),
        ("myapp.com", "myapp.com evil", False),
        ("myapp.com", "evil.com", False),
        ("myapp.com", "", False),
        ("myapp.com", ":80", False),
        (".myapp.com", "myapp.com", True),
        (".myapp.com", "a.b.myapp.com:80", True),
        (".MYAPP.com", "A.myapp.com", True),
        (".myapp.com", "evilmyapp.com", False),
        (".myapp.com", "myapp.com.evil.com", False),
        (".myapp.com", "", False),
        ("[::1]", "[::1]", True),
        ("[::1]", "[::1]:8000", True),
        ("[2001:DB8::7]", "[2001:db8::7]:8000", True),
        ("[::1]", "[::2]", False),
        ("[::1]", "::1", False),
        ("127.0.0.1", "127.0.0.1:5000", True),
        ("127.0.0.1", "127.0.0.11", False),
        ("*", "anything.at.all:1", True),
        ("*", "", True),
    ],
)
def test_allowed_hosts(allowed: str, host: str, expected: bool) -> None:  # noqa: FBT001
    assert allows(["other.example", allowed], host) is expected


def test_no_allowed_host_allows_none() -> None:
    assert not allows([], "localhost")


def test_the_remedy_is_named() -> None:
    refusal = HostRule(["a.com"], is_open=False, origins_listed=False).check(sent(host="B.com:80"))
    assert refusal is not None
    assert refusal.why == "Host is 'B.com:80': add \"b.com\" to allowed_hosts"
    assert "b.com" not in refusal.detail


@pytest.mark.parametrize(
    ("allowed", "host"),
    [("[::1]", "[::1].evil.com"), ("[::1]", "[::1"), ("myapp.com", "myapp.com:80.evil.com")],
)
def test_trailing_garbage_is_no_port(allowed: str, host: str) -> None:
    assert not allows([allowed], host)


# --- DNS rebinding -------------------------------------------------------------------------------


def rebound(
    route: EffectivePolicy | None = None,
    peer: tuple[str, int] | None = LOCAL,
    host: Field = "evil.com:8000",
    **fields: Field,
) -> Refusal | None:
    gate = Gate(ServerLimits())
    gate.add(PathTemplate("/ws"), Entry("ws", policy() if route is None else route))
    fields.setdefault("origin", f"http://{host}")
    outcome = gate.check(sent(peer, host=host, **fields), 0.0)
    return outcome if isinstance(outcome, Refusal) else None


@pytest.mark.parametrize("peer", [LOCAL, ("127.9.9.9", 1), ("::1", 1)])
def test_a_rebound_name_is_refused_on_an_open_route(peer: tuple[str, int]) -> None:
    refusal = rebound(peer=peer)
    assert refusal is not None
    assert (refusal.status, refusal.code) == (403, "host_not_allowed")
    assert "'evil.com:8000'" in refusal.why
    assert "Set allowed_hosts or a list of origins" in refusal.why


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="there is_loopback knows it")
def test_a_rebound_name_is_refused_on_a_dual_stack_socket() -> None:
    assert rebound(peer=("::ffff:127.0.0.1", 1)) is not None


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000"]
)
def test_names_of_loopback_pass(host: str) -> None:
    assert rebound(host=host) is None


@pytest.mark.parametrize(
    "host", ["localhost.evil.com", "127.0.0.1.evil.com", "127.0.0.2", "", ":1"]
)
def test_names_that_look_like_loopback_do_not(host: str) -> None:
    refusal = rebound(host=host, origin=None)
    assert refusal is not None
    assert refusal.code == "host_not_allowed"


@pytest.mark.parametrize(
    "trace",
    [
        "forwarded",
        "via",
        "x_forwarded_for",
        "x_forwarded_host",
        "x_forwarded_proto",
        "x_real_ip",
    ],
)
def test_behind_a_proxy_any_name_passes(trace: str) -> None:
    assert rebound(None, LOCAL, **{trace: "1"}) is None


@pytest.mark.parametrize("peer", [None, ("192.0.2.1", 1), ("localhost", 1)])
def test_not_on_loopback_any_name_passes(peer: tuple[str, int] | None) -> None:
    assert rebound(peer=peer) is None


def test_a_list_of_origins_is_enough() -> None:
    assert rebound(policy(origins=("http://evil.com:8000",))) is None
    refused = rebound(policy(origins=("https://myapp.com",)))
    assert refused is not None
    assert refused.code == "origin_not_allowed"


def test_any_origin_is_no_list() -> None:
    refused = rebound(policy(origins="*"))
    assert refused is not None
    assert refused.code == "host_not_allowed"


def test_an_authenticated_route_is_not_asked() -> None:
    assert rebound(policy(lambda request: "ann")) is None


def test_allowed_hosts_decide_alone() -> None:
    route = replace(policy(), allowed_hosts=("evil.com",))
    assert rebound(route) is None
    refused = rebound(route, host="localhost")
    assert refused is not None
    assert refused.why == "Host is 'localhost': add \"localhost\" to allowed_hosts"


# --- any text ------------------------------------------------------------------------------------


@given(st.lists(VALUES, max_size=3), VALUES, VALUES, VALUES)
def test_no_header_text_raises(hops: list[str], host: str, forwarded: str, proto: str) -> None:
    request = sent(
        host=host,
        x_forwarded_for=hops,
        x_forwarded_host=forwarded,
        x_forwarded_proto=proto,
    )
    seen = TRUSTED.apply(request)
    assert seen.client is not None
    assert len(seen.headers.get_all("host")) == 1
    for rule in (
        HostRule(["myapp.com", ".a.b", "[::1]"], is_open=True, origins_listed=False),
        HostRule(None, is_open=True, origins_listed=False),
    ):
        refusal = rule.check(replace(seen, client=LOCAL))
        assert refusal is None or refusal.status == 403


@given(VALUES, VALUES)
def test_what_is_left_of_an_untrusted_hop_never_counts(left: str, middle: str) -> None:
    assert client_of(left, middle, "198.51.100.7, 10.0.0.2") == ("198.51.100.7", 0)
