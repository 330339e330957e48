from __future__ import annotations

import base64

import pytest

from tests.gate.upgrades import KEY, Field, upgrade
from ws_middleware.gate.upgrade import find_problem

MALFORMED = (400, "upgrade_malformed")
UPGRADE_REQUIRED = (426, "upgrade_required")
VERSION_NOT_SUPPORTED = (426, "version_not_supported")


def verdict(**changes: Field) -> tuple[int, str] | None:
    refusal = find_problem(upgrade(**changes))
    return None if refusal is None else (refusal.status, refusal.code)


def key_of(size: int) -> str:
    return base64.b64encode(b"k" * size).decode()


def tokens(count: int) -> str:
    return ", ".join(f"t{number}" for number in range(count))


def test_a_valid_request_has_no_problem() -> None:
    assert find_problem(upgrade()) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"upgrade": "WebSocket"}, None, id="upgrade-in-any-case"),
        pytest.param({"upgrade": " websocket\t"}, None, id="upgrade-in-blanks"),
        pytest.param({"upgrade": None}, UPGRADE_REQUIRED, id="upgrade-missing"),
        pytest.param({"upgrade": ""}, UPGRADE_REQUIRED, id="upgrade-empty"),
        pytest.param({"upgrade": "h2c"}, UPGRADE_REQUIRED, id="h2c"),
        pytest.param({"upgrade": "h2c, websocket"}, UPGRADE_REQUIRED, id="h2c-before-websocket"),
        pytest.param({"upgrade": "websocket, h2c"}, UPGRADE_REQUIRED, id="websocket-before-h2c"),
        pytest.param({"upgrade": "websocket/13"}, UPGRADE_REQUIRED, id="upgrade-with-version"),
        pytest.param({"upgrade": "websockets"}, UPGRADE_REQUIRED, id="upgrade-too-long"),
        pytest.param({"upgrade": "websocket\xa0"}, UPGRADE_REQUIRED, id="upgrade-with-obs-text"),
        pytest.param({"connection": "upgrade"}, None, id="connection-in-any-case"),
        pytest.param({"connection": "keep-alive, Upgrade"}, None, id="connection-list"),
        pytest.param({"connection": "keep-alive,,Upgrade ,"}, None, id="connection-empty-elements"),
        pytest.param({"connection": ["keep-alive", "Upgrade"]}, None, id="connection-two-lines"),
        pytest.param({"connection": ["Upgrade", "keep-alive"]}, None, id="connection-first-line"),
        pytest.param({"connection": None}, MALFORMED, id="connection-missing"),
        pytest.param({"connection": "keep-alive"}, MALFORMED, id="connection-without-upgrade"),
        pytest.param({"connection": "Upgrades"}, MALFORMED, id="connection-longer-token"),
        pytest.param({"connection": "Upgrade keep-alive"}, MALFORMED, id="connection-no-comma"),
        pytest.param({"sec_websocket_version": None}, VERSION_NOT_SUPPORTED, id="version-missing"),
        pytest.param({"sec_websocket_version": "8"}, VERSION_NOT_SUPPORTED, id="version-8"),
        pytest.param({"sec_websocket_version": "013"}, VERSION_NOT_SUPPORTED, id="version-013"),
        pytest.param({"sec_websocket_version": "13.0"}, VERSION_NOT_SUPPORTED, id="version-13.0"),
        pytest.param({"sec_websocket_version": "13, 8"}, VERSION_NOT_SUPPORTED, id="version-list"),
        pytest.param({"sec_websocket_key": key_of(16)}, None, id="key-of-16-bytes"),
        pytest.param({"sec_websocket_key": None}, MALFORMED, id="key-missing"),
        pytest.param({"sec_websocket_key": ""}, MALFORMED, id="key-empty"),
        pytest.param({"sec_websocket_key": key_of(15)}, MALFORMED, id="key-of-15-bytes"),
        pytest.param({"sec_websocket_key": key_of(17)}, MALFORMED, id="key-of-17-bytes"),
        pytest.param({"sec_websocket_key": key_of(6000)}, MALFORMED, id="key-of-8-KiB"),
        pytest.param({"sec_websocket_key": KEY[:-2]}, MALFORMED, id="key-without-padding"),
        pytest.param({"sec_websocket_key": KEY + "="}, MALFORMED, id="key-with-too-much-padding"),
        pytest.param({"sec_websocket_key": f"{KEY}{KEY}"}, MALFORMED, id="key-twice-in-one"),
        pytest.param({"sec_websocket_key": f"{KEY}, {KEY}"}, MALFORMED, id="key-list"),
        pytest.param({"sec_websocket_key": "!" * 24}, MALFORMED, id="key-not-base64"),
        pytest.param(
            {"sec_websocket_key": "d-hlIHNhbXBsZSBub25jZQ=="}, MALFORMED, id="key-base64url"
        ),
        pytest.param({"sec_websocket_key": "\xe9" * 24}, MALFORMED, id="key-not-ascii"),
        pytest.param({"host": None}, MALFORMED, id="host-missing"),
        pytest.param({"content_length": "0"}, None, id="no-body-said-aloud"),
        pytest.param({"content_length": "5"}, MALFORMED, id="body"),
        pytest.param({"content_length": "00"}, MALFORMED, id="content-length-00"),
        pytest.param({"content_length": "-0"}, MALFORMED, id="content-length-minus-0"),
        pytest.param({"content_length": ""}, MALFORMED, id="content-length-empty"),
        pytest.param({"content_length": ["0", "5"]}, MALFORMED, id="content-length-said-twice"),
        pytest.param({"transfer_encoding": "chunked"}, MALFORMED, id="chunked-body"),
        pytest.param({"transfer_encoding": ""}, MALFORMED, id="transfer-encoding-empty"),
        pytest.param({"sec_websocket_protocol": "chat, v2.chat"}, None, id="subprotocols"),
        pytest.param({"sec_websocket_protocol": "!#$%&'*+-.^_`|~aZ9"}, None, id="all-of-a-token"),
        pytest.param({"sec_websocket_protocol": ""}, None, id="subprotocols-empty"),
        pytest.param({"sec_websocket_protocol": "a b"}, MALFORMED, id="subprotocol-with-blank"),
        pytest.param({"sec_websocket_protocol": "a/b"}, MALFORMED, id="subprotocol-with-slash"),
        pytest.param({"sec_websocket_protocol": '"a"'}, MALFORMED, id="subprotocol-quoted"),
        pytest.param({"sec_websocket_protocol": "caf\xe9"}, MALFORMED, id="subprotocol-not-ascii"),
        pytest.param({"sec_websocket_protocol": ["a", "b c"]}, MALFORMED, id="bad-in-second-line"),
        pytest.param({"sec_websocket_protocol": tokens(32)}, None, id="32-subprotocols"),
        pytest.param({"sec_websocket_protocol": tokens(33)}, MALFORMED, id="33-subprotocols"),
        pytest.param(
            {"sec_websocket_protocol": ["a"] * 33}, MALFORMED, id="33-subprotocols-a-line-each"
        ),
        pytest.param({"sec_websocket_extensions": tokens(16)}, None, id="16-extensions"),
        pytest.param({"sec_websocket_extensions": tokens(17)}, MALFORMED, id="17-extensions"),
        pytest.param(
            {"sec_websocket_extensions": ["x"] * 17}, MALFORMED, id="17-extensions-a-line-each"
        ),
        pytest.param(
            {"sec_websocket_extensions": "permessage-deflate; client_max_window_bits"},
            None,
            id="extension-with-parameter",
        ),
        pytest.param(
            {"sec_websocket_extensions": "constructor"}, None, id="extension-nobody-knows"
        ),
    ],
)
def test_fields(changes: dict[str, Field], expected: tuple[int, str] | None) -> None:
    assert verdict(**changes) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", "myapp.com"),
        ("origin", "https://myapp.com"),
        ("sec_websocket_key", KEY),
        ("sec_websocket_version", "13"),
        ("upgrade", "websocket"),
    ],
)
def test_a_field_that_may_come_once_is_refused_twice_even_with_one_value(
    name: str, value: str
) -> None:
    changes: dict[str, Field] = {name: [value, value]}
    refusal = find_problem(upgrade(**changes))
    assert refusal is not None
    wire = name.replace("_", "-")
    assert (refusal.status, refusal.code) == MALFORMED
    assert refusal.detail == f"there is more than one {wire} header"


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "get", ""])
def test_only_get_upgrades(method: str) -> None:
    refusal = find_problem(upgrade(method=method))
    assert refusal is not None
    assert (refusal.status, refusal.code) == (405, "method_not_allowed")
    assert refusal.headers == (("Allow", "GET"),)


@pytest.mark.parametrize("version", ["1.0", "0.9", "2", "2.0", "1.2", ""])
def test_only_http_1_1_upgrades(version: str) -> None:
    refusal = find_problem(upgrade(http_version=version))
    assert refusal is not None
    assert (refusal.status, refusal.code) == (505, "http_version")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param("/", None, id="root"),
        pytest.param("/ws?x=1", None, id="path-and-query"),
        pytest.param("//evil.example/ws", None, id="path-that-looks-like-an-authority"),
        pytest.param("http://myapp.com/ws", None, id="absolute"),
        pytest.param("ws://myapp.com/ws", None, id="absolute-ws"),
        pytest.param("WSS://MyApp.com/ws", None, id="absolute-in-any-case"),
        pytest.param("http://myapp.com", None, id="absolute-without-path"),
        pytest.param("http://myapp.com?x=/ws", None, id="absolute-with-query-alone"),
        pytest.param("http://evil.example/ws", MALFORMED, id="absolute-another-host"),
        pytest.param("http://myapp.com:81/ws", MALFORMED, id="absolute-another-port"),
        pytest.param("http://u@myapp.com/ws", MALFORMED, id="absolute-with-user"),
        pytest.param("http://evil.example?@myapp.com/", MALFORMED, id="absolute-host-in-query"),
        pytest.param("ftp://myapp.com/ws", MALFORMED, id="absolute-another-scheme"),
        pytest.param("*", MALFORMED, id="asterisk"),
        pytest.param("myapp.com:80", MALFORMED, id="authority"),
        pytest.param("ws", MALFORMED, id="relative"),
        pytest.param("", MALFORMED, id="empty"),
    ],
)
def test_targets(target: str, expected: tuple[int, str] | None) -> None:
    refusal = find_problem(upgrade(target))
    assert (None if refusal is None else (refusal.status, refusal.code)) == expected


def test_426_names_what_would_do() -> None:
    wrong: list[dict[str, Field]] = [
        {"upgrade": None},
        {"upgrade": "h2c"},
        {"sec_websocket_version": "8"},
    ]
    for changes in wrong:
        refusal = find_problem(upgrade(**changes))
        assert refusal is not None
        assert refusal.headers == (("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket"))


def test_a_missing_upgrade_beside_a_key_hints_at_the_proxy() -> None:
    plain = find_problem(upgrade(upgrade=None, sec_websocket_key=None))
    dropped = find_problem(upgrade(upgrade=None))
    assert plain is not None
    assert dropped is not None
    assert plain.detail == "this is a WebSocket endpoint: connect with a WebSocket client"
    assert dropped.detail == (
        "this is a WebSocket endpoint: connect with a WebSocket client "
        "(the Upgrade header is missing: does a proxy drop it?)"
    )


def test_what_the_peer_sent_as_version_is_cut() -> None:
    refusal = find_problem(upgrade(sec_websocket_version="9" * 500))
    assert refusal is not None
    assert refusal.detail == f"Sec-WebSocket-Version must be 13, not {'9' * 20}"


def test_the_request_line_is_asked_before_the_fields() -> None:
    refusal = find_problem(upgrade(method="POST", http_version="1.0", host=None))
    assert refusal is not None
    assert refusal.status == 505


LINES = (
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    'proxy_set_header Connection "upgrade";'
)


@pytest.mark.parametrize(
    ("changes", "expected", "found"),
    [
        pytest.param({"upgrade": None}, (426, "upgrade_required"), "no Upgrade", id="upgrade"),
        pytest.param(
            {"upgrade": None, "connection": None, "http_version": "1.0"},
            (426, "upgrade_required"),
            "no Upgrade",
            id="as-nginx-does-without-a-word",
        ),
        pytest.param({"http_version": "1.0"}, (505, "http_version"), "HTTP/1.0", id="version"),
        pytest.param(
            {"connection": "close"}, (400, "upgrade_malformed"), "no token", id="connection"
        ),
        pytest.param(
            {"connection": None}, (400, "upgrade_malformed"), "no token", id="no-connection"
        ),
    ],
)
def test_what_a_proxy_drops_is_answered_with_its_lines_in_the_log(
    changes: dict[str, Field], expected: tuple[int, str], found: str
) -> None:
    refusal = find_problem(upgrade(**changes))
    assert refusal is not None
    assert (refusal.status, refusal.code) == expected
    assert found in refusal.why
    assert refusal.why.endswith(
        f": most likely a proxy's doing. nginx needs in its location: {LINES}"
    )
    assert "proxy_set_header" not in refusal.detail, "the peer need not know what stands here"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_no_proxy_is_blamed_for_a_page_that_somebody_opened(version: str) -> None:
    refusal = find_problem(
        upgrade(http_version=version, upgrade=None, connection=None, sec_websocket_key=None)
    )
    assert refusal is not None
    assert refusal.why == ""
