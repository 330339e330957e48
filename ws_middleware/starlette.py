"""For endpoints of Starlette and FastAPI: who a guarded WebSocket belongs to.

@app.websocket("/ws/chat")
async def chat(ws: WebSocket, user: Annotated[Principal, Depends(principal)]) -> None: ...
"""

from __future__ import annotations

from typing import Final

from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI reads the annotation

from .asgi import PRINCIPAL
from .types import Principal

__all__ = ["principal"]

_NOT_GUARDED: Final = (
    "nobody knows who this connection belongs to: principal is for WebSockets of an app that is "
    "wrapped: app.add_middleware(WebSocketMiddleware, sockets=sockets)"
)


def principal(connection: HTTPConnection) -> Principal:
    """Return who was let in: of a `WebSocket`, or as FastAPI's `Depends(principal)`.

    Behind `Anonymous()` it is the anonymous principal, whose id is the empty text.

    Raises:
        RuntimeError: nobody was asked: this is no WebSocket, or the app is not wrapped.
    """
    found = (connection.scope.get("state") or {}).get(PRINCIPAL)
    if found is None:
        raise RuntimeError(_NOT_GUARDED)
    assert isinstance(found, Principal)
    return found
