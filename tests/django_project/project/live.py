from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connection

from ws_middleware import WebSockets
from ws_middleware.django import DjangoAuth

if TYPE_CHECKING:
    from ws_middleware import BlockingWebSocket, Principal, UpgradeRequest, WebSocket

sockets = WebSockets(auth=DjangoAuth())


def is_member(user: Principal, request: UpgradeRequest) -> bool:
    """Ask the database: ann is a member of room 1, nobody of any other."""
    found = get_user_model().objects.filter(pk=user.id, username="ann").exists()
    return bool(found) and request.path_params["room"] == 1


room = sockets.route("/ws/room/<int:room>", authorize=is_member)


@sockets.route("/ws/echo")
async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


orm = sockets.route("/ws/orm")


@orm.on_message
def ask(ws: WebSocket, message: str) -> None:
    """Answer with a row, the thread, and whether a call before this one left its connection."""
    left = connection.connection is not None
    name = get_user_model().objects.get(pk=ws.user.id).username
    ws.send_json({"name": name, "asked": message, "left": left, "thread": threading.get_ident()})


async def ask_async(ws: WebSocket, message: str) -> None:
    """Do the same with Django's `a...` methods, which run in a thread of asgiref's."""
    left = await sync_to_async(lambda: connection.connection is not None)()
    if message == "break":
        await sync_to_async(break_connection)()
    user = await get_user_model().objects.aget(pk=ws.user.id)
    ws.send_json({"name": user.username, "asked": message, "left": left})


def break_connection() -> None:
    """Do what the end of the database's server does: the next query fails."""
    connection.ensure_connection()
    connection.connection.close()


events = sockets.route("/ws/async-events")
events.on_message(ask_async)


@sockets.route("/ws/async-talk")
async def talk(ws: WebSocket) -> None:
    async for message in ws:
        await ask_async(ws, str(message))


@sockets.route("/ws/blocking")
def blocking(ws: BlockingWebSocket) -> None:
    for message in ws:
        ws.send(get_user_model().objects.get(pk=ws.user.id).username + f": {message!r}")


@sockets.route("/ws/threads")
async def threads(ws: WebSocket) -> None:
    async for _ in ws:
        ws.send_json(sorted(thread.name for thread in threading.enumerate()))
