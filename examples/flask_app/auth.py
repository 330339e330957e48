"""Who is asking: login and logout."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from flask import (
    Blueprint,
    abort,
    current_app,
    g,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from werkzeug.security import check_password_hash, generate_password_hash

from .db import User, get_store

P = ParamSpec("P")
blueprint = Blueprint("auth", __name__)

# Checked for unknown names, so that the time taken does not tell which names exist.
_DUMMY_HASH = generate_password_hash(secrets.token_hex())


def current_user() -> User | None:
    """The logged-in user, read once per request."""
    if "user" not in g:
        user_id = session.get("user_id")
        g.user = get_store().user(user_id) if user_id else None
    user: User | None = g.user
    return user


def require_user() -> User:
    """The logged-in user; call it in views behind `login_required`."""
    return current_user() or abort(401, "Log in first.")


def login_required(view: Callable[P, ResponseReturnValue]) -> Callable[P, ResponseReturnValue]:
    """Send people to the login page and answer scripts with 401."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
        if current_user() is not None:
            return view(*args, **kwargs)
        if request.is_json:
            abort(401, "Log in first.")
        return redirect(url_for("auth.login_form"))

    return guarded


def authenticate(name: str, password: str) -> User | None:
    found = get_store().credentials(name)
    user, password_hash = found or (None, _DUMMY_HASH)
    return user if check_password_hash(password_hash, password) else None


@blueprint.get("/login")
def login_form() -> ResponseReturnValue:
    if current_user() is not None:
        return redirect(url_for("chat.index"))
    return render_template("login.html")


@blueprint.post("/login")
def login() -> ResponseReturnValue:
    user = authenticate(request.form.get("username", ""), request.form.get("password", ""))
    if user is None:
        return render_template("login.html", problem="Wrong user name or password."), 401
    session.clear()  # nothing from before the login survives it, the CSRF token included
    session["user_id"] = user.id
    return redirect(url_for("chat.index"))


@blueprint.post("/logout")
def logout() -> ResponseReturnValue:
    if user := current_user():
        current_app.extensions["websockets"].user(user.id).close(4401, "logged_out")
    session.clear()
    return redirect(url_for("auth.login_form"))
