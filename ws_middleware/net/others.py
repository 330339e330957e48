"""The way to the sockets of other processes: one bus for a process, on one of its loops."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from ws_middleware.callables import is_async, name_of
from ws_middleware.hub.bus import Bus

if TYPE_CHECKING:
    from collections.abc import Callable

    from .engine import Engine
    from .runtime import Runtime

__all__ = ["connect", "disconnect"]

_log: Final = logging.getLogger("ws_middleware.bus")

#: Bytes that a message from elsewhere may have where no route says it.
_LARGEST: Final = 1024**2


def connect(engine: Engine, runtime: Runtime) -> Bus | None:
    """Open the bus, if the settings name a broker that others hear and there is none yet.

    In the thread of a loop that has not begun.
    """
    hub, settings = engine.hub, engine.settings
    if hub.bus is not None or not settings.is_remote:
        return None
    from ws_middleware.hub.brokers.redis import RedisBroker  # noqa: PLC0415 - the extra "redis"

    hub.bus = bus = Bus(
        RedisBroker(settings.broker),
        runtime,
        prefix=settings.prefix,
        node=hub.node,
        deliver=hub.deliver,
        on_gap=partial(_tell_of_gap, engine, runtime),
        wall=engine.clock.wall,
        largest=lambda: max(hub.outbound_bytes.values(), default=_LARGEST),
        secret=settings.broker_secret,
    )
    runtime.loop.call_soon(bus.open)
    return bus


async def disconnect(engine: Engine, bus: Bus) -> None:
    """Close it, when the sockets have been closed."""
    if engine.hub.bus is bus:
        engine.hub.bus = None
    await bus.close()


def _tell_of_gap(engine: Engine, runtime: Runtime, since: float, until: float) -> None:
    """Call the app's `on_gap` handlers."""
    times = datetime.fromtimestamp(since, UTC), datetime.fromtimestamp(until, UTC)
    for handler in engine.hub.gap_handlers:
        if is_async(handler):
            runtime.spawn(_await(engine, handler, *times))
        else:
            engine.threads["events"].submit(partial(_call, engine, handler, *times))


def _call(engine: Engine, handler: Callable[..., object], since: datetime, until: datetime) -> None:
    try:
        with engine.context():
            handler(since, until)
    except Exception:
        _log.exception("on_gap handler %s failed", name_of(handler))


async def _await(
    engine: Engine, handler: Callable[..., object], since: datetime, until: datetime
) -> None:
    try:
        with engine.context():
            await handler(since, until)  # type: ignore[misc]
    except Exception:
        _log.exception("on_gap handler %s failed", name_of(handler))
