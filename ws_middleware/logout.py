"""Who logs out loses the sockets that the login opened."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, cast

from .errors import BrokerRequired
from .flask import FlaskAuth
from .hub.registry import Address
from .names import is_name

if TYPE_CHECKING:
    from .front import Front
    from .hub.hub import Hub
    from .websocket import WebSocket

__all__ = ["Logout"]

_log: Final = logging.getLogger("ws_middleware.hub")


class Logout:
    """Closes a user's sockets with 4401: every tab, in every browser, of every app of this hub.

    Those of routes with `FlaskAuth` and of the app's own views; a socket that a token opened is as
    good as its token.
    """

    def __init__(self, hub: Hub, front: Front) -> None:
        self._hub = hub
        self._front = front
        self._warned = False

    def __call__(self, user_id: object) -> None:
        """Close them. In whatever thread; nothing is waited for, and nothing is raised."""
        user = "" if user_id is None else str(user_id)
        if not is_name(user):  # then no socket has it
            return
        endpoints = self._front.endpoints
        by_login = {each.name for each in endpoints if isinstance(each.policy.auth, FlaskAuth)}
        by_token = {each.name for each in endpoints} - by_login
        # Where all come by login the routes need not be named, and a view's name is its own affair.
        routes = by_login if by_token else [None]
        code, reason = 4401, "logged_out"
        try:
            for route in routes:
                self._hub.close(Address("user", user, route), code, reason, 0.0)
        except BrokerRequired as error:
            self._warn(error)
        for member in self._hub.local(Address("user", user)):
            if member.route_name not in by_token:
                cast("WebSocket", member).close(code, reason)

    def _warn(self, error: BrokerRequired) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "a logout closed the sockets of this worker only, those in others stay open: %s",
                error,
            )
