"""What a server lets us do with the frames of a connection, where it does.

`scope["extensions"]["ws_middleware.control"]` is an object with `ping() -> Future[float]`,
`abort()`, `set_heartbeat(heartbeat)`, `buffered()` and `reading_paused()`: `ws_middleware.uvicorn`
puts one there, and tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, MutableMapping

    from ws_middleware.config import Heartbeat
    from ws_middleware.receipt import Receipt

__all__ = ["CONTROL", "control_of", "gives_control", "ping", "set_heartbeat"]

CONTROL: Final = "ws_middleware.control"

_NO_PING: Final = (
    "this server owns the frames, so no ping can be sent: uvicorn can, with "
    "--ws ws_middleware.uvicorn:WebSocketProtocol"
)


def control_of(scope: MutableMapping[str, Any]) -> Any:  # noqa: ANN401 - the server's, or a test's
    """Return what controls the connection's frames, where the server gives it to us."""
    return (scope.get("extensions") or {}).get(CONTROL)


def gives_control(protocol: object) -> bool:
    """Whether a server's class for WebSockets is one that puts such an object into the scope."""
    return getattr(protocol, "gives_control", False) is True


def ping(
    scope: MutableMapping[str, Any],
    receipt: Receipt[float],
    ended: Callable[[], Exception],
    note: Callable[[float], None],
) -> None:
    """Send a ping whose pong resolves `receipt`, if the server lets us.

    `note` hears how many seconds it took; `ended` says why there will be no pong.
    """
    control = control_of(scope)
    if control is None:
        receipt.fail(RuntimeError(_NO_PING))
        return

    def settle(done: asyncio.Future[float]) -> None:
        if done.cancelled() or done.exception() is not None:
            receipt.fail(ended())
        else:
            note(done.result())
            receipt.resolve(done.result())

    control.ping().add_done_callback(settle)


def set_heartbeat(scope: MutableMapping[str, Any], heartbeat: Heartbeat | None) -> None:
    """Have the server ping by this, not by options of its own, if it lets us."""
    control = control_of(scope)
    if hasattr(control, "set_heartbeat"):  # one of a test, or of an older kind, may not have it
        control.set_heartbeat(heartbeat)
