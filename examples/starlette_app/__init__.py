"""A small team chat in Starlette: login, rooms, messages, announcements, and their WebSockets."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ws_middleware import WebSocketMiddleware

from . import auth, chat
from .db import Store
from .pages import is_json, render
from .protection import BodyLimit, SecurityHeaders
from .settings import read_settings

# Those of the Flask example: nothing in them knows what serves them.
STATIC = Path(__file__).parents[1] / "flask_app" / "static"


def create_app(config: dict[str, str] | None = None) -> Starlette:
    """Build the app; `config` overrides the environment (see README.md)."""
    settings = read_settings(config or {})
    store = Store(settings.database)
    live = chat.make_sockets(store)
    app = Starlette(
        routes=[
            *auth.routes,
            *chat.routes,
            Route("/health", health),
            Mount("/static", StaticFiles(directory=STATIC), name="static"),
        ],
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(BodyLimit, size=64 * 1024),
            Middleware(
                SessionMiddleware,
                secret_key=settings.secret_key,
                session_cookie="starlette_demo_session",
                https_only=settings.secure,
            ),
            # Inside the session's: it is the session that says who it is.
            Middleware(WebSocketMiddleware, sockets=live.sockets),
        ],
        exception_handlers={HTTPException: show_error},
    )
    app.state.store, app.state.live = store, live
    return app


async def health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def show_error(request: Request, error: Exception) -> Response:
    """Answer in the caller's language; keep the headers the error brings (such as Allow)."""
    assert isinstance(error, HTTPException)
    if is_json(request):
        body = {"error": error.detail}
        return JSONResponse(body, error.status_code, error.headers)
    answer = await render(request, "error.html", status=error.status_code, error=error)
    answer.headers.update(error.headers or {})
    return answer
