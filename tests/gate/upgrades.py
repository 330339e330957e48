"""Upgrade requests made by hand, and the little a gate needs to know of a route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ws_middleware.config import DEFAULT_LIMITS, EffectivePolicy, Limits, RefuseWith
from ws_middleware.gate.auth.anonymous import Anonymous
from ws_middleware.types import UpgradeRequest

if TYPE_CHECKING:
    from ws_middleware.types import Authenticator

__all__ = ["KEY", "Entry", "Field", "policy", "upgrade"]

#: The example of RFC 6455 section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="

#: A field's value, a list of one for each line, or `None`. No closer type: mypy would hold what is
#: spread by `**` against the other keywords too.
Field = Any


def upgrade(
    target: str = "/ws",
    *,
    method: str = "GET",
    http_version: str = "1.1",
    scheme: str = "http",
    received_at: float = 0.0,
    **changes: Field,
) -> UpgradeRequest:
    """Return a valid request but for `changes`: fields with `_` for `-`; `None` drops one."""
    fields: dict[str, Field] = {
        "host": "myapp.com",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-key": KEY,
        "sec-websocket-version": "13",
    }
    fields.update({name.replace("_", "-"): value for name, value in changes.items()})
    lines = [
        f"{name}:{each}"
        for name, value in fields.items()
        for each in (value if isinstance(value, list) else [value])
        if each is not None
    ]
    return UpgradeRequest(
        method=method,
        target=target,
        http_version=http_version,
        head="\n".join(lines).encode("latin-1"),
        scheme=scheme,
        received_at=received_at,
    )


def policy(
    auth: Authenticator | None = None,
    *,
    origins: str | tuple[str, ...] = "same-origin",
    limits: Limits = DEFAULT_LIMITS,
    refuse_with: RefuseWith = "http",
) -> EffectivePolicy:
    return EffectivePolicy(
        auth=Anonymous() if auth is None else auth,
        authorize=None,
        origins=origins,
        heartbeat=None,
        limits=limits,
        refuse_with=refuse_with,
    )


@dataclass
class Entry:
    """A route as far as the gate looks at it."""

    name: str
    policy: EffectivePolicy
