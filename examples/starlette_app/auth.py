"""Who is asking: login and logout."""

from __future__ import annotations

import secrets

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .db import Store, User, hash_password, is_password
from .pages import current_user, get_store, post, redirect, render

# Checked for unknown names, so that the time taken does not tell which names exist.
_DUMMY_HASH = hash_password(secrets.token_hex())


def authenticate(store: Store, name: str, password: str) -> User | None:
    found = store.credentials(name)
    user, password_hash = found or (None, _DUMMY_HASH)
    return user if is_password(password, password_hash) else None


async def login_form(request: Request) -> Response:
    if await current_user(request) is not None:
        return redirect(request, "index")
    return await render(request, "login.html")


async def login(request: Request) -> Response:
    form = await request.form()
    name, password = str(form.get("username", "")), str(form.get("password", ""))
    user = await run_in_threadpool(authenticate, get_store(request), name, password)
    if user is None:
        problem = "Wrong user name or password."
        return await render(request, "login.html", status=401, problem=problem)
    request.session.clear()  # nothing from before the login survives it, the CSRF token included
    request.session["user_id"] = user.id
    return redirect(request, "index")


async def logout(request: Request) -> Response:
    if user := await current_user(request):
        request.app.state.live.sockets.user(user.id).close(4401, "logged_out")  # every tab
    request.session.clear()
    return redirect(request, "login")


routes = [
    Route("/login", login_form, name="login"),
    post("/login", login),
    post("/logout", logout),
]
