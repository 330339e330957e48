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


def connect(engine: Engine, runtime: Runtime) -> None:
    """Offer this loop as the home of the bus, if the settings name a broker that others hear.

    In the thread of a loop that may not have begun.
    """
    if engine.settings.is_remote:
        engine.hub.uplink.offer(runtime, partial(_make, engine, runtime))


async def disconnect(engine: Engine, runtime: Runtime) -> None:
    """Close the bus, if it lives here, when the sockets have been closed."""
    bus = engine.hub.uplink.withdraw(runtime)
    if bus is not None:
        await bus.close()


def _make(engine: Engine, runtime: Runtime) -> Bus:
    from ws_middleware.hub.brokers.redis import RedisBroker  # noqa: PLC0415 - the extra "redis"

    hub, settings = engine.hub, engine.settings
    return Bus(
        RedisBroker(settings.broker),
        runtime,
        prefix=settings.prefix,
        node=hub.node,
        deliver=hub.deliver,
        on_gap=partial(_tell_of_gap, engine, runtime),
        respond=hub.respond,
        wall=engine.clock.wall,
        largest=lambda: max(hub.outbound_bytes.values(), default=_LARGEST),
        secret=settings.broker_secret,
    )


def _tell_of_gap(engine: Engine, runtime: Runtime, since: float, until: float) -> None:
    """Call the app's `on_gap` handlers."""
    engine.hub.close_for_gap()
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
