from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from ws_middleware.config import (
    DEFAULT_HEARTBEAT,
    DEFAULT_LIMITS,
    INHERIT,
    EffectivePolicy,
    Heartbeat,
    Limits,
    ServerLimits,
)
from ws_middleware.errors import ConfigError

if TYPE_CHECKING:
    from ws_middleware.types import UpgradeRequest

Options = type[Limits] | type[ServerLimits] | type[Heartbeat]

COUNTS_OR_NONE = [
    (Limits, "message_size"),
    (Limits, "fragments"),
    (Limits, "rooms_per_socket"),
    (Limits, "connections_per_user"),
    (ServerLimits, "connections"),
    (ServerLimits, "undecided"),
]
COUNTS = [
    (Limits, "inbound_messages"),
    (Limits, "inbound_bytes"),
    (Limits, "outbound_bytes"),
    (Limits, "outbound_messages"),
    (ServerLimits, "head_size"),
    (ServerLimits, "head_fields"),
]
BEATS = [(Heartbeat, "app_ping"), (Heartbeat, "app_pong")]
SECONDS = [
    (Limits, "write_timeout"),
    (Limits, "close_timeout"),
    (ServerLimits, "head_timeout"),
    (ServerLimits, "upgrade_timeout"),
    (Heartbeat, "interval"),
    (Heartbeat, "timeout"),
]


def made(options: Options, name: str, value: object) -> object:
    keywords: dict[str, Any] = {name: value}
    return getattr(options(**keywords), name)


def test_every_field_is_in_a_table_of_this_test() -> None:
    tabled = {(options, name) for options, name in [*COUNTS_OR_NONE, *COUNTS, *SECONDS, *BEATS]}
    assert tabled == {
        (options, field.name)
        for options in (Limits, ServerLimits, Heartbeat)
        for field in dataclasses.fields(options)
    }


def test_the_defaults_are_those_that_are_documented() -> None:
    assert dataclasses.asdict(DEFAULT_LIMITS) == {
        "message_size": 1_048_576,
        "fragments": 1024,
        "inbound_messages": 16,
        "inbound_bytes": 2_097_152,
        "outbound_bytes": 1_048_576,
        "outbound_messages": 10_000,
        "write_timeout": 10.0,
        "close_timeout": 5.0,
        "rooms_per_socket": 100,
        "connections_per_user": 20,
    }
    assert dataclasses.asdict(ServerLimits()) == {
        "head_size": 16_384,
        "head_fields": 100,
        "head_timeout": 5.0,
        "upgrade_timeout": 10.0,
        "connections": 10_000,
        "undecided": 1_000,
    }
    assert dataclasses.asdict(DEFAULT_HEARTBEAT) == {
        "interval": 30.0,
        "timeout": 20.0,
        "app_ping": None,
        "app_pong": None,
    }


@pytest.mark.parametrize(("options", "name"), [*COUNTS_OR_NONE, *COUNTS])
@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, True, False, "5", float("nan"), INHERIT.name])
def test_a_count_is_a_whole_number_above_0(options: Options, name: str, value: object) -> None:
    assert made(options, name, 1) == 1
    with pytest.raises(ConfigError) as caught:
        made(options, name, value)
    none = ", or None for no limit" if (options, name) in COUNTS_OR_NONE else ""
    assert str(caught.value) == (
        f"{options.__name__}({name}=...) takes a whole number above 0{none}; got {value!r}"
    )


@pytest.mark.parametrize(("options", "name"), SECONDS)
@pytest.mark.parametrize(
    "value", [0, 0.0, -0.1, True, "5", None, float("nan"), float("inf"), -float("inf")]
)
def test_a_time_is_a_number_of_seconds_above_0(options: Options, name: str, value: object) -> None:
    assert made(options, name, 0.1) == 0.1
    assert made(options, name, 3) == 3
    with pytest.raises(ConfigError) as caught:
        made(options, name, value)
    assert str(caught.value) == (
        f"{options.__name__}({name}=...) takes a number of seconds above 0; got {value!r}"
    )


@pytest.mark.parametrize(("options", "name"), BEATS)
@pytest.mark.parametrize(
    "value", ["", b"", "x" * 1025, "\u00e9" * 513, "\ud800", 5, True, bytearray(b"x"), ["x"]]
)
def test_a_message_of_a_heartbeat_is_a_short_text_or_bytes(
    options: Options, name: str, value: object
) -> None:
    for fits in ("x" * 1024, "\u00e9" * 512, b"x", "0", None):
        assert made(options, name, fits) == fits
    with pytest.raises(ConfigError) as caught:
        made(options, name, value)
    assert str(caught.value) == (
        f"Heartbeat({name}=...) takes a text or bytes, of 1 to 1024 bytes, or None for none; got "
        f"{value!r:.80}"
    )


def test_an_answer_to_no_ping_is_wrong_as_soon_as_that_is_known() -> None:
    assert Heartbeat(app_pong="pong").inherit(Heartbeat(app_ping="ping")).app_ping == "ping"
    with pytest.raises(ConfigError, match=r"there is none; give one, or app_pong=None, too$"):
        Heartbeat(app_ping=None, app_pong="pong")
    with pytest.raises(ConfigError, match="answers an app_ping, and there is none"):
        Heartbeat(app_pong="pong").inherit(DEFAULT_HEARTBEAT)


@pytest.mark.parametrize(("options", "name"), COUNTS_OR_NONE)
def test_none_says_no_limit_aloud(options: Options, name: str) -> None:
    assert made(options, name, None) is None


@pytest.mark.parametrize(("options", "name"), COUNTS)
def test_some_bounds_cannot_be_switched_off(options: Options, name: str) -> None:
    with pytest.raises(ConfigError, match=r"takes a whole number above 0; got None$"):
        made(options, name, None)


@pytest.mark.parametrize(
    ("options", "name"),
    [each for each in [*COUNTS_OR_NONE, *COUNTS, *SECONDS] if each[0] is ServerLimits],
)
def test_server_limits_have_nothing_to_inherit_from(options: Options, name: str) -> None:
    with pytest.raises(ConfigError):
        made(options, name, INHERIT)


@pytest.mark.parametrize("options", [Limits, Heartbeat])
def test_what_is_not_given_is_inherited(options: type[Limits | Heartbeat]) -> None:
    given = options()
    assert {getattr(given, field.name) for field in dataclasses.fields(given)} == {INHERIT}


def test_inheriting_keeps_what_was_given_none_included() -> None:
    base = Limits(message_size=10, fragments=5, close_timeout=2.0)
    limits = Limits(message_size=None, write_timeout=1.0).inherit(base)
    assert limits == Limits(message_size=None, fragments=5, write_timeout=1.0, close_timeout=2.0)
    assert limits.rooms_per_socket is INHERIT
    assert Limits().inherit(DEFAULT_LIMITS) == DEFAULT_LIMITS
    assert Heartbeat(interval=5).inherit(DEFAULT_HEARTBEAT) == Heartbeat(5, 20.0, None, None)


def test_inherit_prints_as_what_it_is() -> None:
    assert repr(INHERIT) == "INHERIT"
    assert repr(Heartbeat(5, app_ping="?")) == (
        "Heartbeat(interval=5, timeout=INHERIT, app_ping='?', app_pong=INHERIT)"
    )


@pytest.mark.parametrize("given", [Limits(), ServerLimits(), Heartbeat()])
def test_options_are_frozen(given: Limits | ServerLimits | Heartbeat) -> None:
    name = dataclasses.fields(given)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(given, name, 1)


class Asked:
    def __call__(self, request: UpgradeRequest) -> str:
        return "ann"


class Unambient(Asked):
    ambient = False


class Ambient(Asked):
    ambient = True


@pytest.mark.parametrize(
    ("auth", "ambient"),
    [
        pytest.param(Asked(), True, id="said-nothing"),
        pytest.param(Ambient(), True, id="said-yes"),
        pytest.param(Unambient(), False, id="said-no"),
        pytest.param(lambda request: "ann", True, id="a-function"),
    ],
)
def test_an_authenticator_is_ambient_unless_it_says_no(auth: Any, ambient: bool) -> None:  # noqa: FBT001 - a row
    policy = EffectivePolicy(auth, None, "same-origin", None, DEFAULT_LIMITS, "http")
    assert policy.is_ambient is ambient
