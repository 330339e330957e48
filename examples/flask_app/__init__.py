"""A small team chat in plain Flask: login, rooms, messages, announcements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Flask, jsonify, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from . import auth, chat, csrf
from .db import Store, get_store
from .settings import load_key

# Everything comes from this server; inline scripts and framing are refused.
CONTENT_SECURITY_POLICY = [
    "default-src 'self'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
    "object-src 'none'",
    "connect-src 'self'",  # WebSockets of this origin are 'self', too
]


def create_app(config: dict[str, Any] | None = None) -> Flask:
    """Build the app; `config` overrides the defaults (see README.md)."""
    app = Flask(__name__, instance_path=_instance_path(config or {}))
    app.config.from_mapping(
        DATABASE=str(Path(app.instance_path) / "demo.sqlite3"),
        MAX_CONTENT_LENGTH=64 * 1024,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_NAME="flask_demo_session",
        SESSION_COOKIE_SAMESITE="Lax",
    )
    app.config.from_prefixed_env()
    app.config.from_mapping(config or {})
    app.config["SECRET_KEY"] = load_key(app, "SECRET_KEY")

    app.extensions["store"] = Store(app.config["DATABASE"])
    app.before_request(csrf.check)
    chat.add_sockets(app)
    app.after_request(add_security_headers)
    app.context_processor(layout_values)
    app.register_error_handler(HTTPException, show_error)
    app.register_blueprint(auth.blueprint)
    app.register_blueprint(chat.blueprint)
    app.add_url_rule("/health", view_func=health)
    return app


def _instance_path(config: dict[str, Any]) -> str:
    """Beside this package, so that running the demo never litters the folder above it."""
    default = Path(__file__).parent / "instance"
    return str(Path(config.get("INSTANCE_PATH", default)).resolve())


def health() -> Response:
    return jsonify(status="ok")


def layout_values() -> dict[str, Any]:
    """What templates/layout.html needs on every page."""
    return {
        "announcement": get_store().latest_announcement(),
        "csrf_token": csrf.token,
        "user": auth.current_user(),
    }


def add_security_headers(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = "; ".join(CONTENT_SECURITY_POLICY)
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def show_error(error: HTTPException) -> Response:
    """Answer in the caller's language; keep the headers the error brings (such as Allow)."""
    response = Response(status=error.code, headers=error.get_headers())
    if request.is_json:
        response.set_data(jsonify(error=error.description).get_data())
        response.content_type = "application/json"
    else:
        response.set_data(render_template("error.html", error=error))
    return response
