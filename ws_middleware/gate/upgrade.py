"""Is this request one for a WebSocket? RFC 6455 section 4.2.1, and nothing taken on trust.

Asked only where we hold the head or the environ; an ASGI server has done the handshake already.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ws_middleware.types import Refusal

if TYPE_CHECKING:
    from ws_middleware.types import Headers, UpgradeRequest

__all__ = ["NO_UPGRADE", "find_problem"]

_VERSION: Final = (("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket"))

#: The answer to whoever opens a socket's path as a page.
NO_UPGRADE: Final = Refusal(
    426,
    "upgrade_required",
    "this is a WebSocket endpoint: connect with a WebSocket client",
    headers=_VERSION,
)

#: What nginx has to be told, for by default it speaks HTTP/1.0 and passes no hop-by-hop field on.
_PROXY_LINES: Final = (
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    'proxy_set_header Connection "upgrade";'
)

_KEY_BYTES: Final = 16
_SUBPROTOCOLS: Final = 32
_EXTENSIONS: Final = 16

#: RFC 9110 section 5.6.2.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

#: Fields of which there may be one at most; two are an attempt to be read in two ways.
_SINGLE: Final = ("host", "origin", "sec-websocket-key", "sec-websocket-version", "upgrade")


def find_problem(request: UpgradeRequest) -> Refusal | None:
    """Return why this is no valid upgrade request, or `None` if it is one."""
    headers = request.headers
    if request.is_checked:  # over HTTP/2 it has neither a key nor an Upgrade
        return _check_single(headers, needs_host=False) or _check_lists(headers)
    return (
        _check_proxy(request)
        or _check_request_line(request)
        or _check_single(headers)
        or _check_body(headers)
        or _check_upgrade(headers)
        or _check_key(headers)
        or _check_lists(headers)
    )


def _malformed(detail: str, why: str = "") -> Refusal:
    return Refusal(400, "upgrade_malformed", detail, why)


def _ask_proxy(found: str) -> str:
    return f"{found}: most likely a proxy's doing. nginx needs in its location: {_PROXY_LINES}"


def _check_proxy(request: UpgradeRequest) -> Refusal | None:
    """Tell a WebSocket client's request that something on its way has taken apart.

    First of all: a proxy that drops the fields speaks HTTP/1.0 as well, which by itself would say
    nothing of the cause.
    """
    headers = request.headers
    if "sec-websocket-key" in headers and "upgrade" not in headers:
        detail = f"{NO_UPGRADE.detail} (the Upgrade header is missing: does a proxy drop it?)"
        return replace(NO_UPGRADE, detail=detail, why=_ask_proxy("there is no Upgrade header"))
    return None


def _check_request_line(request: UpgradeRequest) -> Refusal | None:
    if request.http_version != "1.1":
        is_meant = request.http_version == "1.0" and "upgrade" in request.headers
        why = _ask_proxy("it came as HTTP/1.0") if is_meant else ""
        return Refusal(505, "http_version", "a WebSocket upgrade needs HTTP/1.1", why)
    if request.method != "GET":
        headers = (("Allow", "GET"),)
        return Refusal(405, "method_not_allowed", "a WebSocket upgrade is a GET", headers=headers)
    target = request.target
    if target.startswith("/"):
        return None
    # Absolute form must be understood (RFC 9112 section 3.2.2), but not as a second opinion on
    # which host is meant.
    scheme, separator, rest = target.partition("://")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    if separator and scheme.lower() in {"http", "https", "ws", "wss"}:
        if authority.lower() == request.host.lower():
            return None
        return _malformed("the request target names another host than the Host header")
    return _malformed("the request target must be a path")


def _check_single(headers: Headers, *, needs_host: bool = True) -> Refusal | None:
    if needs_host and "host" not in headers:
        return _malformed("there is no Host header")
    for name in _SINGLE:
        if len(headers.get_all(name)) > 1:
            return _malformed(f"there is more than one {name} header")
    return None


def _check_body(headers: Headers) -> Refusal | None:
    # What follows the head would be frames to us and a body to a proxy: request smuggling.
    lengths = set(headers.get_all("content-length"))
    if "transfer-encoding" in headers or not lengths <= {"0"}:
        return _malformed("a WebSocket upgrade has no body")
    return None


def _check_upgrade(headers: Headers) -> Refusal | None:
    upgrade = headers.get("upgrade")
    if upgrade is None:
        return NO_UPGRADE
    if upgrade.strip(" \t").lower() != "websocket":
        return Refusal(426, "upgrade_required", "Upgrade must be websocket", headers=_VERSION)
    if "upgrade" not in {token.lower() for token in headers.tokens("connection")}:
        detail = "the Connection header must contain the token Upgrade"
        return _malformed(detail, _ask_proxy("the Connection header has no token Upgrade"))
    version = headers.get("sec-websocket-version")
    if version != "13":
        detail = f"Sec-WebSocket-Version must be 13, not {(version or 'missing')[:20]}"
        return Refusal(426, "version_not_supported", detail, headers=_VERSION)
    return None


def _check_key(headers: Headers) -> Refusal | None:
    key = headers.get("sec-websocket-key", "")
    try:
        size = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size != _KEY_BYTES:
        return _malformed("Sec-WebSocket-Key must be 16 bytes in base64")
    return None


def _check_lists(headers: Headers) -> Refusal | None:
    offered = headers.tokens("sec-websocket-protocol")
    if len(offered) > _SUBPROTOCOLS:
        return _malformed(f"there are more than {_SUBPROTOCOLS} subprotocols")
    if not all(_TOKEN.fullmatch(token) for token in offered):
        return _malformed("Sec-WebSocket-Protocol must be a list of tokens")
    if len(headers.tokens("sec-websocket-extensions")) > _EXTENSIONS:
        return _malformed(f"there are more than {_EXTENSIONS} extension offers")
    return None
