"""An app that is ours to serve sockets for, as its framework's module sees it; and none at all."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from contextlib import AbstractContextManager

    from .route import Endpoint

__all__ = ["Host", "NoHost"]


class Host(Protocol):
    """An app that is ours to serve sockets for, as its framework's module sees it."""

    @property
    def app(self) -> object:
        """What it is the host for; one app has one front."""

    @property
    def name(self) -> str:
        """What the app is called, for people."""

    @property
    def where(self) -> str:
        """Where its settings come from, for errors."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What its own configuration says."""

    def defaults(self, given: Collection[str]) -> Mapping[str, Any]:
        """Return what its configuration means for settings that are not `given` anywhere."""

    def context(self) -> AbstractContextManager[object]:
        """Return what surrounds each call of the app's code."""

    def adapt(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint with what only this app knows of it."""

    def add(self, endpoint: Endpoint) -> None:
        """Make an endpoint known to the app."""


class NoHost:
    """Stands where no app is behind a door: a port of our own, or any WSGI app."""

    app = None
    name = where = ""
    settings: Final[Mapping[str, Any]] = {}

    def defaults(self, given: Collection[str]) -> Mapping[str, Any]:  # noqa: ARG002
        """Return nothing."""
        return {}

    def context(self) -> AbstractContextManager[object]:
        """Return a context that does nothing."""
        return contextlib.nullcontext()

    def adapt(self, endpoint: Endpoint) -> Endpoint:
        """Return it as it is."""
        return endpoint

    def add(self, endpoint: Endpoint) -> None:
        """Tell nobody."""
