"""WebSockets for the web app you already have.

Start at `WebSockets`; see README.md and docs/.
"""

from __future__ import annotations

from .asgi import WebSocketMiddleware
from .blocking import BlockingWebSocket
from .config import INHERIT, Heartbeat, Limits, Policy, ServerLimits
from .errors import (
    BadMessage,
    BrokerRequired,
    BrokerUnavailable,
    ConfigError,
    ConnectionClosed,
    MessageTooBig,
    Refused,
    TooManyRooms,
    WebSocketError,
)
from .flask import FlaskAuth
from .gate.auth.anonymous import Anonymous
from .gate.auth.jwt import JWTAuth
from .gate.auth.scope import ScopeAuth
from .hub.audience import Audience
from .hub.hub import Sent
from .publisher import Publisher
from .receipt import Receipt
from .route import Guard, Route
from .sockets import WebSockets
from .types import Authenticator, Granted, Principal, UpgradeRequest
from .websocket import WebSocket

__version__ = "0.1.0"

__all__ = [
    "INHERIT",
    "Anonymous",
    "Audience",
    "Authenticator",
    "BadMessage",
    "BlockingWebSocket",
    "BrokerRequired",
    "BrokerUnavailable",
    "ConfigError",
    "ConnectionClosed",
    "FlaskAuth",
    "Granted",
    "Guard",
    "Heartbeat",
    "JWTAuth",
    "Limits",
    "MessageTooBig",
    "Policy",
    "Principal",
    "Publisher",
    "Receipt",
    "Refused",
    "Route",
    "ScopeAuth",
    "Sent",
    "ServerLimits",
    "TooManyRooms",
    "UpgradeRequest",
    "WebSocket",
    "WebSocketError",
    "WebSocketMiddleware",
    "WebSockets",
    "__version__",
]
