"""Finding the token in an upgrade request, and taking it out of all that outlives the verdict.

Browsers can set no header on a WebSocket, so a token comes as a subprotocol (`["bearer", token]`)
or in the query. A query ends in logs, so there the token is overwritten by `-`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

from ws_middleware.errors import ConfigError
from ws_middleware.types import Credential, UpgradeRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_sources", "choose_subprotocol", "find_credential", "forget_credential"]

#: The subprotocol before a token; also what is answered where no other fits.
BEARER: Final = "bearer"
_QUERY: Final = "query:"
_PARAMETER_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]+", re.ASCII)


def check_sources(sources: Sequence[str]) -> tuple[str, ...]:
    """Return `sources` as a tuple.

    Raises:
        ConfigError: one of them is neither "header", "subprotocol" nor "query:NAME".
    """
    if isinstance(sources, str):
        sources = (sources,)
    for source in sources:
        named = source.removeprefix(_QUERY) if source.startswith(_QUERY) else ""
        if source not in {"header", "subprotocol"} and not _PARAMETER_NAME.fullmatch(named):
            msg = f"sources: {source!r} is none of 'header', 'subprotocol', 'query:NAME'"
            raise ConfigError(msg)
    if not sources:
        msg = "sources: name at least one of 'header', 'subprotocol', 'query:NAME'"
        raise ConfigError(msg)
    return tuple(sources)


def find_credential(request: UpgradeRequest, sources: Sequence[str]) -> UpgradeRequest:
    """Return the request with its `credential`, the first that `sources` lead to.

    Every token that any of the sources can see is taken out, found first or not.
    """
    credential: Credential | None = None
    for source in sources:
        if source == "header":
            token = _in_header(request)
        elif source == "subprotocol":
            token = _in_subprotocols(request)
            request = _without_bearer_tokens(request)
        else:
            name = source.removeprefix(_QUERY)
            token = _in_query(request, name)
            request = _without_query_token(request, name)
        if credential is None and token is not None:
            credential = Credential(token, source)
    return replace(request, credential=credential)


def forget_credential(request: UpgradeRequest) -> UpgradeRequest:
    """Return the request as handlers keep it: no token, no Authorization, no host request."""
    lines = [li for li in request.head.split(b"\n") if not li.startswith(b"authorization:")]
    return replace(request, head=b"\n".join(lines), credential=None, native=None)


def choose_subprotocol(request: UpgradeRequest, ours: Sequence[str]) -> str | None:
    """Return the first of `ours` that the client offers; else `bearer` if it offered that.

    A browser that offered any and is answered none closes at once, so the word that came with a
    token has to do where nothing else fits.
    """
    offered = request.subprotocols
    for name in ours:
        if name in offered:
            return name
    return BEARER if BEARER in offered else None


def _in_header(request: UpgradeRequest) -> str | None:
    for value in request.headers.get_all("authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == BEARER and token.strip():
            return token.strip()
    return None


def _in_subprotocols(request: UpgradeRequest) -> str | None:
    offered = request.subprotocols
    if BEARER in offered[:-1]:
        return offered[offered.index(BEARER) + 1]
    return None


def _without_bearer_tokens(request: UpgradeRequest) -> UpgradeRequest:
    offered = request.subprotocols
    if BEARER not in offered:
        return request
    kept = [name for i, name in enumerate(offered) if i == 0 or offered[i - 1] != BEARER]
    field = b"sec-websocket-protocol:"
    lines = [line for line in request.head.split(b"\n") if not line.startswith(field)]
    lines.append(field + ", ".join(kept).encode("latin-1"))
    return replace(request, head=b"\n".join(lines))


def _query_parts(request: UpgradeRequest) -> list[str]:
    return request.query_string.split("&")


def _in_query(request: UpgradeRequest, name: str) -> str | None:
    for part in _query_parts(request):
        key, _, value = part.partition("=")
        if unquote_plus(key) == name and value:
            return unquote_plus(value, errors="replace")
    return None


def _without_query_token(request: UpgradeRequest, name: str) -> UpgradeRequest:
    if not request.query_string:
        return request
    parts = [
        f"{part.partition('=')[0]}=-" if unquote_plus(part.partition("=")[0]) == name else part
        for part in _query_parts(request)
    ]
    path = request.target.partition("?")[0]
    return replace(request, target=f"{path}?{'&'.join(parts)}")
