"""A WSGI environ read as an upgrade request, and cleaned of what must not stay in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .types import UpgradeRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["clean_query", "decode_path", "request_from_environ"]

#: Where hosts keep the request target as it was sent; their access logs are written from it.
_TARGET_KEYS: Final = ("RAW_URI", "REQUEST_URI")


def decode_path(path: str) -> str:
    """Return a PATH_INFO, which is UTF-8 read as latin-1, decoded as `UpgradeRequest.path` is."""
    if path.isascii():
        return path
    return path.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


def request_from_environ(environ: WSGIEnvironment, received_at: float) -> UpgradeRequest:
    """Return the upgrade request of an environ; its path is the one within the app."""
    target = _quote(environ.get("PATH_INFO", "") or "/")
    query = environ.get("QUERY_STRING", "")
    return UpgradeRequest(
        method=environ["REQUEST_METHOD"],
        target=f"{target}?{query}" if query else target,
        http_version=environ.get("SERVER_PROTOCOL", "").removeprefix("HTTP/"),
        head=b"\n".join(_fields(environ)),
        client=_client(environ),
        scheme=environ.get("wsgi.url_scheme", "http"),
        received_at=received_at,
        native=environ,
    )


def _quote(path: str) -> str:
    # WSGI hands out decoded bytes as latin-1; percent signs have to become escapes again.
    return "".join(
        c if c.isascii() and c not in "%?#" and c > " " else f"%{ord(c):02X}" for c in path
    )


def _fields(environ: WSGIEnvironment) -> Iterable[bytes]:
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            name = key[5:].replace("_", "-").lower()
        elif key in {"CONTENT_TYPE", "CONTENT_LENGTH"} and value:
            name = key.replace("_", "-").lower()
        else:
            continue
        yield f"{name}:{value}".replace("\n", " ").encode("latin-1", "replace")


def _client(environ: WSGIEnvironment) -> tuple[str, int] | None:
    address = environ.get("REMOTE_ADDR")
    if not address:
        return None
    try:
        return str(address), int(environ.get("REMOTE_PORT") or 0)
    except ValueError:
        return str(address), 0


def clean_query(environ: WSGIEnvironment, request: UpgradeRequest) -> None:
    """Overwrite, in place, a token in the query: the server's access log is written from it."""
    if environ.get("QUERY_STRING", "") == request.query_string:
        return
    old, new = environ["QUERY_STRING"], request.query_string
    environ["QUERY_STRING"] = new
    for key in _TARGET_KEYS:
        if key in environ:
            environ[key] = environ[key].replace(old, new)
