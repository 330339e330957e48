"""Testing an app's WebSockets in memory: no server, no network, no sleeping, the same every time.

::

    def test_chat(client):
        with connect(client, "/ws/chat/1") as ws:
            ws.send("hello")
            assert ws.receive_json() == {"from": "ann", "text": "hello"}

The gate, the sessions and the handlers are those of production, so refusals and close codes are,
too. Time is a virtual clock: `ws.advance(60)` takes no time at all. See docs/testing.md.
"""

from __future__ import annotations

from .client import ClientSocket
from .connecting import Connector, Refused, connect
from .control import FakeControl

__all__ = ["ClientSocket", "Connector", "FakeControl", "Refused", "connect"]
