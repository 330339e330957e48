"""Rooms, their messages, and announcements to everybody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette import routing
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope
from starlette.websockets import WebSocket

from ws_middleware import Guard, Principal, Route, ScopeAuth, UpgradeRequest, WebSockets
from ws_middleware.starlette import principal

from .db import Room, Store
from .pages import get_store, is_json, login_required, post, redirect, render, require_user

MAX_TEXT = 2000


@dataclass(frozen=True)
class Live:
    """The sockets of the app, and whom something can be sent to."""

    sockets: WebSockets
    chat: Guard
    notifications: Route


def make_sockets(store: Store) -> Live:
    def user_id(scope: Scope) -> str | None:
        found = store.user(scope["session"].get("user_id", ""))
        return found.id if found else None

    def may_read(user: Principal, request: UpgradeRequest) -> bool:
        return store.may_read(user.id, request.path_params["room"])

    sockets = WebSockets(auth=ScopeAuth(user_id), gap="close")
    return Live(
        sockets,
        # Starlette's own WebSocketRoute below: whom it serves is decided here.
        chat=sockets.guard("/ws/chat/{room:int}", authorize=may_read),
        notifications=sockets.route("/ws/notifications"),
    )


async def talk(websocket: WebSocket) -> None:
    """Nobody comes here who may not: the guard has asked."""
    room, user = websocket.path_params["room"], principal(websocket)
    await websocket.accept()
    while (event := await websocket.receive())["type"] == "websocket.receive":
        text = (event.get("text") or "").strip()
        if 0 < len(text) <= MAX_TEXT:
            await say(websocket.app.state.live, get_store(websocket), user.id, room, text)
        else:
            problem = f"A message is text of 1 to {MAX_TEXT} characters."
            await websocket.send_json({"error": problem})


async def say(live: Live, store: Store, user_id: str, room: int, text: str) -> dict[str, Any]:
    """Store a message, and tell everybody in the room."""
    message = await run_in_threadpool(store.add_message, user_id, room, text)
    live.chat.room(room).send_json(message)
    return message


@login_required
async def index(request: Request) -> Response:
    user = await require_user(request)
    rooms = await run_in_threadpool(get_store(request).rooms_of, user.id)
    return await render(request, "index.html", rooms=rooms)


@login_required
async def show_room(request: Request) -> Response:
    room = await open_room(request)
    messages = await run_in_threadpool(get_store(request).last_messages, room.id)
    return await render(request, "room.html", room=room, messages=messages)


@login_required
async def post_message(request: Request) -> Response:
    room, user, text = (
        await open_room(request),
        await require_user(request),
        await sent_text(request),
    )
    message = await say(request.app.state.live, get_store(request), user.id, room.id, text)
    if is_json(request):
        return JSONResponse(message, 201)
    return redirect(request, "show_room", room=room.id)


@login_required
async def announce(request: Request) -> Response:
    user, text = await require_user(request), await sent_text(request)
    announcement = await run_in_threadpool(get_store(request).add_announcement, user.id, text)
    request.app.state.live.notifications.everyone.send_json(announcement)
    if is_json(request):
        return JSONResponse(announcement, 201)
    return redirect(request, "index")


async def open_room(request: Request) -> Room:
    """The room, if it exists and the user is a member of it."""
    store, room = get_store(request), request.path_params["room"]
    found = await run_in_threadpool(store.room, room)
    if found is None:
        raise HTTPException(404, "There is no such room.")
    if not await run_in_threadpool(store.may_read, (await require_user(request)).id, room):
        raise HTTPException(403, "You are not a member of this room.")
    return found


async def sent_text(request: Request) -> str:
    """The text of the request, from a form or from JSON, trimmed and checked."""
    body: Any = await (read_json(request) if is_json(request) else request.form())
    text = body.get("text", "") if hasattr(body, "get") else ""
    text = text.strip() if isinstance(text, str) else ""
    if not text:
        raise HTTPException(400, "The text is missing or empty.")
    if len(text) > MAX_TEXT:
        raise HTTPException(400, f"The text is longer than {MAX_TEXT} characters.")
    if not _is_storable(text):
        raise HTTPException(400, "The text is not valid Unicode.")
    return text


async def read_json(request: Request) -> object:
    try:
        return await request.json()
    except ValueError:
        raise HTTPException(400, "The body is not JSON.") from None


def _is_storable(text: str) -> bool:
    """JSON can spell half a surrogate pair, which no UTF-8 database can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


routes = [
    routing.Route("/", index),
    routing.Route("/rooms/{room:int}", show_room),
    post("/rooms/{room:int}/messages", post_message),
    post("/announce", announce),
    routing.WebSocketRoute("/ws/chat/{room:int}", talk),
]
