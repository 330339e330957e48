"""Rooms, their messages, and announcements to everybody."""

from __future__ import annotations

from flask import Blueprint, abort, jsonify, redirect, render_template, request, url_for
from flask.app import Flask
from flask.globals import current_app
from flask.typing import ResponseReturnValue

from ws_middleware import FlaskAuth, Principal, UpgradeRequest, WebSocket, WebSockets

from .auth import current_user, login_required, require_user
from .db import Room, get_store

MAX_TEXT = 2000

blueprint = Blueprint("chat", __name__)


def user_id() -> str | None:
    user = current_user()
    return user.id if user else None


def may_read(user: Principal, request: UpgradeRequest) -> bool:
    return get_store().may_read(user.id, request.path_params["room"])


def add_sockets(app: Flask) -> None:
    sockets = WebSockets(auth=FlaskAuth(user_id), gap="close")
    chat = sockets.route("/ws/chat/<int:room>", authorize=may_read)
    app.extensions.update(chat=chat, notifications=sockets.route("/ws/notifications"))
    sockets.init_app(app)

    @chat.on_message
    def said(ws: WebSocket, message: str | bytes, room: int) -> None:
        text = message.strip() if isinstance(message, str) else ""
        if 0 < len(text) <= MAX_TEXT:
            chat.room(room).send_json(get_store().add_message(ws.user.id, room, text))
        else:
            ws.send_json({"error": f"A message is text of 1 to {MAX_TEXT} characters."})


@blueprint.get("/")
@login_required
def index() -> ResponseReturnValue:
    return render_template("index.html", rooms=get_store().rooms_of(require_user().id))


@blueprint.get("/rooms/<int:room>")
@login_required
def show_room(room: int) -> ResponseReturnValue:
    found = open_room(room)
    return render_template("room.html", room=found, messages=get_store().last_messages(room))


@blueprint.post("/rooms/<int:room>/messages")
@login_required
def post_message(room: int) -> ResponseReturnValue:
    open_room(room)
    message = get_store().add_message(require_user().id, room, sent_text())
    current_app.extensions["chat"].room(room).send_json(message)
    if request.is_json:
        return jsonify(message), 201
    return redirect(url_for("chat.show_room", room=room))


@blueprint.post("/announce")
@login_required
def announce() -> ResponseReturnValue:
    announcement = get_store().add_announcement(require_user().id, sent_text())
    current_app.extensions["notifications"].everyone.send_json(announcement)
    if request.is_json:
        return jsonify(announcement), 201
    return redirect(url_for("chat.index"))


def open_room(room: int) -> Room:
    """The room, if it exists and the user is a member of it."""
    found = get_store().room(room)
    if found is None:
        abort(404, "There is no such room.")
    if not get_store().may_read(require_user().id, room):
        abort(403, "You are not a member of this room.")
    return found


def sent_text() -> str:
    """The text of the request, from a form or from JSON, trimmed and checked."""
    body = request.get_json() if request.is_json else request.form
    text = body.get("text", "") if hasattr(body, "get") else ""
    text = text.strip() if isinstance(text, str) else ""
    if not text:
        abort(400, "The text is missing or empty.")
    if len(text) > MAX_TEXT:
        abort(400, f"The text is longer than {MAX_TEXT} characters.")
    if not _is_storable(text):
        abort(400, "The text is not valid Unicode.")
    return text


def _is_storable(text: str) -> bool:
    """JSON can spell half a surrogate pair, which no UTF-8 database can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
