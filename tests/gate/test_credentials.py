from __future__ import annotations

from dataclasses import replace

import pytest

from tests.gate.upgrades import Field, upgrade
from ws_middleware.errors import ConfigError
from ws_middleware.gate.credentials import (
    check_sources,
    choose_subprotocol,
    find_credential,
    forget_credential,
)
from ws_middleware.types import Credential, UpgradeRequest

ALL = ("header", "subprotocol", "query:token")
TOKEN = "aaa.SECRET.ccc"


def texts_of(request: UpgradeRequest) -> str:
    """All that a request shows to whoever prints, logs or forwards it."""
    return " ".join((request.target, repr(request), str(request), request.head.decode("latin-1")))


@pytest.mark.parametrize(
    ("sources", "target", "fields", "expected"),
    [
        pytest.param(ALL, "/ws", {}, None, id="none"),
        pytest.param(
            ALL, "/ws", {"authorization": f"Bearer {TOKEN}"}, (TOKEN, "header"), id="header"
        ),
        pytest.param(
            ALL,
            "/ws",
            {"authorization": f"bEARER {TOKEN}"},
            (TOKEN, "header"),
            id="scheme-any-case",
        ),
        pytest.param(
            ALL, "/ws", {"authorization": f"Bearer   {TOKEN} "}, (TOKEN, "header"), id="more-blanks"
        ),
        pytest.param(
            ALL,
            "/ws",
            {"authorization": ["Basic eDp5", f"Bearer {TOKEN}"]},
            (TOKEN, "header"),
            id="second-header",
        ),
        pytest.param(ALL, "/ws", {"authorization": "Bearer"}, None, id="header-without-token"),
        pytest.param(ALL, "/ws", {"authorization": "Bearer  "}, None, id="header-of-blanks"),
        pytest.param(ALL, "/ws", {"authorization": TOKEN}, None, id="header-without-scheme"),
        pytest.param(ALL, "/ws", {"authorization": f"Basic {TOKEN}"}, None, id="another-scheme"),
        pytest.param(
            ALL,
            "/ws",
            {"sec_websocket_protocol": f"bearer, {TOKEN}"},
            (TOKEN, "subprotocol"),
            id="subprotocol",
        ),
        pytest.param(
            ALL,
            "/ws",
            {"sec_websocket_protocol": ["chat,bearer", f"{TOKEN},x"]},
            (TOKEN, "subprotocol"),
            id="subprotocol-over-two-lines",
        ),
        pytest.param(
            ALL, "/ws", {"sec_websocket_protocol": "bearer"}, None, id="subprotocol-bearer-alone"
        ),
        pytest.param(
            ALL,
            "/ws",
            {"sec_websocket_protocol": "chat, bearer"},
            None,
            id="subprotocol-bearer-last",
        ),
        pytest.param(
            ALL, "/ws", {"sec_websocket_protocol": f"chat, {TOKEN}"}, None, id="without-bearer"
        ),
        pytest.param(ALL, f"/ws?token={TOKEN}", {}, (TOKEN, "query:token"), id="query"),
        pytest.param(
            ALL, f"/ws?a=1&token={TOKEN}&b=2", {}, (TOKEN, "query:token"), id="query-in-the-middle"
        ),
        pytest.param(
            ALL, "/ws?token=aaa%2ESECRET.ccc", {}, (TOKEN, "query:token"), id="query-escaped"
        ),
        pytest.param(
            ALL, f"/ws?%74oken={TOKEN}", {}, (TOKEN, "query:token"), id="query-name-escaped"
        ),
        pytest.param(
            ALL, f"/ws?token=&token={TOKEN}", {}, (TOKEN, "query:token"), id="query-first-empty"
        ),
        pytest.param(
            ALL,
            f"http://myapp.com/ws?token={TOKEN}",
            {},
            (TOKEN, "query:token"),
            id="absolute-form",
        ),
        pytest.param(ALL, "/ws?token=", {}, None, id="query-empty"),
        pytest.param(ALL, "/ws?token", {}, None, id="query-without-value"),
        pytest.param(ALL, f"/ws?tokens={TOKEN}", {}, None, id="query-another-name"),
        pytest.param(ALL, f"/ws?TOKEN={TOKEN}", {}, None, id="query-name-in-other-case"),
        pytest.param(
            ("query:access_token",),
            f"/ws?access_token={TOKEN}",
            {},
            (TOKEN, "query:access_token"),
            id="query-by-its-own-name",
        ),
        pytest.param(("header",), f"/ws?token={TOKEN}", {}, None, id="query-not-looked-at"),
        pytest.param(
            ("query:token",),
            "/ws",
            {"authorization": f"Bearer {TOKEN}"},
            None,
            id="header-not-asked",
        ),
        pytest.param((), f"/ws?token={TOKEN}", {}, None, id="no-sources"),
    ],
)
def test_where_a_token_is_found(
    sources: tuple[str, ...],
    target: str,
    fields: dict[str, Field],
    expected: tuple[str, str] | None,
) -> None:
    found = find_credential(upgrade(target, **fields), sources).credential
    assert found == (None if expected is None else Credential(*expected))


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (("header", "subprotocol", "query:token"), Credential("H", "header")),
        (("subprotocol", "header", "query:token"), Credential("S", "subprotocol")),
        (("query:token", "header", "subprotocol"), Credential("Q", "query:token")),
        (("query:other", "query:token"), Credential("Q", "query:token")),
    ],
)
def test_the_first_source_that_has_a_token_counts(
    sources: tuple[str, ...], expected: Credential
) -> None:
    request = upgrade("/ws?token=Q", authorization="Bearer H", sec_websocket_protocol="bearer, S")
    assert find_credential(request, sources).credential == expected


def test_tokens_that_lost_are_taken_out_as_well() -> None:
    request = upgrade(
        "/ws?token=SECRET1&token=SECRET2",
        authorization="Bearer winner",
        sec_websocket_protocol="bearer, SECRET3",
    )
    seen = find_credential(request, ALL)
    assert seen.credential == Credential("winner", "header")
    assert "SECRET" not in texts_of(seen)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param("/ws?token=SECRET", "/ws?token=-", id="alone"),
        pytest.param("/ws?a=1&token=SECRET&b=2", "/ws?a=1&token=-&b=2", id="order-is-kept"),
        pytest.param("/ws?token=SECRET&token=SECRET", "/ws?token=-&token=-", id="twice"),
        pytest.param("/ws?%74oken=SECRET", "/ws?%74oken=-", id="name-escaped"),
        pytest.param("/ws?token=a=SECRET", "/ws?token=-", id="equals-in-it"),
        pytest.param("/ws?token=a?SECRET", "/ws?token=-", id="question-mark-in-it"),
        pytest.param("/ws?token=", "/ws?token=-", id="empty"),
        pytest.param("/ws?token", "/ws?token=-", id="no-value"),
        pytest.param("/ws?a=%20+&b", "/ws?a=%20+&b", id="others-stay-as-sent"),
        pytest.param("/ws?", "/ws?", id="empty-query"),
        pytest.param("/ws", "/ws", id="no-query"),
        pytest.param(
            "http://myapp.com/ws?token=SECRET", "http://myapp.com/ws?token=-", id="absolute-form"
        ),
    ],
)
def test_a_token_in_the_query_is_overwritten_in_place(target: str, expected: str) -> None:
    seen = find_credential(upgrade(target), ALL)
    assert seen.target == expected
    assert "SECRET" not in texts_of(seen)
    assert seen.query.get("token", "-") == "-"


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        pytest.param("bearer, SECRET", ["bearer"], id="alone"),
        pytest.param("chat, bearer, SECRET, v2", ["chat", "bearer", "v2"], id="in-the-middle"),
        pytest.param(["chat", "bearer,SECRET"], ["chat", "bearer"], id="two-lines"),
        pytest.param(["bearer", "SECRET"], ["bearer"], id="token-on-the-next-line"),
        pytest.param("bearer, SECRET1, bearer, SECRET2", ["bearer", "bearer"], id="two-tokens"),
        pytest.param("bearer,,SECRET", ["bearer"], id="empty-element-between"),
        pytest.param("bearer, SECRET=", ["bearer"], id="no-token-of-http"),
        pytest.param("chat, v2", ["chat", "v2"], id="no-token"),
    ],
)
def test_a_token_among_the_subprotocols_is_removed(
    offered: str | list[str], expected: list[str]
) -> None:
    seen = find_credential(upgrade(sec_websocket_protocol=offered), ALL)
    assert seen.subprotocols == expected
    assert "SECRET" not in texts_of(seen)


def test_other_fields_survive_the_removal() -> None:
    request = upgrade(sec_websocket_protocol="bearer, x", origin="https://myapp.com", cookie="a=b")
    seen = find_credential(request, ALL)
    names = [name for name, _ in request.headers.pairs()]
    assert sorted(name for name, _ in seen.headers.pairs()) == sorted(names)
    assert seen.origin == "https://myapp.com"
    assert seen.cookies == {"a": "b"}


def test_what_is_no_source_is_left_alone() -> None:
    request = upgrade("/ws?token=x", sec_websocket_protocol="bearer, x")
    assert find_credential(request, ("header",)) == request


def test_a_request_from_elsewhere_brings_no_credential() -> None:
    request = replace(upgrade(), credential=Credential("planted", "header"))
    assert find_credential(request, ALL).credential is None


def test_a_kept_request_has_no_token_left() -> None:
    request = upgrade(
        f"/ws?x=1&token={TOKEN}",
        authorization=[f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
        sec_websocket_protocol=f"bearer, {TOKEN}",
        cookie="a=b",
    )
    kept = forget_credential(find_credential(replace(request, native=object()), ALL))
    assert "SECRET" not in texts_of(kept)
    assert kept.credential is None
    assert kept.native is None
    assert "authorization" not in kept.headers
    assert kept.cookies == {"a": "b"}


def test_a_credential_does_not_print_its_token() -> None:
    assert repr(Credential(TOKEN, "header")) == "Credential(source='header')"
    seen = find_credential(upgrade(authorization=f"Bearer {TOKEN}"), ALL)
    assert "SECRET" not in repr(seen)


@pytest.mark.parametrize(
    ("offered", "ours", "expected"),
    [
        pytest.param(None, ("chat",), None, id="nothing-offered"),
        pytest.param("chat", (), None, id="nothing-of-ours"),
        pytest.param("v1, v2", ("v2", "v1"), "v2", id="our-order-counts"),
        pytest.param("v1", ("v2", "v1"), "v1", id="second-of-ours"),
        pytest.param("V1", ("v1",), None, id="case-counts"),
        pytest.param("v3", ("v2", "v1"), None, id="nothing-in-common"),
        pytest.param("bearer, x", (), "bearer", id="bearer-where-nothing-fits"),
        pytest.param("bearer, x, chat", ("chat",), "chat", id="ours-before-bearer"),
        pytest.param("bearer, chat", ("chat",), "bearer", id="a-token-is-no-subprotocol"),
    ],
)
def test_choosing_a_subprotocol(
    offered: str | None, ours: tuple[str, ...], expected: str | None
) -> None:
    request = find_credential(upgrade(sec_websocket_protocol=offered), ALL)
    assert choose_subprotocol(request, ours) == expected


def test_sources_come_as_a_tuple() -> None:
    assert check_sources(["header", "query:t-1_x.y"]) == ("header", "query:t-1_x.y")
    assert check_sources("header") == ("header",)


@pytest.mark.parametrize(
    "source", ["", "headers", "Header", "query", "query:", "query:a b", "query:a&b", "cookie"]
)
def test_an_unknown_source_is_a_config_error(source: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_sources(["header", source])
    assert str(caught.value) == (
        f"sources: {source!r} is none of 'header', 'subprotocol', 'query:NAME'"
    )


def test_no_source_at_all_is_a_config_error() -> None:
    with pytest.raises(ConfigError) as caught:
        check_sources([])
    assert str(caught.value) == (
        "sources: name at least one of 'header', 'subprotocol', 'query:NAME'"
    )
