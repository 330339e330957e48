from __future__ import annotations

from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer

from ws_middleware import WebSockets


class Chat(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """A consumer that is in one of our rooms, as an app that moves over has it."""

    async def connect(self) -> None:
        ws = WebSockets.from_scope(self.scope)
        ws.join(f"room-{self.scope['url_route']['kwargs']['room']}")
        await self.accept()

    async def receive_json(self, content: Any, **_: Any) -> None:
        principal = self.scope["state"]["ws_principal"]
        user = self.scope["user"]  # channels' own: a user of Django's
        await self.send_json({"id": principal.id, "name": user.get_username(), "text": content})


class Echo(WebsocketConsumer):  # type: ignore[misc]
    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data, bytes_data)
