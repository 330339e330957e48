"""Who the request comes from and for which host, where proxies stand in front.

What the host's server says counts, after its own proxy handling. Forwarded headers are applied here
only if the peer we then see is in `trusted_proxies`; anybody else can write what they like.
"""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING, Final

from ws_middleware.errors import ConfigError
from ws_middleware.types import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ws_middleware.types import UpgradeRequest

__all__ = ["HostRule", "TrustedProxies"]

#: Hops that are looked at, from the right; a longer list is nobody's honest path.
_HOPS: Final = 32

_HOST: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.\-]+)(?::[0-9]{1,5})?", re.ASCII)

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

#: A proxy leaves at least one of these.
_TRACES: Final = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
)


class TrustedProxies:
    """The addresses whose forwarded headers are believed.

    Raises:
        ConfigError: an entry is no address and no network.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        for entry in entries:
            try:
                self._networks.append(ip_network(entry, strict=False))
            except ValueError:
                msg = f"trusted_proxies: {entry!r} is no address or network, such as '10.0.0.0/8'"
                raise ConfigError(msg) from None

    def _trusts(self, address: str) -> bool:
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def apply(self, request: UpgradeRequest) -> UpgradeRequest:
        """Return the request as the outermost trusted proxy saw it."""
        if not self._networks or request.client is None or not self._trusts(request.client[0]):
            return request
        headers = request.headers
        client = self._client(request.client, headers.tokens("x-forwarded-for"))
        schemes = headers.tokens("x-forwarded-proto")
        scheme = schemes[-1].lower() if schemes else request.scheme
        hosts = headers.tokens("x-forwarded-host")
        head = _with_host(request.head, hosts[-1]) if hosts else request.head
        return replace(request, client=client, scheme=scheme, head=head)

    def _client(self, peer: tuple[str, int], hops: Sequence[str]) -> tuple[str, int]:
        """Walk from the right, over the proxies we trust, to the first that we don't."""
        for hop in reversed(hops[-_HOPS:]):
            address = _address(hop)
            if address is None:
                return peer
            peer = (address, 0)
            if not self._trusts(address):
                return peer
        return peer


def _address(hop: str) -> str | None:
    """Return the address of one entry, which may have brackets and a port; `None` if it is none."""
    text = hop.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    parsed = _parse(text)
    return None if parsed is None else str(parsed)


def _parse(address: str) -> IPv4Address | IPv6Address | None:
    """Return an address; one of IPv4 in the clothes of IPv6, as dual sockets give, as IPv4."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _with_host(head: bytes, host: str) -> bytes:
    lines = [line for line in head.split(b"\n") if not line.startswith(b"host:")]
    return b"\n".join([*lines, b"host:" + host.encode("latin-1", "replace")])


class HostRule:
    """Which names this server answers to.

    With `allowed` the Host header must be one of them. Without, one rule holds by itself: a route
    that is open to all, on loopback, with nobody in between, answers only to names of loopback. A
    page whose own name was made to point here (DNS rebinding) is same-origin to the browser, and
    nothing else would keep it out.
    """

    def __init__(
        self, allowed: Sequence[str] | None, *, is_open: bool, origins_listed: bool
    ) -> None:
        self._allowed = None if allowed is None else frozenset(name.lower() for name in allowed)
        self._is_open = is_open and not origins_listed

    def check(self, request: UpgradeRequest) -> Refusal | None:
        """Return a refusal if the Host header names somebody else."""
        name = _host_name(request.host)
        if self._allowed is not None:
            if name in self._allowed or _parent_allowed(name, self._allowed):
                return None
            why = f'Host is {request.host!r}: add "{name}" to allowed_hosts'
        elif self._is_open and _is_direct_loopback(request) and name not in _LOOPBACK_NAMES:
            why = (
                f"Host is {request.host!r} on a loopback address, and the route is open to all: a "
                "page could have its own name point here (DNS rebinding). Set allowed_hosts or a "
                "list of origins"
            )
        else:
            return None
        return Refusal(403, "host_not_allowed", "this host is not served here", why)


def _host_name(host: str) -> str:
    """Return the name without the port; the empty string, which is nobody's, for what is none."""
    found = _HOST.fullmatch(host.lower())
    return found["name"] if found is not None else ""


def _parent_allowed(name: str, allowed: frozenset[str]) -> bool:
    """A leading dot stands for a domain and all below it, as in Django's ALLOWED_HOSTS."""
    if "*" in allowed:
        return True
    return any(
        entry.startswith(".") and (name == entry[1:] or name.endswith(entry)) for entry in allowed
    )


def _is_direct_loopback(request: UpgradeRequest) -> bool:
    if request.client is None:
        return False
    parsed = _parse(request.client[0])
    headers = request.headers
    return (
        parsed is not None and parsed.is_loopback and not any(name in headers for name in _TRACES)
    )
