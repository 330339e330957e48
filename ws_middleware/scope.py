"""An ASGI scope read as an upgrade request, and cleaned of what must not stay in it.

Servers differ in what they put there (lists for tuples, ports as texts, no scheme), so everything
is read leniently: what is missing is nothing that a client could have left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes

from .types import UpgradeRequest, split_tokens

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["clean_scope", "path_of", "request_from_scope"]

#: What stays as it is in a path that has to be quoted again.
_SAFE = "/!$&'()*+,;=:@-._~"

#: The field whose list may hold a token.
_FIELD = "sec-websocket-protocol"

#: Of an `http` scope a server may use the same words.
_SCHEMES = {"ws": "http", "wss": "https"}


def request_from_scope(scope: MutableMapping[str, Any], received_at: float) -> UpgradeRequest:
    """Return the upgrade request of a scope; its path is the one within the app."""
    query = _text(scope.get("query_string") or b"")
    scheme = str(scope.get("scheme") or "ws").lower()
    path = quote_from_bytes(_bytes(path_of(scope)), safe=_SAFE) or "/"
    return UpgradeRequest(
        method="GET",
        target=f"{path}?{query}" if query else path,
        http_version=str(scope.get("http_version") or "1.1"),
        head=b"\n".join(_fields(scope)),
        client=_client(scope.get("client")),
        scheme=_SCHEMES.get(scheme, scheme),
        received_at=received_at,
        native=scope,
        is_checked=True,
    )


def path_of(scope: MutableMapping[str, Any]) -> str:
    """Return the path within the app: without what a mount above it has taken."""
    path, root = str(scope.get("path") or "/"), str(scope.get("root_path") or "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :] or "/"
    return path


def _bytes(path: str) -> bytes:
    """Return a decoded path as it was; half a surrogate pair, which no path has, as it comes."""
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogatepass")


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else bytes(raw).decode("latin-1")


def _fields(scope: MutableMapping[str, Any]) -> list[bytes]:
    fields = [_field(name, value) for name, value in scope.get("headers") or ()]
    offered = scope.get("subprotocols")
    if offered and not any(each.startswith(f"{_FIELD}:".encode()) for each in fields):
        fields.append(_field(_FIELD, ", ".join(map(str, offered))))  # wsproto takes it out
    return fields


def _field(name: bytes | str, value: bytes | str) -> bytes:
    trimmed = _text(value).strip(" \t")
    line = f"{_text(name).lower()}:{trimmed}"
    return line.replace("\n", " ").encode("latin-1", "replace")


def _client(client: Any) -> tuple[str, int] | None:  # noqa: ANN401 - whatever a server puts there
    """Return the address of the peer; a port that is none (a proxy's word) is 0."""
    if isinstance(client, str):
        client = (client, 0)
    try:
        host = str(client[0] or "")
    except (IndexError, KeyError, TypeError):
        return None
    try:
        return (host, int(client[1])) if host else None
    except (IndexError, OverflowError, TypeError, ValueError):
        return host, 0


def clean_scope(scope: MutableMapping[str, Any], request: UpgradeRequest) -> None:
    """Overwrite a token, in place: in the query, the header and the list of subprotocols.

    What comes after us sees none, and neither does an access log that is written from the scope.
    """
    query = request.query_string
    if _text(scope.get("query_string") or b"") != query:
        scope["query_string"] = query.encode("latin-1", "replace")
        if b"?" in (scope.get("raw_path") or b""):  # it should have none
            path = scope["raw_path"].partition(b"?")[0]
            scope["raw_path"] = path + b"?" + scope["query_string"]
    _clean_subprotocols(scope, request.headers.tokens(_FIELD))


def _clean_subprotocols(scope: MutableMapping[str, Any], offered: list[str]) -> None:
    """Leave those that are `offered` without the token."""
    headers = list(scope.get("headers") or ())
    there = [_text(value) for key, value in headers if _text(key).lower() == _FIELD]
    if there and [token for value in there for token in split_tokens(value)] != offered:
        others = [(key, value) for key, value in headers if _text(key).lower() != _FIELD]
        field = (_FIELD.encode(), ", ".join(offered).encode("latin-1"))
        scope["headers"] = [*others, field] if offered else others
    if list(scope.get("subprotocols") or ()) != offered:
        scope["subprotocols"] = offered
