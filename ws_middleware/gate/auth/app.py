"""The host app decides: its own login, sessions, hooks and error pages, run on the upgrade request.

What is here knows no framework: it runs a WSGI app on an environ and reads its answer. `FlaskAuth`
and the views that own a socket build on it.
"""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes, urlsplit

from ws_middleware.errors import Refused
from ws_middleware.types import Granted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ws_middleware.types import UpgradeRequest

__all__ = ["GRANTED", "ViewAuth", "build_environ", "environ_of", "find_login", "run_app"]

#: Where the app's side leaves the user it let in, or a `Granted`. Ours: nothing that a client sends
#: can set it.
GRANTED: Final = "ws_middleware.granted"

_SWITCHING: Final = 101
_REDIRECTS: Final = range(300, 400)
#: Redirects for now, as to a login page. The lasting ones are about the address (a slash, a host),
#: and a client that follows them gets somewhere.
_ELSEWHERE: Final = frozenset({"302", "303", "307"})
_ERRORS: Final = range(400, 600)


class ViewAuth:
    """Stands in the policy of a socket that a view owns: the view decides, perhaps by a cookie."""

    ambient = True

    def __call__(self, request: UpgradeRequest) -> None:
        """Know nobody: only the view does."""

    def __repr__(self) -> str:
        return "the view"


def run_app(app: Callable[..., Iterable[bytes]], request: UpgradeRequest) -> Granted:
    """Run a WSGI app on the request and return the yes it left behind, with its headers.

    Raises:
        Refused: it answered anything else. An error is sent as it is; a redirect (to a login page,
            which a WebSocket client cannot follow) becomes a 401; any other answer a 403.
    """
    environ = environ_of(request)
    environ.pop(GRANTED, None)
    answer: list[Any] = []
    written = io.BytesIO()  # what the app gives to PEP 3333's write()

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:  # noqa: ANN401, ARG001
        # Django's Set-Cookie begins with a blank, which a server trims and h11 refuses.
        trimmed = [(name, value.strip(" \t")) for name, value in headers]
        answer[:] = [int(status.split(" ", 1)[0]), trimmed]
        return written.write

    chunks = app(environ, start_response)
    try:
        body = b"".join(chunks)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
    body = written.getvalue() + body
    status, headers = answer
    user = environ.pop(GRANTED, None)
    if status == _SWITCHING and user is not None:
        granted = user if isinstance(user, Granted) else Granted(user)
        return replace(granted, headers=tuple(headers))
    raise _refused(status, headers, body)


def _refused(status: int, headers: list[tuple[str, str]], body: bytes) -> Refused:
    if status in _ERRORS:
        why = f"the app answered {status}"
        return Refused(status, "app_refused", headers=headers, body=body, why=why)
    if status in _REDIRECTS:
        return _login_required("the app", headers)
    return Refused(403, "app_refused", why=f"the app answered {status}, neither a yes nor an error")


def find_login(status: str, headers: list[tuple[str, str]]) -> Refused | None:
    """Return the 401 in place of a view's redirect to a login page; `None` for other answers.

    With the cookies that came with it: where the user wanted to go is in them, mostly.
    """
    return _login_required("the view", headers) if status[:3] in _ELSEWHERE else None


def _login_required(who: str, headers: list[tuple[str, str]]) -> Refused:
    to = next((value for name, value in headers if name.lower() == "location"), "?")
    cookies = [(name, value) for name, value in headers if name.lower() == "set-cookie"]
    # Without the query, which may hold what no log should.
    why = (
        f"{who} redirected to {to.partition('?')[0]}: browsers show 1006 and follow nothing, so it "
        'is a 401; with refuse_with="close" a page reads 4401'
    )
    return Refused(401, "login_required", headers=cookies, why=why)


def environ_of(request: UpgradeRequest) -> dict[str, Any]:
    """Return the server's own environ of a request; one that is built where there is none."""
    native = request.native
    if isinstance(native, dict) and "REQUEST_METHOD" in native:  # an ASGI scope is a dict, too
        return native
    return build_environ(request)


def build_environ(request: UpgradeRequest) -> dict[str, Any]:
    """Return the environ of a request that no WSGI server has read (own port, ASGI, tests)."""
    server = urlsplit(f"//{request.host}")
    try:
        name, port = server.hostname or "localhost", server.port
    except ValueError:
        name, port = "localhost", None
    secure = request.scheme in {"https", "wss"}
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": _mount_of(request.native),
        "PATH_INFO": unquote_to_bytes(request.raw_path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": request.query_string,
        "SERVER_NAME": f"[{name}]" if ":" in name else name,
        "SERVER_PORT": str(port or (443 if secure else 80)),
        "SERVER_PROTOCOL": f"HTTP/{request.http_version}",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if secure else "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if request.client is not None:
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = request.client[0], str(request.client[1])
    for name, value in request.headers.pairs():
        if "_" in name:  # X_Remote_User would be read as X-Remote-User
            continue
        key = name.upper().replace("-", "_")
        if key not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            key = f"HTTP_{key}"
        joint = "; " if key == "HTTP_COOKIE" else ","
        environ[key] = f"{environ[key]}{joint}{value}" if key in environ else value
    if request.is_checked:  # over HTTP/2 there are none, and an app's rules look for them
        environ["HTTP_UPGRADE"], environ["HTTP_CONNECTION"] = "websocket", "Upgrade"
    return environ


def _mount_of(native: object) -> str:
    """Return where an ASGI server, or what has mounted us, says that the app begins."""
    root = native.get("root_path") if isinstance(native, dict) else None
    return str(root or "").rstrip("/").encode("utf-8", "surrogateescape").decode("latin-1")
