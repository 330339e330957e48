"""The Flask door: for now the host's configuration and context; the app's own port comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ConfigError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from flask import Flask

__all__ = ["FlaskDoor"]

#: Where the extension is found: `app.extensions["websockets"]`.
EXTENSION = "websockets"
_CONFIG = "WEBSOCKETS"


class FlaskDoor:
    """What we need of one Flask app. Imports nothing of Flask: the app is given."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    @property
    def settings(self) -> dict[str, Any]:
        """What `app.config["WEBSOCKETS"]` says.

        Raises:
            ConfigError: it is no dict.
        """
        given = self._app.config.get(_CONFIG, {})
        if not isinstance(given, dict):
            msg = f'app.config["{_CONFIG}"] takes a dict, got {given!r}'
            raise ConfigError(msg)
        return given

    def context(self) -> AbstractContextManager[object]:
        """Return a fresh app context: extensions tear their state down after each call."""
        return self._app.app_context()

    def register(self, extension: object) -> None:
        """Be found by other code of the app."""
        self._app.extensions[EXTENSION] = extension
