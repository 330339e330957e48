"""Which server is behind a door, and what it has set: an ASGI app is not told, a WSGI app in part.

Told by the objects on our stack: what a server runs the loop from, we are called from. Of a server
that is not known nothing is claimed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ws_middleware.doors import Door, Server

from .control import gives_control
from .stack import find_objects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["find_asgi_server", "find_wsgi_server"]

#: ASGI servers by their packages.
_ASGI: Final = {
    "uvicorn": Door.UVICORN,
    "hypercorn": Door.HYPERCORN,
    "daphne": Door.DAPHNE,
    "granian": Door.GRANIAN,
    "gunicorn": Door.GUNICORN,
}
#: What uvicorn's configuration has of the class that makes its WebSockets.
_PROTOCOL: Final = "ws_protocol_class"

_UNKNOWN: Final = "this server"


def find_asgi_server() -> Server | None:
    """Return the ASGI server that has called the caller, if it is one that we know.

    Of several, as uvicorn in a worker of gunicorn's, it is the innermost.
    """
    found = list(find_objects(_ASGI))
    if not found:
        return None
    package = found[0].package
    objects = [each.value for each in found if each.package == package]
    door = _ASGI[package]
    if door is Door.UVICORN and gives_control(_read(objects, _PROTOCOL)):
        door = Door.UVICORN_OURS
    return Server(door, door.value, lambda name: _read(objects, name))


def find_wsgi_server(environ: Mapping[str, Any]) -> Server:
    """Return the WSGI server that has called the caller, by its own word for itself."""
    words = str(environ.get("SERVER_SOFTWARE") or "").split("/")[0].split()
    name = words[0] if words else _UNKNOWN
    objects = [each.value for each in find_objects({name})]
    return Server(Door.WSGI, name, lambda setting: _read(objects, setting))


def _read(objects: Sequence[object], name: str) -> Any:  # noqa: ANN401 - a setting of any server
    for each in objects:
        value = getattr(each, name, None)
        if value is not None:
            return value
    return None
