from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gate.upgrades import Field, upgrade
from ws_middleware.errors import ConfigError
from ws_middleware.gate.origin import OriginRule, parse_origin

NOT_ALLOWED = (403, "origin_not_allowed")
MISSING = (403, "origin_missing")

ALLOWED = None

#: Texts that no rule but "*" may let in, whatever the Host says.
NEVER = [
    pytest.param("null", id="null"),
    pytest.param("", id="empty"),
    pytest.param(" ", id="blank"),
    pytest.param("myapp.com", id="no-scheme"),
    pytest.param("//myapp.com", id="no-scheme-but-slashes"),
    pytest.param("://myapp.com", id="empty-scheme"),
    pytest.param("https:myapp.com", id="no-slashes"),
    pytest.param("https:/myapp.com", id="one-slash"),
    pytest.param("https:///myapp.com", id="three-slashes"),
    pytest.param("https://", id="no-host"),
    pytest.param("https://:443", id="port-alone"),
    pytest.param("https://myapp.com/", id="slash-behind"),
    pytest.param("https://myapp.com/ws", id="path-behind"),
    pytest.param("https://myapp.com?", id="query-behind"),
    pytest.param("https://myapp.com#", id="fragment-behind"),
    pytest.param("https://myapp.com:", id="port-empty"),
    pytest.param("https://myapp.com:http", id="port-a-word"),
    pytest.param("https://myapp.com:-1", id="port-negative"),
    pytest.param("https://myapp.com:99999", id="port-over-65535"),
    pytest.param("https://myapp.com:443443", id="port-of-six-digits"),
    pytest.param("https://myapp.com@evil.example", id="user-before-the-host"),
    pytest.param("https://evil.example@myapp.com", id="user-before-our-host"),
    pytest.param("https://myapp.com:pw@evil.example", id="password-before-the-host"),
    pytest.param("https://myapp.com\\@evil.example", id="backslash"),
    pytest.param("https://myapp.com%00.evil.example", id="escape"),
    pytest.param("https://myapp.com\x00", id="nul-behind"),
    pytest.param("https://myapp.com\t", id="tab-behind"),
    pytest.param("https://myapp.com ", id="blank-behind"),
    pytest.param(" https://myapp.com", id="blank-before"),
    pytest.param("https://myapp.com, https://myapp.com", id="two-in-one"),
    pytest.param("https://myapp.com https://myapp.com", id="two-in-one-by-blank"),
    pytest.param("https://*.com", id="star"),
    pytest.param("https://[::1", id="ipv6-open"),
    pytest.param("https://::1", id="ipv6-bare"),
    pytest.param("https://[myapp.com]", id="name-in-brackets"),
    pytest.param("https://m\xfdapp.com", id="latin-1"),
    pytest.param("https://myapp.com\xa0", id="latin-1-blank"),
]


def verdict(rule: OriginRule, *, scheme: str = "http", **fields: Field) -> tuple[int, str] | None:
    refusal = rule.check(upgrade(scheme=scheme, **fields))
    return None if refusal is None else (refusal.status, refusal.code)


@pytest.mark.parametrize("sent", NEVER)
@pytest.mark.parametrize("origins", ["same-origin", ("https://myapp.com", "https://evil.example")])
def test_what_is_no_origin_is_never_allowed(sent: str, origins: str | tuple[str, ...]) -> None:
    for ambient in (True, False):
        rule = OriginRule(origins, ambient=ambient)
        assert verdict(rule, origin=sent) == NOT_ALLOWED
        assert verdict(rule, origin=sent, host=sent) == NOT_ALLOWED


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "expected"),
    [
        pytest.param("https://myapp.com", "myapp.com", "https", ALLOWED, id="https"),
        pytest.param("https://myapp.com", "myapp.com", "wss", ALLOWED, id="https-to-wss"),
        pytest.param("https://myapp.com", "myapp.com", "http", ALLOWED, id="tls-ended-before-us"),
        pytest.param("http://myapp.com", "myapp.com", "http", ALLOWED, id="http"),
        pytest.param("http://myapp.com", "myapp.com", "ws", ALLOWED, id="http-to-ws"),
        pytest.param("http://myapp.com", "myapp.com", "https", NOT_ALLOWED, id="http-to-https"),
        pytest.param("http://myapp.com", "myapp.com", "wss", NOT_ALLOWED, id="http-to-wss"),
        pytest.param("https://evil.example", "myapp.com", "https", NOT_ALLOWED, id="evil.example"),
        pytest.param("https://myapp.com.evil", "myapp.com", "https", NOT_ALLOWED, id="suffix"),
        pytest.param("https://evilmyapp.com", "myapp.com", "https", NOT_ALLOWED, id="prefix"),
        pytest.param("https://www.myapp.com", "myapp.com", "https", NOT_ALLOWED, id="subdomain"),
        pytest.param("https://myapp.com", "www.myapp.com", "https", NOT_ALLOWED, id="parent"),
        pytest.param("https://myapp.co", "myapp.com", "https", NOT_ALLOWED, id="cut"),
        pytest.param("http://myapp.com:8000", "myapp.com:8000", "http", ALLOWED, id="same-port"),
        pytest.param(
            "http://myapp.com:8001", "myapp.com:8000", "http", NOT_ALLOWED, id="other-port"
        ),
        pytest.param("http://myapp.com", "myapp.com:8000", "http", NOT_ALLOWED, id="port-in-host"),
        pytest.param(
            "http://myapp.com:8000", "myapp.com", "http", NOT_ALLOWED, id="port-in-origin"
        ),
        pytest.param("http://myapp.com:80", "myapp.com", "http", ALLOWED, id="80-said"),
        pytest.param("http://myapp.com", "myapp.com:80", "http", ALLOWED, id="80-said-in-host"),
        pytest.param("https://myapp.com:443", "myapp.com", "https", ALLOWED, id="443-said"),
        pytest.param("https://myapp.com", "myapp.com:443", "https", ALLOWED, id="443-said-in-host"),
        pytest.param("https://myapp.com", "myapp.com:80", "http", NOT_ALLOWED, id="https-but-80"),
        pytest.param("http://myapp.com", "myapp.com:443", "http", NOT_ALLOWED, id="http-but-443"),
        pytest.param("https://myapp.com:80", "myapp.com", "http", NOT_ALLOWED, id="80-with-https"),
        pytest.param("https://myapp.com.", "myapp.com", "https", NOT_ALLOWED, id="trailing-dot"),
        pytest.param("https://myapp.com", "myapp.com.", "https", NOT_ALLOWED, id="dot-in-host"),
        pytest.param("HTTPS://MyApp.COM", "myapp.com", "https", ALLOWED, id="upper-case"),
        pytest.param("https://myapp.com", "MYAPP.com", "https", ALLOWED, id="upper-case-host"),
        pytest.param("http://[::1]:8000", "[::1]:8000", "http", ALLOWED, id="ipv6"),
        pytest.param("http://[::1]", "[::1]", "http", ALLOWED, id="ipv6-no-port"),
        pytest.param("http://[FE80::A]", "[fe80::a]", "http", ALLOWED, id="ipv6-upper-case"),
        pytest.param("http://[::1]:8000", "[::2]:8000", "http", NOT_ALLOWED, id="ipv6-other"),
        pytest.param("http://[::1]:8000", "[::1]", "http", NOT_ALLOWED, id="ipv6-other-port"),
        pytest.param("http://127.0.0.1:5000", "127.0.0.1:5000", "http", ALLOWED, id="ipv4"),
        pytest.param(
            "http://localhost:5000", "127.0.0.1:5000", "http", NOT_ALLOWED, id="localhost"
        ),
        pytest.param("http://a_b.local", "a_b.local", "http", ALLOWED, id="underscore"),
        pytest.param("ws://myapp.com", "myapp.com", "http", NOT_ALLOWED, id="ws-is-no-page"),
        pytest.param("ftp://myapp.com", "myapp.com", "http", NOT_ALLOWED, id="another-scheme"),
        pytest.param("file://myapp.com", "myapp.com", "http", NOT_ALLOWED, id="file"),
        pytest.param(
            "chrome-extension://myapp.com", "myapp.com", "https", NOT_ALLOWED, id="extension"
        ),
    ],
)
def test_same_origin(origin: str, host: str, scheme: str, expected: tuple[int, str] | None) -> None:
    for ambient in (True, False):
        rule = OriginRule("same-origin", ambient=ambient)
        assert verdict(rule, scheme=scheme, origin=origin, host=host) == expected


@pytest.mark.parametrize(
    "host",
    [
        pytest.param(None, id="missing"),
        pytest.param("", id="empty"),
        pytest.param("my app.com", id="blank-in-it"),
        pytest.param("myapp.com:", id="port-empty"),
        pytest.param("myapp.com:port", id="port-a-word"),
        pytest.param("myapp.com:443:443", id="two-ports"),
        pytest.param("myapp.com:000443", id="port-of-six-digits"),
        pytest.param("myapp.com/evil", id="path"),
        pytest.param("user@myapp.com", id="user"),
        pytest.param("myapp.com, evil.example", id="two"),
        pytest.param("[::1", id="ipv6-open"),
        pytest.param("https://myapp.com", id="a-whole-origin"),
        pytest.param("myapp.com\x00", id="nul"),
        pytest.param("myapp.com ", id="blank-behind"),
        pytest.param("m\xfdapp.com", id="latin-1"),
    ],
)
def test_nothing_is_of_the_same_origin_as_a_garbage_host(host: str | None) -> None:
    rule = OriginRule("same-origin", ambient=False)
    assert verdict(rule, origin="https://myapp.com", host=host) == NOT_ALLOWED


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        pytest.param("https://myapp.com", ALLOWED, id="listed"),
        pytest.param("HTTPS://MYAPP.com", ALLOWED, id="listed-upper-case"),
        pytest.param("https://myapp.com:443", ALLOWED, id="listed-default-port"),
        pytest.param("http://localhost:5173", ALLOWED, id="second"),
        pytest.param("http://[::1]:5173", ALLOWED, id="ipv6"),
        pytest.param("chrome-extension://abcdefgh", ALLOWED, id="extension"),
        pytest.param("http://myapp.com", NOT_ALLOWED, id="http-for-https"),
        pytest.param("https://myapp.com:8443", NOT_ALLOWED, id="other-port"),
        pytest.param("https://myapp.com.", NOT_ALLOWED, id="trailing-dot"),
        pytest.param("https://www.myapp.com", NOT_ALLOWED, id="subdomain"),
        pytest.param("https://myapp.com.evil", NOT_ALLOWED, id="suffix"),
        pytest.param("https://evilmyapp.com", NOT_ALLOWED, id="prefix"),
        pytest.param("https://evil.example", NOT_ALLOWED, id="evil.example"),
        pytest.param("https://localhost:5173", NOT_ALLOWED, id="https-for-http"),
        pytest.param("http://localhost", NOT_ALLOWED, id="port-missing"),
        pytest.param("http://[::2]:5173", NOT_ALLOWED, id="ipv6-other"),
        pytest.param("chrome-extension://abcdefgi", NOT_ALLOWED, id="extension-other"),
        pytest.param("http://intern", NOT_ALLOWED, id="own-host-is-not-listed"),
    ],
)
def test_a_list(origin: str, expected: tuple[int, str] | None) -> None:
    listed = (
        "https://MyApp.com",
        "http://localhost:5173",
        "http://[::1]:5173",
        "chrome-extension://abcdefgh",
    )
    for ambient in (True, False):
        rule = OriginRule(listed, ambient=ambient)
        assert verdict(rule, origin=origin, host="intern") == expected


def test_one_origin_needs_no_list() -> None:
    rule = OriginRule("https://myapp.com", ambient=True)
    assert verdict(rule, origin="https://myapp.com") is ALLOWED
    assert verdict(rule, origin="https://evil.example") == NOT_ALLOWED


def test_an_empty_list_lets_no_page_in() -> None:
    assert verdict(OriginRule((), ambient=False), origin="https://myapp.com") == NOT_ALLOWED


@pytest.mark.parametrize("origins", ["same-origin", ("https://myapp.com",), (), "*"])
def test_a_missing_origin_is_refused_where_cookies_may_count(
    origins: str | tuple[str, ...],
) -> None:
    assert verdict(OriginRule(origins, ambient=True)) == MISSING
    assert verdict(OriginRule(origins, ambient=False)) is ALLOWED


@pytest.mark.parametrize("sent", ["https://evil.example", "null", "", "what?"])
def test_a_star_lets_every_page_in(sent: str) -> None:
    assert verdict(OriginRule("*", ambient=False), origin=sent) is ALLOWED


@pytest.mark.parametrize(
    "entry",
    [
        "myapp.com",
        "https://myapp.com/",
        "https://*.myapp.com",
        "*.myapp.com",
        "*",
        "null",
        "",
        "https://",
        "https://myapp.com:",
        5,
        None,
        ("https://myapp.com",),
    ],
)
def test_an_entry_that_is_no_origin_is_a_config_error(entry: object) -> None:
    with pytest.raises(ConfigError) as caught:
        OriginRule(("https://myapp.com", entry), ambient=False)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"origins: {entry!r} is no origin. Write scheme, host and perhaps a port, as in "
        "'https://myapp.com' or 'http://localhost:5173', without a path; or origins='same-origin'"
    )


def test_the_log_says_what_to_do_about_a_proxy_that_drops_the_host() -> None:
    refusal = OriginRule("same-origin", ambient=True).check(
        upgrade(origin="https://myapp.com", host="127.0.0.1:8000")
    )
    assert refusal is not None
    assert refusal.why == (
        "Page: https://myapp.com. This request: http://127.0.0.1:8000. If that page is yours, "
        'the proxy does not pass Host: add "proxy_set_header Host $http_host;", or list origins=["https://myapp.com"].'
    )


@pytest.mark.parametrize(
    ("origin", "request_", "why"),
    [
        pytest.param(
            "http://localhost:5000",
            ("http", "localhost:8001"),
            "This request: http://localhost:8001. Another port is another origin: list "
            'origins=["http://localhost:5000"].',
            id="another-port",
        ),
        pytest.param(
            "https://myapp.com:8443",
            ("https", "myapp.com"),
            "This request: https://myapp.com. Another port is another origin: list "
            'origins=["https://myapp.com:8443"]; or, if a proxy drops the port, add '
            '"proxy_set_header Host $http_host;".',
            id="lost-port",
        ),
        pytest.param(
            "http://myapp.com:8443",
            ("https", "myapp.com:8443"),
            "This request: https://myapp.com:8443. The page came without TLS: send its readers to "
            'https, or, if you must, list origins=["http://myapp.com:8443"].',
            id="no-tls",
        ),
    ],
)
def test_the_log_says_what_differs_where_the_name_does_not(
    origin: str, request_: tuple[str, str], why: str
) -> None:
    scheme, host = request_
    refusal = OriginRule("same-origin", ambient=True).check(
        upgrade(origin=origin, host=host, scheme=scheme)
    )
    assert refusal is not None
    assert refusal.why == f"Page: {origin}. {why}"


def test_the_log_says_what_to_add_to_a_list() -> None:
    refusal = OriginRule(("https://myapp.com",), ambient=True).check(
        upgrade(origin="https://www.myapp.com", host="127.0.0.1:8000", scheme="https")
    )
    assert refusal is not None
    assert refusal.why == (
        "Page: https://www.myapp.com. This request: https://127.0.0.1:8000. "
        'Not in the list: add "https://www.myapp.com" to origins.'
    )


def test_the_log_does_not_say_to_list_what_can_never_be_listed() -> None:
    refusal = OriginRule("same-origin", ambient=True).check(upgrade(origin="null"))
    assert refusal is not None
    assert refusal.why == (
        "Page: null. This request: http://myapp.com. "
        "The Origin header is no origin that can be allowed."
    )


def test_the_log_says_what_to_do_about_a_missing_origin() -> None:
    refusal = OriginRule("same-origin", ambient=True).check(upgrade())
    assert refusal is not None
    assert refusal.why == (
        "No Origin header: not a browser. The authenticator may look at cookies, so it is "
        "needed; set ambient = False on an authenticator that looks at none."
    )


def test_the_peer_learns_nothing_of_the_setting() -> None:
    rule = OriginRule("same-origin", ambient=True)
    wrong = rule.check(upgrade(origin="https://evil.example"))
    missing = rule.check(upgrade())
    assert wrong is not None
    assert missing is not None
    assert wrong.detail == "this page may not connect"
    assert missing.detail == "an Origin header is needed here"


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text())
def test_any_text_can_be_parsed(text: str) -> None:
    origin = parse_origin(text)
    assert origin is None or text.lower().startswith(f"{origin.scheme}://{origin.host}")


_near_origin = st.from_regex(r"\A(https?|null|ws)?(://)?[a-z.:@\[\]/]{0,12}(:[0-9]{0,6})?\Z")


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.text(alphabet=st.characters(max_codepoint=255)) | _near_origin,
    st.text(alphabet=st.characters(max_codepoint=255)) | _near_origin,
    st.sampled_from(["http", "https", "ws", "wss", ""]),
    st.booleans(),
)
def test_the_rule_raises_on_no_text(sent: str, host: str, scheme: str, ambient: bool) -> None:  # noqa: FBT001 - drawn
    request = replace(
        upgrade(), head=f"host:{host}\norigin:{sent}".encode("latin-1"), scheme=scheme
    )
    for origins in ("same-origin", ("https://myapp.com",)):
        refusal = OriginRule(origins, ambient=ambient).check(request)
        assert refusal is None or (refusal.status, refusal.code) == NOT_ALLOWED


def test_same_origin_may_be_one_entry_of_a_list() -> None:
    rule = OriginRule(("same-origin", "https://partner.example"), ambient=True)
    for origin, allowed in [
        ("https://myapp.com", True),
        ("https://partner.example", True),
        ("https://evil.example", False),
    ]:
        assert (rule.check(upgrade(origin=origin)) is None) is allowed
