from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.net.asgi_door import Door, no_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.net.asgi_door import App
    from ws_middleware import WebSockets


@pytest.fixture
def open_door() -> Iterator[Callable[..., Door]]:
    """Open ASGI doors without a server; at the end nothing may be left of any connection."""
    doors: list[Door] = []

    def start(sockets: WebSockets, app: App = no_app) -> Door:
        doors.append(Door(sockets, app))
        return doors[-1]

    yield start
    for door in doors:
        door.close()
