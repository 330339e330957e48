"""What `flask ws check` finds: only what is certain is an error, and each says what to do."""

from __future__ import annotations

import importlib.util
import os
import shlex
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from ws_middleware.checks import MEMORY
from ws_middleware.errors import ConfigError
from ws_middleware.flask import NO_FLASK_LOGIN, NO_MANAGER, FlaskAuth
from ws_middleware.variables import unknown_variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flask import Flask

    from ws_middleware.front import Front
    from ws_middleware.route import Endpoint

__all__ = ["Problem", "find_problems", "find_workers"]

_NEVER: Final = (
    "init_app() was never called for this app, so it serves no sockets. Where the app is made, "
    "say: sockets = WebSockets(auth=...); sockets.init_app(app)"
)

#: Names of hosts that a page has in development only.
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Problem(NamedTuple):
    """Something that was found, with its remedy."""

    is_error: bool
    text: str


def find_problems(app: Flask, front: Front | None) -> list[Problem]:
    """Return what is wrong with the sockets of an app, in this environment."""
    if front is None:
        return [Problem(True, _NEVER)]  # noqa: FBT003 - its name is on the class
    try:
        endpoints = front.endpoints
    except ConfigError as error:
        return [Problem(True, str(error))]  # noqa: FBT003
    return [
        *(Problem(True, text) for text in _errors(app, front, endpoints)),  # noqa: FBT003
        *(Problem(False, text) for text in _notes(app, endpoints)),  # noqa: FBT003
    ]


def _errors(app: Flask, front: Front, endpoints: list[Endpoint]) -> Iterator[str]:
    workers = find_workers(os.environ)
    if workers is not None and front.settings.broker == MEMORY:
        yield (
            f"{workers}: several worker processes, and nothing carries messages between them: a "
            "send to an audience raises BrokerRequired. Let Redis carry them, "
            'WebSockets(broker="redis://localhost:6379/0"), run one worker (gunicorn --workers 1 '
            '--threads N), or say that you mean it: WebSockets(broker="memory://per-process")'
        )
    for sentence in unknown_variables():
        yield f"{sentence} (mend its name, or take it out)"
    auths = [each.policy.auth for each in endpoints if isinstance(each.policy.auth, FlaskAuth)]
    if any(auth.asks_login for auth in auths):
        yield from _login_errors(app)


def _login_errors(app: Flask) -> Iterator[str]:
    if importlib.util.find_spec("flask_login") is None:
        yield NO_FLASK_LOGIN
    elif not hasattr(app, "login_manager"):
        yield NO_MANAGER
    # A request_loader finds users without a session.
    manager = getattr(app, "login_manager", None)
    if not app.secret_key and getattr(manager, "_request_callback", None) is None:
        yield (
            "SECRET_KEY is not set: the app can read no session, so FlaskAuth() finds nobody. Set "
            "app.secret_key to what secrets.token_hex(32) gives, from a secret store"
        )


def _notes(app: Flask, endpoints: list[Endpoint]) -> Iterator[str]:
    if app.debug:
        return
    for endpoint in endpoints:
        path, origins = endpoint.route.path, endpoint.policy.origins
        if origins == "*":
            yield (
                f"{path}: origins='*' lets every page of the web connect. Unless that is meant, "
                "list the pages: origins=['https://myapp.com']"
            )
        elif (
            origins
            and not isinstance(origins, str)
            and all(_is_plain(origin) for origin in origins)
        ):
            yield (
                f"{path}: every origin that is listed is http://, and a page that is served over "
                f"https is of another origin. List it: origins=['https://{_host(origins[0])}']"
            )


def _is_plain(origin: str) -> bool:
    return origin.startswith("http://") and urlsplit(origin).hostname not in _LOCAL


def _host(origin: str) -> str:
    return urlsplit(origin).hostname or ""


def find_workers(environ: Mapping[str, str]) -> str | None:
    """Return the variable that asks for several worker processes, as NAME=value; else `None`.

    gunicorn takes its arguments from `GUNICORN_CMD_ARGS` over `WEB_CONCURRENCY`. What a command
    line or a configuration file asks for cannot be seen from here.
    """
    arguments = environ.get("GUNICORN_CMD_ARGS", "")
    asked = _workers_of(arguments)
    if asked is not None:
        return f"GUNICORN_CMD_ARGS={arguments!r}" if asked > 1 else None
    several = environ.get("WEB_CONCURRENCY", "")
    return f"WEB_CONCURRENCY={several}" if _number(several) > 1 else None


def _workers_of(arguments: str) -> int | None:
    """Return what `--workers` or `-w` says; the last one counts."""
    try:
        words = shlex.split(arguments)
    except ValueError:
        return None
    found = None
    for word, following in pairwise([*words, ""]):
        if word in {"-w", "--workers"}:
            found = _number(following)
        elif word.startswith("--workers="):
            found = _number(word.removeprefix("--workers="))
        elif word.startswith("-w"):
            found = _number(word.removeprefix("-w"))
    return found


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
