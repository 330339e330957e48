"""Which pages may connect. A browser sends a user's cookies from any page, and CORS does not apply.

RFC 6455 section 10.2: the Origin header is the only thing that tells pages apart.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from ws_middleware.errors import ConfigError
from ws_middleware.types import Refusal

if TYPE_CHECKING:
    from ws_middleware.types import UpgradeRequest

__all__ = ["OriginRule", "parse_origin"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

#: RFC 6454 section 6.2: a scheme, a host, perhaps a port. Nothing after it, no user before it.
_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.\-]*)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.\-]+)(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
_HOST: Final = re.compile(
    r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.\-]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)


class Origin(NamedTuple):
    """An origin taken apart; the port is `None` for a scheme we know no default of."""

    scheme: str
    host: str
    port: int | None


def parse_origin(text: str) -> Origin | None:
    """Return the parts of a serialised origin, or `None` if it is none ("null" is none)."""
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        return None
    scheme = found["scheme"]
    port = int(found["port"]) if found["port"] else _DEFAULT_PORTS.get(scheme)
    return Origin(scheme, found["host"], port)


def _same_host(origin: Origin, request: UpgradeRequest) -> bool:
    found = _HOST.fullmatch(request.host.lower())
    if found is None:
        return False
    # A Host without a port means the default one of the scheme the page has: TLS may have ended
    # before us, so the request's own scheme does not tell.
    port = int(found["port"]) if found["port"] else _DEFAULT_PORTS.get(origin.scheme)
    return (origin.host, origin.port) == (found["host"], port)


def _explain_same_name(sent: str, origin: Origin, request: UpgradeRequest, port: str | None) -> str:
    remedy = f'list origins=["{sent}"]'
    if _same_host(origin, request):
        return f"The page came without TLS: send its readers to https, or, if you must, {remedy}."
    if port is None:
        remedy += '; or, if a proxy drops the port, add "proxy_set_header Host $http_host;"'
    return f"Another port is another origin: {remedy}."


class OriginRule:
    """One policy's rule, made at start. "same-origin" may be an entry of the list, too.

    Raises:
        ConfigError: an entry of the list is no origin.
    """

    def __init__(self, origins: str | tuple[str, ...], *, ambient: bool) -> None:
        self._ambient = ambient
        self._any = origins == "*"
        listed = (origins,) if isinstance(origins, str) else origins
        self._same = "same-origin" in listed
        others = () if self._any else (entry for entry in listed if entry != "same-origin")
        self._listed = frozenset(self._read(entry) for entry in others)

    @staticmethod
    def _read(entry: str) -> Origin:
        origin = parse_origin(entry) if isinstance(entry, str) else None
        if origin is None:
            msg = (
                f"origins: {entry!r} is no origin. Write scheme, host and perhaps a port, as in "
                "'https://myapp.com' or 'http://localhost:5173', without a path; or "
                "origins='same-origin'"
            )
            raise ConfigError(msg)
        return origin

    def check(self, request: UpgradeRequest) -> Refusal | None:
        """Return a refusal if the page may not connect."""
        sent = request.origin
        if sent is None:
            return self._missing() if self._ambient else None
        origin = parse_origin(sent)
        if self._any:
            return None
        if origin is not None and self._allows(origin, request):
            return None
        return Refusal(
            403,
            "origin_not_allowed",
            "this page may not connect",
            self._explain(sent, origin, request),
        )

    def _allows(self, origin: Origin, request: UpgradeRequest) -> bool:
        if not self._same or origin in self._listed:
            return origin in self._listed
        if origin.scheme not in _DEFAULT_PORTS or not _same_host(origin, request):
            return False
        # A page that came unencrypted may have been written by anybody on the way.
        return not (origin.scheme == "http" and request.scheme in {"https", "wss"})

    @staticmethod
    def _missing() -> Refusal:
        return Refusal(
            403,
            "origin_missing",
            "an Origin header is needed here",
            "No Origin header: not a browser. The authenticator may look at cookies, so it is "
            "needed; set ambient = False on an authenticator that looks at none.",
        )

    def _explain(self, sent: str, origin: Origin | None, request: UpgradeRequest) -> str:
        page = f"Page: {sent}. This request: {request.scheme}://{request.host}."
        if origin is None:
            return f"{page} The Origin header is no origin that can be allowed."
        found = _HOST.fullmatch(request.host.lower())
        if self._same and found is not None and found["host"] == origin.host:
            return f"{page} {_explain_same_name(sent, origin, request, found['port'])}"
        if self._same:
            return (
                f"{page} If that page is yours, the proxy does not pass Host: add "
                f'"proxy_set_header Host $http_host;", or list origins=["{sent}"].'
            )
        return f'{page} Not in the list: add "{sent}" to origins.'
