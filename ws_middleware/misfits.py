"""What was set, by whom, and what of it the server behind a door does not keep: in sentences.

Only what somebody has said counts: a default that a server does not know is nobody's wish.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Protocol

from .config import INHERIT, Heartbeat, Limits, Policy, ServerLimits
from .door_table import TABLE
from .doors import Door, Who

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .config import EffectivePolicy
    from .doors import Cell, Server

__all__ = ["Given", "find_complaints", "find_deaf_spot", "find_given", "find_misfits"]

#: Rows that are no field of a group: settings of an app, and words of a policy.
_OF_APP: Final = [
    name for name in TABLE if name.isidentifier() and name not in Policy.__annotations__
]
_OF_POLICY: Final = [name for name in TABLE if name in Policy.__annotations__]

#: How many places one sentence names.
_PLACES: Final = 3

_CODE: Final = "WebSockets()"
_OWN_PORT: Final = "Or serve sockets on a port of our own, sockets.listen(), where it holds"
_GUNICORN: Final = "gunicorn"
#: What guards what no guard is named for, which an app need not have.
_REST: Final = "rest"


class Settings(Protocol):
    """The layers of an app's settings."""

    code: dict[str, Any]
    host: dict[str, Any]
    environ: dict[str, Any]


class Route(Protocol):
    """A route, or a guard."""

    path: str
    given: Policy

    @property
    def kind(self) -> str:
        """What it is called in messages."""


class Endpoint(Protocol):
    """A route or a guard, with its policy put together."""

    @property
    def route(self) -> Route:
        """The route, or the guard."""

    @property
    def policy(self) -> EffectivePolicy:
        """Its policy."""


@dataclass(frozen=True)
class Given:
    """A setting that somebody has given a value: a row of `TABLE`, and the place of it."""

    setting: str
    value: Any
    place: str


@dataclass(frozen=True)
class Misfit:
    """A setting that does not hold: the value that would have counted, and all its places."""

    setting: str
    value: Any
    places: tuple[str, ...]


def find_complaints(
    server: Server, settings: Settings, endpoints: Sequence[Endpoint], where: str
) -> list[str]:
    """Return a sentence for each thing that is to be known of the server behind a door.

    Args:
        server: what is known of it.
        settings: the app's.
        endpoints: its routes and guards, and what guards all the rest.
        where: what the host's configuration is called.
    """
    found = find_misfits(server, find_given(settings, endpoints, where))
    deaf = find_deaf_spot(server, endpoints)
    return found if deaf is None else [deaf, *found]


# --- what was given ------------------------------------------------------------------------------


def find_given(
    settings: Settings, endpoints: Iterable[Endpoint], where: str = ""
) -> Iterator[Given]:
    """Yield what was given, each with its value and where.

    Args:
        settings: the app's.
        endpoints: its routes and guards, whose own words count before the app's.
        where: what the host's configuration is called.
    """
    layers = {_CODE: settings.code, where: settings.host, "": settings.environ}
    yield from _of_app(layers)
    for each in endpoints:
        own: dict[str, Any] = dict(each.route.given)
        yield from _of_policy(each.policy, {f"{each.route.kind} {each.route.path}": own, **layers})


def _of_app(layers: Mapping[str, Mapping[str, Any]]) -> Iterator[Given]:
    for name in _OF_APP:
        if name == "drain_over" and _first(layers, "drain_on_sigterm"):
            continue  # it holds wherever that does
        for place, layer in layers.items():
            if layer.get(name) is not None:
                yield Given(name, layer[name], place or f"WSM_{name.upper()}")
                break
    for place, layer in layers.items():
        limits = layer.get("server_limits")
        if limits is not None:  # as a whole, so what is like the default may not be meant
            for name, value in _different(limits, ServerLimits()):
                variable = f"WSM_SERVER_LIMITS_{name.upper()}"
                yield Given(f"ServerLimits.{name}", value, place or variable)
            break


def _first(layers: Mapping[str, Mapping[str, Any]], name: str) -> Any:  # noqa: ANN401
    return next((layer[name] for layer in layers.values() if name in layer), None)


def _different(limits: ServerLimits, default: ServerLimits) -> Iterator[tuple[str, Any]]:
    for field in fields(limits):
        value = getattr(limits, field.name)
        if value != getattr(default, field.name):
            yield field.name, value


def _of_policy(policy: EffectivePolicy, layers: Mapping[str, Mapping[str, Any]]) -> Iterator[Given]:
    for name in _OF_POLICY:
        for place, layer in layers.items():
            if name in layer:
                yield Given(name, layer[name], place or f"WSM_{name.upper()}")
                break
    yield from _of_group(policy.limits, "limits", layers)
    if policy.heartbeat is None:
        place = next((each for each, layer in layers.items() if "heartbeat" in layer), "")
        yield Given("heartbeat=None", None, place)
    elif not _pings_by_message(policy):  # which are ours, whoever's the frames are
        yield from _of_group(policy.heartbeat, "heartbeat", layers)


def _of_group(
    effective: Limits | Heartbeat, group: str, layers: Mapping[str, Mapping[str, Any]]
) -> Iterator[Given]:
    kind = type(effective)
    for field in fields(kind):
        name = field.name
        for place, layer in layers.items():
            value = getattr(layer.get(group) or kind(), name)
            if value is not INHERIT:
                # A guard has some of the app's only where it names them itself.
                if value == getattr(effective, name):
                    variable = f"WSM_{group.upper()}_{name.upper()}"
                    yield Given(f"{kind.__name__}.{name}", value, place or variable)
                break


def _pings_by_message(policy: EffectivePolicy) -> bool:
    return policy.heartbeat is not None and policy.heartbeat.app_ping is not None


# --- what does not hold --------------------------------------------------------------------------


def find_misfits(server: Server, given: Iterable[Given]) -> list[str]:
    """Return a sentence for each setting that was given and does not hold behind this door."""
    misfits = [each for each in given if not _cell(server, each.setting).keeps(each.value, server)]
    joint: dict[tuple[str, str], list[Misfit]] = {}
    for setting in TABLE:
        those = [each for each in misfits if each.setting == setting]
        if those:
            group = setting.partition(".")[0], _why(server, setting)
            joint.setdefault(group, []).append(_pick(setting, those))
    return [_sentence(server, those) for those in joint.values()]


def _cell(server: Server, setting: str) -> Cell:
    return TABLE[setting].cells[server.door]


def _why(server: Server, setting: str) -> str:
    return _cell(server, setting).why or TABLE[setting].why


def _pick(setting: str, those: Sequence[Given]) -> Misfit:
    """Return the one value that a server can have, and where it was given."""
    value = TABLE[setting].pick([each.value for each in those])
    return Misfit(setting, value, tuple(each.place for each in those if each.value == value))


def _sentence(server: Server, those: Sequence[Misfit]) -> str:
    """Say of settings that belong together what was given, who keeps it, and what to do."""
    why = _why(server, those[0].setting)
    told = f"{_names(those)} ({_places(those)}) does not hold on {server.name}: {why}"
    remedies = dict.fromkeys(_cell(server, each.setting).remedy for each in those)
    if server.door is Door.WSGI:
        remedies[_OWN_PORT] = None
    return ". ".join([told, *_options(server, those), *filter(None, remedies)])


def _places(those: Sequence[Misfit]) -> str:
    places = list(dict.fromkeys(place for each in those for place in each.places))
    rest = len(places) - _PLACES
    named = ", ".join(places[:_PLACES])
    return f"{named} and {rest} more" if rest > 0 else named


def _names(those: Sequence[Misfit]) -> str:
    group, dot, _ = those[0].setting.partition(".")
    if not dot:
        return those[0].setting if "=" in group else f"{group}={those[0].value!r}"
    return f"{group}({', '.join(f'{_field(each)}={each.value!r}' for each in those)})"


def _field(given: Misfit) -> str:
    return given.setting.rpartition(".")[2]


def _options(server: Server, those: Sequence[Misfit]) -> Iterator[str]:
    """Say what to set there instead, and what there is nothing for."""
    if server.door is Door.WSGI and server.name != _GUNICORN:  # whose options the table has
        return
    flags: list[str] = []
    names: list[str] = []
    others: list[str] = []
    for each in those:
        cell = _cell(server, each.setting)
        value = cell.write(each.value)
        if cell.option and not value:
            others.append(cell.option)
        elif cell.option.startswith("-"):
            flags.append(f"{cell.option} {value}")
        elif cell.option:
            names.append(f"{cell.option} = {value}")
    if flags:
        yield f"Start it with {' '.join(flags)}"
    if names:
        yield f"Say {', '.join(names)} in its configuration"
    if others:
        yield f"See {' and '.join(others)}"
    cells = {_field(each): _cell(server, each.setting) for each in those}
    missing = [name for name, cell in cells.items() if not cell.option and not cell.remedy]
    if missing:
        yield f"It has no option for {' and '.join(missing)}"


# --- dead peers ----------------------------------------------------------------------------------


def find_deaf_spot(server: Server, endpoints: Sequence[Endpoint]) -> str | None:
    """Return a sentence if the server lets clients vanish unseen, and nothing of ours finds them.

    A ping of the app's own (`Heartbeat(app_ping=...)`) on every route and guard does.
    """
    if _cell(server, "Heartbeat.timeout").who is not Who.NOBODYS:
        return None
    named = [each for each in endpoints if each.route.kind != _REST] or endpoints
    if named and all(_pings_by_message(each.policy) for each in named):
        return None
    option = _cell(server, "Heartbeat.interval").option
    half = f" ({option} pings, and has no deadline for the answer)" if option else ""
    return (
        f"{server.name} does not find clients that vanish while they are idle{half}: their sockets "
        "stay and count until a send to them fails. Serve with uvicorn --ws "
        "ws_middleware.uvicorn:WebSocketProtocol, which finds them, or have clients answer a ping "
        "of the app's own: Heartbeat(app_ping=..., app_pong=...)"
    )
