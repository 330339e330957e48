"""Everybody may connect, said aloud."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ws_middleware.types import Principal

if TYPE_CHECKING:
    from ws_middleware.types import UpgradeRequest

__all__ = ["ANONYMOUS", "Anonymous"]

#: Nobody: in no user's audience, under no user's cap.
ANONYMOUS: Final = Principal("")


class Anonymous:
    """An authenticator that lets everybody in. `origins` still says which pages may connect."""

    #: It looks at nothing, so there are no cookies that a foreign page could ride on.
    ambient = False
    #: Called on the event loop itself: it neither waits nor computes for long.
    runs_inline = True

    def __call__(self, request: UpgradeRequest) -> Principal:  # noqa: ARG002 - that is the point
        """Return the anonymous principal."""
        return ANONYMOUS

    def __repr__(self) -> str:
        return "Anonymous()"
