"""What all pages have: who looks at them, templates, and the way to an endpoint that changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from . import csrf
from .db import Store, User

Endpoint = Callable[[Request], Awaitable[Response]]

templates = Jinja2Templates(Path(__file__).parent / "templates")


def get_store(connection: HTTPConnection) -> Store:
    store: Store = connection.app.state.store
    return store


async def current_user(request: Request) -> User | None:
    """The logged-in user, read once per request."""
    if not hasattr(request.state, "user"):
        user_id = request.session.get("user_id")
        request.state.user = user_id and await run_in_threadpool(get_store(request).user, user_id)
    user: User | None = request.state.user
    return user


async def require_user(request: Request) -> User:
    """The logged-in user; call it in endpoints behind `login_required`."""
    user = await current_user(request)
    assert user is not None
    return user


def is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("application/json")


async def render(request: Request, name: str, *, status: int = 200, **context: object) -> Response:
    """Answer with a page; what templates/layout.html needs is added."""
    context["user"] = await current_user(request)
    context["announcement"] = await run_in_threadpool(get_store(request).latest_announcement)
    context["csrf_token"] = csrf.token(request)
    return templates.TemplateResponse(request, name, context, status)


def redirect(request: Request, name: str, **params: object) -> Response:
    return RedirectResponse(request.url_for(name, **params).path, 302)


def login_required(endpoint: Endpoint) -> Endpoint:
    """Send people to the login page and answer scripts with 401."""

    @wraps(endpoint)
    async def guarded(request: Request) -> Response:
        if await current_user(request) is not None:
            return await endpoint(request)
        if is_json(request):
            raise HTTPException(401, "Log in first.")
        return redirect(request, "login")

    return guarded


def post(path: str, endpoint: Endpoint) -> Route:
    """The route of an endpoint that changes something: none is without the CSRF check."""

    @wraps(endpoint)
    async def checked(request: Request) -> Response:
        await csrf.check(request)
        return await endpoint(request)

    return Route(path, checked, methods=["POST"])
