"""Statistics as text that Prometheus reads: its exposition format, version 0.0.4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .stats import Stats

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX: Final = "ws_middleware_"

#: Samples of one process: labels beside those of the process, and a value.
Samples = list[tuple[dict[str, str], float]]


class _Metric(NamedTuple):
    name: str
    kind: str
    help: str
    read: Callable[[Stats], Samples]


def _one(*keys: str) -> Callable[[Stats], Samples]:
    def read(stats: Stats) -> Samples:
        value: Any = stats
        for key in keys:
            value = value[key]
        return [({}, float(value))]

    return read


def _each(key: str, label: str) -> Callable[[Stats], Samples]:
    return lambda stats: _labelled(stats[key], label)


def _labelled(values: Mapping[str, float], label: str) -> Samples:
    return [({label: name}, float(value)) for name, value in sorted(values.items())]


def _column(key: str, label: str, column: str) -> Callable[[Stats], Samples]:
    def read(stats: Stats) -> Samples:
        return _labelled({name: row[column] for name, row in stats[key].items()}, label)

    return read


def _broker_ready(stats: Stats) -> Samples:
    broker = stats["broker"]
    return [] if broker is None else [({}, float(broker["ready"]))]


def _broker_events(stats: Stats) -> Samples:
    broker = stats["broker"]
    return [] if broker is None else _labelled(broker["counts"], "event")


_METRICS: Final = (
    _Metric("ready", "gauge", "Whether this process is ready for traffic.", _one("ready")),
    _Metric("uptime_seconds", "gauge", "Seconds since the WebSockets were made.", _one("uptime")),
    _Metric("sockets", "gauge", "Open sockets.", _column("routes", "route", "sockets")),
    _Metric("users", "gauge", "Users with an open socket here.", _one("users")),
    _Metric("rooms", "gauge", "Rooms with a socket here.", _one("rooms")),
    _Metric("undecided", "gauge", "Upgrade requests without a verdict.", _one("undecided")),
    _Metric("opened_total", "counter", "Sockets opened.", _column("routes", "route", "opened")),
    _Metric("closed_total", "counter", "Sockets closed, by close code.", _each("closed", "code")),
    _Metric("refused_total", "counter", "Upgrades refused, by code.", _each("refused", "code")),
    _Metric("messages_total", "counter", "Messages, by direction.", _each("messages", "direction")),
    _Metric("broker_ready", "gauge", "Whether the broker is heard.", _broker_ready),
    _Metric("broker_events_total", "counter", "What the bus has seen.", _broker_events),
    _Metric("threads_busy", "gauge", "Threads at work.", _column("threads", "group", "busy")),
    _Metric("threads_waiting", "gauge", "Jobs in line.", _column("threads", "group", "waiting")),
    _Metric("threads_size", "gauge", "Threads there may be.", _column("threads", "group", "size")),
    _Metric(
        "loop_blocked_total", "counter", "Times a handler stopped the loop.", _one("loop_blocked")
    ),
)


def render(processes: Sequence[Stats]) -> str:
    """Return the metrics of processes; each sample says of which, by pid and host."""
    return "".join(line for metric in _METRICS for line in _lines(metric, processes))


def _lines(metric: _Metric, processes: Sequence[Stats]) -> Iterator[str]:
    name = _PREFIX + metric.name
    yield f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n"
    for stats in processes:
        own = {"host": str(stats.get("host")), "pid": str(stats.get("pid"))}
        for labels, value in _read(metric, stats):
            told = ",".join(f'{key}="{_escape(text)}"' for key, text in {**own, **labels}.items())
            yield f"{name}{{{told}}} {value:.17g}\n"


def _read(metric: _Metric, stats: Stats) -> Samples:
    """Return its samples; those of another process may be of another version, and lack some."""
    try:
        return metric.read(stats)
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
