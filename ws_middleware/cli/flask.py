"""`flask ws routes` and `flask ws check`: commands that every Flask app has once we are installed.

An entry point (`flask.commands` in pyproject.toml), and not a command that `init_app` adds: the
mistake that `check` is asked about most is that `init_app` was never called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from flask import current_app
from flask.cli import AppGroup

from ws_middleware.flask import ENDPOINT, EXTENSION
from ws_middleware.sockets import WebSockets

from .findings import find_problems
from .table import table

if TYPE_CHECKING:
    from flask import Flask

    from ws_middleware.config import EffectivePolicy
    from ws_middleware.front import Front
    from ws_middleware.route import Endpoint

__all__ = ["group"]

_HEADINGS = ("path", "name", "served by", "auth", "authorize", "origins", "limits")


@click.group(cls=AppGroup, name="ws")
def group() -> None:
    """Show and check this app's WebSockets (ws_middleware)."""


@group.command("routes")
def routes() -> None:
    """List the WebSocket routes and who may connect to them.

    Views that are rules of the app's own with websocket=True are listed, too; what they let in is
    in their code. A line of sockets.describe() has a route's policy in full.
    """
    app = _app()
    front = _front_of(app)
    rows = [] if front is None else [_row(endpoint) for endpoint in front.endpoints]
    rows.extend(
        (rule.rule, rule.endpoint, "a view of the app", "", "", "", "")
        for rule in app.url_map.iter_rules()
        if rule.websocket and not rule.endpoint.startswith(ENDPOINT)
    )
    if not rows:
        click.echo("This app has no WebSocket routes.")
        return
    for line in table([_HEADINGS, *rows]):
        click.echo(line)


@group.command("check")
def check() -> None:
    """Look for what would keep the sockets of this app from working, or make them unsafe.

    Says what it finds and what to do about it. Exits with 1 if there is an error; a note is
    something to think about. Set the environment of production first: it counts.
    """
    problems = find_problems(_app(), _front_of(_app()))
    for problem in problems:
        click.echo(f"{'error' if problem.is_error else 'note'}: {problem.text}")
    errors = sum(problem.is_error for problem in problems)
    if errors:
        click.echo(f"{errors} error{'s' if errors > 1 else ''} found.")
        raise SystemExit(1)
    click.echo("No errors found.")


def _app() -> Flask:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - documented
    return app


def _front_of(app: Flask) -> Front | None:
    sockets = app.extensions.get(EXTENSION)
    return sockets._fronts.find(app) if isinstance(sockets, WebSockets) else None  # noqa: SLF001 - the same package


# --- the table -----------------------------------------------------------------------------------


def _row(endpoint: Endpoint) -> tuple[str, ...]:
    policy = endpoint.policy
    authorize: Any = policy.authorize
    return (
        endpoint.route.path,
        endpoint.name,
        endpoint.route.shape.value,
        repr(policy.auth),
        "-" if authorize is None else getattr(authorize, "__qualname__", repr(authorize)),
        policy.origins if isinstance(policy.origins, str) else " ".join(policy.origins),
        _limits(policy),
    )


def _limits(policy: EffectivePolicy) -> str:
    limits, heartbeat = policy.limits, policy.heartbeat
    parts = [
        f"{_size(limits.message_size)} a message",
        f"{limits.connections_per_user or 'any number'} a user",
        "no pings" if heartbeat is None else f"ping every {heartbeat.interval:g} s",
    ]
    return ", ".join(parts)


def _size(size: int | None) -> str:
    if size is None:
        return "any size"
    for unit, name in ((1024**2, "MiB"), (1024, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"
