"""What a session reports besides messages, which are a bare `str` or `bytes`.

A complete head is reported as its `UpgradeRequest`, so these are the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ws_middleware.types import UpgradeRequest

if TYPE_CHECKING:
    from ws_middleware.types import Refusal

__all__ = ["Closed", "Event", "PongReceived", "RefusedBySession"]


@dataclass(frozen=True, slots=True)
class RefusedBySession:
    """The session answered by itself: the head was no head, or a deadline passed."""

    refusal: Refusal
    #: What was asked for, where the head was whole.
    request: UpgradeRequest | None = None


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The peer answered a ping of ours, `latency` seconds after it was made."""

    payload: bytes
    latency: float


@dataclass(frozen=True, slots=True)
class Closed:
    """The WebSocket has left OPEN: no message comes or goes after this one event.

    `code` and `reason` are those of the frame that did it, ours or the peer's (RFC 6455 section
    7.1.5 and 7.1.6): 1005 if the peer's had no code, 1006 if there was no frame. `why` is for the
    log: a stable word, then what is known.
    """

    code: int
    reason: str
    by: Literal["us", "peer"]
    why: str


Event = str | bytes | UpgradeRequest | RefusedBySession | PongReceived | Closed
