from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask

from ws_middleware import WebSockets
from ws_middleware.checks import check_keywords
from ws_middleware.config import (
    DEFAULT_HEARTBEAT,
    DEFAULT_LIMITS,
    EffectivePolicy,
    Heartbeat,
    Limits,
    Policy,
    ServerLimits,
)
from ws_middleware.errors import ConfigError
from ws_middleware.gate.auth.anonymous import Anonymous
from ws_middleware.gate.auth.jwt import JWTAuth
from ws_middleware.settings import Settings, resolve_policy
from ws_middleware.variables import unknown_variables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ws_middleware.types import Principal, UpgradeRequest

WHERE = 'app.config["WEBSOCKETS"]'
JWT = JWTAuth("k" * 32, algorithms=["HS256"])


def by_cookie(request: UpgradeRequest) -> str | None:
    return request.cookies.get("user")


def may_read(user: Principal, request: UpgradeRequest) -> bool:
    return True


def settings(
    code: Mapping[str, Any] | None = None,
    host: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    made = Settings(dict(code or {}))
    if host is not None:
        made.add_host(host, WHERE)
    if environ is not None:
        made.add_environ(environ)
    return made


def resolved(made: Settings, **route: Any) -> EffectivePolicy:
    given: Policy = route  # type: ignore[assignment]
    return resolve_policy(made, given, "route /ws")


# --- which layer counts --------------------------------------------------------------------------

#: A value for each layer by setting: a route's, code's, the host's, a variable's, the default.
POLICY_LAYERS: list[Any] = [
    pytest.param(
        "origins",
        ["https://route"],
        ["https://code"],
        ["https://host"],
        ("WSM_ORIGINS", "https://a, https://b"),
        [
            ("https://route",),
            ("https://code",),
            ("https://host",),
            ("https://a", "https://b"),
            "same-origin",
        ],
        id="origins",
    ),
    pytest.param(
        "refuse_with",
        "http",
        "close",
        "http",
        ("WSM_REFUSE_WITH", "close"),
        ["http", "close", "http", "close", "http"],
        id="refuse_with",
    ),
    pytest.param(
        "limits",
        Limits(message_size=1),
        Limits(message_size=2),
        Limits(message_size=3),
        ("WSM_LIMITS_MESSAGE_SIZE", "4"),
        [
            Limits(message_size=size).inherit(DEFAULT_LIMITS)
            for size in (1, 2, 3, 4, DEFAULT_LIMITS.message_size)
        ],
        id="limits",
    ),
    pytest.param(
        "heartbeat",
        Heartbeat(interval=1),
        Heartbeat(interval=2),
        Heartbeat(interval=3),
        ("WSM_HEARTBEAT_INTERVAL", "4"),
        [Heartbeat(interval).inherit(DEFAULT_HEARTBEAT) for interval in (1, 2, 3, 4, 30.0)],
        id="heartbeat",
    ),
]


@pytest.mark.parametrize(("name", "route", "code", "host", "variable", "expected"), POLICY_LAYERS)
def test_route_before_code_before_host_before_variable_before_default(
    name: str,
    route: object,
    code: object,
    host: object,
    variable: tuple[str, str],
    expected: list[object],
) -> None:
    layers: list[dict[str, Any]] = [
        {"route": {name: route}},
        {"code": {name: code}},
        {"host": {name: host}},
        {"environ": dict([variable])},
    ]
    for first, value in enumerate(expected):
        given: dict[str, Any] = {}
        for layer in layers[first:]:
            given |= layer
        own = given.pop("route", {})
        made = settings(**given)
        assert getattr(resolved(made, auth=JWT, **own), name) == value


@pytest.mark.parametrize(
    ("given", "is_given"),
    [
        pytest.param({}, False, id="nowhere"),
        pytest.param({"code": {"heartbeat": Heartbeat()}}, False, id="it-says-nothing"),
        pytest.param({"code": {"heartbeat": Heartbeat(timeout=5)}}, True, id="code"),
        pytest.param({"host": {"heartbeat": None}}, True, id="off"),
        pytest.param({"environ": {"WSM_HEARTBEAT_INTERVAL": "30"}}, True, id="the-default-aloud"),
    ],
)
def test_whether_somebody_has_asked_for_a_heartbeat_is_known(
    given: dict[str, Any],
    is_given: bool,  # noqa: FBT001
) -> None:
    made = settings(**given)
    assert resolved(made, auth=JWT).heartbeat_is_given is is_given
    assert resolved(made, auth=JWT, heartbeat=Heartbeat(interval=9)).heartbeat_is_given
    assert resolved(made, auth=JWT, heartbeat=None).heartbeat_is_given


def test_drain_over_comes_from_code_host_or_variable() -> None:
    assert settings({"drain_over": 0}, {"drain_over": 1}).drain_over == 0
    assert settings({}, {"drain_over": 1.5}, {"WSM_DRAIN_OVER": "2"}).drain_over == 1.5
    assert settings({}, {}, {"WSM_DRAIN_OVER": "2.5"}).drain_over == 2.5
    assert settings({}, {}, {"WSM_DRAIN_OVER": "none"}).drain_over is None
    assert settings().drain_over is None


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), True, "10", []])
def test_a_drain_over_that_is_no_time(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        WebSockets(drain_over=value)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"WebSockets(): drain_over takes seconds, 0 or more, or None, got {value!r}"
    )


def test_a_variable_for_drain_over_that_is_no_time() -> None:
    with pytest.raises(ConfigError, match=r"^WSM_DRAIN_OVER: drain_over takes seconds, 0 or more"):
        settings({}, {}, {"WSM_DRAIN_OVER": "-1"})


@pytest.mark.parametrize("name", ["auth", "authorize"])
def test_callables_come_from_route_code_or_host(name: str) -> None:
    def one(*args: object) -> bool:
        return True

    def two(*args: object) -> bool:
        return True

    rest = {} if name == "auth" else {"auth": JWT}
    everywhere = settings({name: one}, {name: two})
    assert getattr(resolved(everywhere, **{**rest, name: may_read}), name) is may_read
    assert getattr(resolved(everywhere, **rest), name) is one
    assert getattr(resolved(settings(None, {name: two}), **rest), name) is two


def test_descriptors_are_used_unless_somebody_says_no() -> None:
    assert settings().abort_by_descriptor is True
    assert settings({"abort_by_descriptor": False}).abort_by_descriptor is False
    assert settings({}, {}, {"WSM_ABORT_BY_DESCRIPTOR": "0"}).abort_by_descriptor is False


def test_a_switch_in_every_layer() -> None:
    variable = {"WSM_TLS_TAKEOVER": "False"}
    assert settings({"tls_takeover": True}, {"tls_takeover": False}, variable).tls_takeover is True
    assert settings({}, {"tls_takeover": True}, variable).tls_takeover is True
    assert settings({}, {}, variable).tls_takeover is False
    assert settings({}, {}, {"WSM_TLS_TAKEOVER": "true"}).tls_takeover is True
    assert settings().tls_takeover is True


def test_draining_at_sigterm_is_asked_for() -> None:
    assert settings().drain_on_sigterm is False
    assert settings({}, {}, {"WSM_DRAIN_ON_SIGTERM": "1"}).drain_on_sigterm is True
    assert (
        settings({"drain_on_sigterm": False}, {"drain_on_sigterm": True}).drain_on_sigterm is False
    )
    with pytest.raises(ConfigError, match="drain_on_sigterm takes True or False, got 1"):
        WebSockets(drain_on_sigterm=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "2", "no", "off"])
def test_a_switch_that_is_neither_on_nor_off(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings({}, {}, {"WSM_TLS_TAKEOVER": text})
    assert str(caught.value) == f"WSM_TLS_TAKEOVER takes true or false, or 1 or 0; got {text!r}"


@pytest.mark.parametrize(
    ("name", "default"), [("sync_threads", 32), ("sync_conversations", 32), ("auth_threads", 8)]
)
def test_threads_in_every_layer(name: str, default: int) -> None:
    variable = {f"WSM_{name.upper()}": "4"}
    assert settings({name: 2}, {name: 3}, variable).threads(name) == 2
    assert settings({}, {name: 3}, variable).threads(name) == 3
    assert settings({}, {}, variable).threads(name) == 4
    assert settings({}, {}, {}).threads(name) == default
    assert settings().threads(name) == default


def test_server_limits_in_every_layer() -> None:
    code, host = ServerLimits(connections=2), ServerLimits(connections=3)
    variable = {"WSM_SERVER_LIMITS_CONNECTIONS": "4"}
    assert (
        settings({"server_limits": code}, {"server_limits": host}, variable).server_limits is code
    )
    assert settings({}, {"server_limits": host}, variable).server_limits is host
    assert settings({}, {}, variable).server_limits == ServerLimits(connections=4)
    assert settings().server_limits == ServerLimits()


def test_what_the_host_says_twice_counts_the_second_time() -> None:
    made = settings(None, {"refuse_with": "close"})
    made.add_host({}, WHERE)
    assert resolved(made, auth=JWT).refuse_with == "http"


# --- groups of numbers ---------------------------------------------------------------------------


def test_each_limit_is_inherited_by_itself_from_route_to_app_to_default() -> None:
    made = settings({"limits": Limits(message_size=10, fragments=20, close_timeout=1.0)})
    policy = resolved(made, auth=JWT, limits=Limits(message_size=5, write_timeout=2.0))
    assert policy.limits == Limits(
        message_size=5, fragments=20, close_timeout=1.0, write_timeout=2.0
    ).inherit(DEFAULT_LIMITS)


def whole(heartbeat: Heartbeat) -> Heartbeat:
    return heartbeat.inherit(DEFAULT_HEARTBEAT)


def test_each_number_of_a_heartbeat_is_inherited_by_itself() -> None:
    made = settings({"heartbeat": Heartbeat(interval=10)})
    assert resolved(made, auth=JWT).heartbeat == whole(Heartbeat(10))
    both = resolved(made, auth=JWT, heartbeat=Heartbeat(timeout=5)).heartbeat
    assert both == whole(Heartbeat(10, 5))
    assert resolved(settings(), auth=JWT).heartbeat == DEFAULT_HEARTBEAT


def test_none_aloud_is_no_limit_and_is_not_inherited_over() -> None:
    made = settings({"limits": Limits(message_size=10, fragments=None)})
    policy = resolved(made, auth=JWT, limits=Limits(message_size=None))
    assert policy.limits.message_size is None
    assert policy.limits.fragments is None
    back = resolved(made, auth=JWT, limits=Limits(fragments=7))
    assert (back.limits.message_size, back.limits.fragments) == (10, 7)


def test_a_heartbeat_can_be_off_and_on_again() -> None:
    off = settings({"heartbeat": None}, {"heartbeat": Heartbeat(interval=3)})
    assert resolved(off, auth=JWT).heartbeat is None
    back = resolved(off, auth=JWT, heartbeat=Heartbeat(interval=5)).heartbeat
    assert back == whole(Heartbeat(5))
    on = settings({"heartbeat": Heartbeat(interval=3)})
    assert resolved(on, auth=JWT, heartbeat=None).heartbeat is None


def test_a_message_of_a_heartbeat_is_inherited_by_itself() -> None:
    made = settings({"heartbeat": Heartbeat(app_ping="ping")}, {"heartbeat": Heartbeat(timeout=5)})
    with_answer = resolved(made, auth=JWT, heartbeat=Heartbeat(app_pong="pong")).heartbeat
    assert with_answer == Heartbeat(30.0, 5, "ping", "pong")
    without = resolved(made, auth=JWT, heartbeat=Heartbeat(app_ping=None)).heartbeat
    assert without == Heartbeat(30.0, 5, None, None)


@pytest.mark.parametrize(
    ("app", "route"),
    [
        pytest.param({}, Heartbeat(app_pong="pong"), id="nobody has one"),
        pytest.param(
            {"heartbeat": Heartbeat(app_ping="ping", app_pong="pong")},
            Heartbeat(app_ping=None),
            id="the route has none",
        ),
    ],
)
def test_an_answer_to_no_ping_is_an_error_that_names_the_route(
    app: dict[str, Any], route: Heartbeat
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(settings(app), auth=JWT, heartbeat=route)
    assert str(caught.value).endswith(
        ": Heartbeat(app_pong='pong') answers an app_ping, and there is none; give one, or "
        "app_pong=None, too"
    )
    assert str(caught.value).startswith("route /ws: ")


def test_the_messages_of_a_heartbeat_are_no_variables() -> None:
    environ = {"WSM_HEARTBEAT_APP_PING": "ping"}
    assert settings(None, None, environ).environ == {}
    assert len(unknown_variables(environ)) == 1


def test_a_variable_counts_where_code_left_a_limit_open() -> None:
    made = settings({"limits": Limits(message_size=5)}, None, {"WSM_LIMITS_FRAGMENTS": "7"})
    limits = resolved(made, auth=JWT).limits
    assert (limits.message_size, limits.fragments) == (5, 7)


# --- who may connect -----------------------------------------------------------------------------


def test_somebody_must_say_who_may_connect() -> None:
    for made in (settings(), settings({"auth": None})):
        with pytest.raises(ConfigError) as caught:
            resolved(made)
        assert str(caught.value) == (
            "WebSockets() needs auth=. JWTAuth(key, algorithms=[…]), any callable, or "
            "Anonymous() to let everybody in."
        )


def test_a_route_cannot_take_the_apps_auth_away() -> None:
    with pytest.raises(ConfigError, match=r"^WebSockets\(\) needs auth=\."):
        resolved(settings({"auth": JWT}), auth=None)


def test_a_route_can_take_the_apps_authorize_away() -> None:
    made = settings({"auth": JWT, "authorize": may_read})
    assert resolved(made).authorize is may_read
    assert resolved(made, authorize=None).authorize is None


@pytest.mark.parametrize(
    ("app", "route"),
    [
        ({"auth": by_cookie, "origins": "*"}, {}),
        ({"auth": by_cookie}, {"origins": "*"}),
        ({"auth": JWT, "origins": "*"}, {"auth": by_cookie}),
    ],
)
def test_every_page_and_cookies_do_not_go_together(
    app: dict[str, Any], route: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(settings(app), **route)
    assert str(caught.value) == (
        "route /ws: origins='*' lets any page ride on the user's cookies. List the origins, or use "
        "an authenticator that never looks at what a browser sends by itself (JWTAuth, Anonymous, "
        "or a callable with ambient = False)."
    )


@pytest.mark.parametrize("auth", [JWT, Anonymous()])
def test_every_page_may_show_a_token(auth: Any) -> None:
    policy = resolved(settings({"auth": auth, "origins": "*"}))
    assert policy.origins == "*"
    assert policy.is_ambient is False


def test_a_route_may_narrow_what_the_app_opened() -> None:
    policy = resolved(
        settings({"auth": JWT, "origins": "*"}), auth=by_cookie, origins=["https://a"]
    )
    assert policy.origins == ("https://a",)


# --- wrong values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("refuse_with", "html", "refuse_with takes 'http' or 'close', got 'html'"),
        ("refuse_with", None, "refuse_with takes 'http' or 'close', got None"),
        ("limits", {"message_size": 5}, "limits takes Limits(...), got {'message_size': 5}"),
        ("limits", None, "limits takes Limits(...), got None"),
        ("heartbeat", 30, "heartbeat takes Heartbeat(...), got 30"),
        ("heartbeat", False, "heartbeat takes Heartbeat(...), got False"),
        ("server_limits", 5, "server_limits takes ServerLimits(...), got 5"),
        ("sync_threads", 0, "sync_threads takes a whole number above 0, got 0"),
        ("sync_threads", True, "sync_threads takes a whole number above 0, got True"),
        ("sync_conversations", 1.5, "sync_conversations takes a whole number above 0, got 1.5"),
        ("auth_threads", "8", "auth_threads takes a whole number above 0, got '8'"),
        ("auth_threads", None, "auth_threads takes a whole number above 0, got None"),
        ("tls_takeover", 1, "tls_takeover takes True or False, got 1"),
        ("tls_takeover", None, "tls_takeover takes True or False, got None"),
        ("auth", "jwt", "auth takes a callable, got 'jwt'"),
        ("auth", Anonymous, "auth is the class Anonymous; make one: Anonymous(...)"),
        ("auth", JWTAuth, "auth is the class JWTAuth; make one: JWTAuth(...)"),
        ("authorize", True, "authorize takes a callable, got True"),
    ],
)
def test_a_wrong_value_is_told_where_it_was_given(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings({name: value})
    assert str(caught.value) == f"WebSockets(): {message}"
    with pytest.raises(ConfigError) as caught:
        settings(None, {name: value})
    assert str(caught.value) == f"{WHERE}: {message}"


@pytest.mark.parametrize("value", [None, 5, ["myapp.com"], "myapp.com", [5]])
def test_origins_that_are_none_are_a_config_error_where_they_are_given(value: object) -> None:
    given: dict[str, Any] = {"origins": value}
    with pytest.raises(ConfigError, match="origins"):
        WebSockets(**given)
    with pytest.raises(ConfigError, match="origins"):
        WebSockets(auth=JWT).route("/ws", **given)
    app = Flask("app")
    app.config["WEBSOCKETS"] = given
    with pytest.raises(ConfigError, match="origins"):
        WebSockets(auth=JWT).init_app(app)


def test_a_wrong_value_of_a_route_is_told_with_its_path() -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(settings({"auth": JWT}), refuse_with="html")
    assert str(caught.value) == "route /ws: refuse_with takes 'http' or 'close', got 'html'"


def test_a_host_that_was_wrong_is_not_taken() -> None:
    made = settings({"auth": JWT})
    with pytest.raises(ConfigError):
        made.add_host({"refuse_with": "html"}, WHERE)
    assert resolved(made).refuse_with == "http"


# --- wrong names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("origin", "; did you mean origins?"),
        ("authorise", "; did you mean authorize?"),
        ("heart_beat", "; did you mean heartbeat?"),
        ("limit", "; did you mean limits?"),
        ("syncthreads", "; did you mean sync_threads?"),
        ("xyzzy", ""),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(name: str, hint: str) -> None:
    given: dict[str, Any] = {name: 1}
    with pytest.raises(TypeError) as caught:
        WebSockets(**given)
    assert str(caught.value) == f"WebSockets() has no setting {name!r}{hint}"
    with pytest.raises(TypeError) as caught:
        settings(None, {name: 1})
    assert str(caught.value) == f"{WHERE} has no setting {name!r}{hint}"


@pytest.mark.parametrize(
    "name", ["server_limits", "sync_threads", "sync_conversations", "auth_threads", "tls_takeover"]
)
def test_a_setting_of_the_app_is_none_of_a_policy(name: str) -> None:
    check_keywords([name], "x", app=True)
    with pytest.raises(TypeError, match=f"^x has no setting '{name}'"):
        check_keywords([name], "x")


def test_every_policy_keyword_is_known() -> None:
    check_keywords(["auth", "authorize", "origins", "heartbeat", "limits", "refuse_with"], "x")


# --- WSM_* ---------------------------------------------------------------------------------------

VARIABLES: list[tuple[str, str, Any]] = [
    ("WSM_ORIGINS", "*", "*"),
    ("WSM_ORIGINS", "same-origin", "same-origin"),
    ("WSM_ORIGINS", "https://a", ("https://a",)),
    ("WSM_ORIGINS", " https://a ,, http://b:1 ", ("https://a", "http://b:1")),
    ("WSM_REFUSE_WITH", "close", "close"),
    ("WSM_SYNC_THREADS", "4", 4),
    ("WSM_SYNC_CONVERSATIONS", "4", 4),
    ("WSM_AUTH_THREADS", "4", 4),
    ("WSM_LIMITS_MESSAGE_SIZE", "4", 4),
    ("WSM_LIMITS_MESSAGE_SIZE", "none", None),
    ("WSM_LIMITS_MESSAGE_SIZE", "None", None),
    ("WSM_LIMITS_FRAGMENTS", "4", 4),
    ("WSM_LIMITS_INBOUND_MESSAGES", "4", 4),
    ("WSM_LIMITS_INBOUND_BYTES", "4", 4),
    ("WSM_LIMITS_OUTBOUND_BYTES", "4", 4),
    ("WSM_LIMITS_OUTBOUND_MESSAGES", "4", 4),
    ("WSM_LIMITS_WRITE_TIMEOUT", "4.5", 4.5),
    ("WSM_LIMITS_CLOSE_TIMEOUT", "4", 4),
    ("WSM_LIMITS_ROOMS_PER_SOCKET", "NONE", None),
    ("WSM_LIMITS_CONNECTIONS_PER_USER", "4", 4),
    ("WSM_SERVER_LIMITS_HEAD_SIZE", "4096", 4096),
    ("WSM_SERVER_LIMITS_HEAD_FIELDS", "4", 4),
    ("WSM_SERVER_LIMITS_HEAD_TIMEOUT", "0.5", 0.5),
    ("WSM_SERVER_LIMITS_UPGRADE_TIMEOUT", "4", 4),
    ("WSM_SERVER_LIMITS_CONNECTIONS", "none", None),
    ("WSM_SERVER_LIMITS_UNDECIDED", "4", 4),
    ("WSM_HEARTBEAT_INTERVAL", "4", 4),
    ("WSM_HEARTBEAT_TIMEOUT", "0.25", 0.25),
]


@pytest.mark.parametrize(("variable", "text", "expected"), VARIABLES)
def test_each_variable(variable: str, text: str, expected: object) -> None:
    made = settings(None, None, {variable: text})
    policy = resolved(made, auth=JWT)
    name = variable.removeprefix("WSM_").lower()
    found: object
    if name.startswith("limits_"):
        found = getattr(policy.limits, name.removeprefix("limits_"))
    elif name.startswith("server_limits_"):
        found = getattr(made.server_limits, name.removeprefix("server_limits_"))
    elif name.startswith("heartbeat_"):
        found = getattr(policy.heartbeat, name.removeprefix("heartbeat_"))
    elif name in {"origins", "refuse_with"}:
        found = getattr(policy, name)
    else:
        found = made.threads(name)
    assert found == expected
    assert unknown_variables({variable: text}) == []


def test_the_variables_of_one_group_come_together() -> None:
    made = settings(None, None, {"WSM_LIMITS_MESSAGE_SIZE": "4", "WSM_LIMITS_FRAGMENTS": "5"})
    limits = resolved(made, auth=JWT).limits
    assert (limits.message_size, limits.fragments) == (4, 5)


def test_other_variables_are_not_ours() -> None:
    environ = {"PATH": "/bin", "wsm_origins": "*", "XWSM_ORIGINS": "*", "WSMORIGINS": "*"}
    assert settings(None, None, environ).environ == {}
    assert unknown_variables(environ) == []


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("WSM_ORIGIN", "; did you mean WSM_ORIGINS?"),
        ("WSM_LIMITS_MESSAGE_SIZ", "; did you mean WSM_LIMITS_MESSAGE_SIZE?"),
        ("WSM_HEARTBEAT_INTERVALL", "; did you mean WSM_HEARTBEAT_INTERVAL?"),
        ("WSM_0123456789", ""),
        (
            "WSM_HEARTBEAT_APP_PING",
            ": it is for the code to say, Heartbeat(app_ping=...)",
        ),
    ],
)
def test_a_variable_that_means_nothing_is_a_sentence(variable: str, hint: str) -> None:
    environ = {"WSM_ORIGINS": "*", variable: "1", "HOME": "/"}
    assert unknown_variables(environ) == [
        f"the environment variable {variable} means nothing{hint}"
    ]


def test_variables_are_read_from_the_process_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSM_ORIGIN", "*")
    assert "the environment variable WSM_ORIGIN means nothing; did you mean WSM_ORIGINS?" in (
        unknown_variables()
    )


@pytest.mark.parametrize("text", ["", "many", "5 MiB", "0x10", "1,5"])
def test_a_variable_that_is_no_number(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(None, None, {"WSM_LIMITS_MESSAGE_SIZE": text})
    assert str(caught.value) == (
        f"WSM_LIMITS_MESSAGE_SIZE takes a number, or none for no limit; got {text!r}"
    )


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("WSM_LIMITS_MESSAGE_SIZE", "-1"),
        ("WSM_LIMITS_MESSAGE_SIZE", "1.5"),
        ("WSM_LIMITS_INBOUND_BYTES", "none"),
        ("WSM_LIMITS_WRITE_TIMEOUT", "inf"),
        ("WSM_SERVER_LIMITS_HEAD_SIZE", "0"),
        ("WSM_HEARTBEAT_INTERVAL", "none"),
        ("WSM_HEARTBEAT_INTERVAL", "nan"),
        ("WSM_SYNC_THREADS", "0"),
        ("WSM_AUTH_THREADS", "none"),
        ("WSM_REFUSE_WITH", "html"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match=variable):
        settings(None, None, {variable: text})


def test_a_wrong_origin_in_a_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSM_ORIGINS", "https://a, myapp.com")
    with pytest.raises(ConfigError, match=r"WSM_ORIGINS.*'myapp.com' is no origin"):
        WebSockets(auth=JWT).init_app(Flask("app"))
