"""A Flask app on an ASGI server: its sessions, hooks and views, one line for the server's sake."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, abort, g, redirect, request, session, url_for

from ws_middleware import FlaskAuth, Limits, WebSockets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.typing import ResponseReturnValue

    from ws_middleware import BlockingWebSocket, Principal, UpgradeRequest, WebSocket


class OnPurposeError(Exception):
    """Some other error."""


def may_read(user: Principal, request: UpgradeRequest) -> bool:
    return bool(request.path_params["room"] < 10)


app = Flask("shop")
app.secret_key = "s" * 32
sockets = WebSockets(auth=FlaskAuth(lambda: session.get("user")))
chat = sockets.route("/ws/chat/<int:room>", name="chat", authorize=may_read)
closed: list[str] = []
both = threading.Barrier(2)

ONE = Limits(connections_per_user=1)


@chat.on_message
def said(ws: WebSocket, message: str, room: int) -> None:
    chat.room(room).send_json({"from": ws.user.id, "text": message})


@sockets.route("/ws/blocking")
def blocking(ws: BlockingWebSocket) -> None:
    for message in ws:
        ws.send(message)


@app.before_request
def before() -> None:
    g.asked = request.path
    if request.args.get("teapot"):
        response = Response("short and stout", 418)
        response.set_cookie("sugar", "1")
        response.set_cookie("milk", "2")
        abort(response)


@app.after_request
def after(response: Response) -> Response:
    response.headers["X-Asked"] = g.asked
    if "HTTP_UPGRADE" in request.environ and "user" in session:
        session["seen"] = session.get("seen", 0) + 1
    return response


@app.get("/health")
def health() -> ResponseReturnValue:
    return {"status": "ok"}


@app.get("/refused")
def refused() -> ResponseReturnValue:
    return dict(sockets.stats()["refused"])


@app.post("/logout")
def logout() -> ResponseReturnValue:
    sockets.user(session.pop("user")).close(4401, "logged_out")
    return "bye"


@app.get("/login/<name>")
def login(name: str) -> ResponseReturnValue:
    session["user"] = name
    return "hello"


@app.get("/seen")
def seen() -> ResponseReturnValue:
    return {"seen": session.get("seen", 0), "url": url_for("ws:chat", room=1)}


@app.post("/say/<int:room>")
def say(room: int) -> ResponseReturnValue:
    sent = chat.room(room).send_json({"text": request.get_data(as_text=True)})
    return {"sockets": sent.result(timeout=5).local}


@app.post("/say-async/<int:room>")
async def say_async(room: int) -> ResponseReturnValue:
    sent = await chat.room(room).send_json({"text": request.get_data(as_text=True)})
    return {"sockets": sent.local}


@app.get("/both")
def wait_for_both() -> ResponseReturnValue:
    """Answer when two requests are here at once, which a single thread never sees."""
    both.wait(10)
    return "both"


@app.post("/upload")
def upload() -> ResponseReturnValue:
    return {"bytes": len(request.get_data()), "multiprocess": request.environ["wsgi.multiprocess"]}


@app.get("/stream")
def stream() -> ResponseReturnValue:
    def parts() -> Iterator[bytes]:
        for number in range(3):
            yield f"part {number}\n".encode()

    response = Response(parts(), content_type="text/plain")
    response.call_on_close(lambda: closed.append("stream"))
    return response


@app.get("/closed")
def what_was_closed() -> ResponseReturnValue:
    return {"closed": closed}


# --- views that own a socket ---------------------------------------------------------------------


async def talk(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(f"{ws.user.id}: {message!r}")


@app.route("/own", websocket=True)
def own() -> Any:
    if "user" not in session:
        return redirect(url_for("login", name="me"))
    return sockets.upgrade(talk, user=session["user"])


@app.route("/own/<int:room>", websocket=True)
def own_room(room: int) -> Any:
    return sockets.upgrade(talk, user=session.get("user"), authorize=lambda _user, _: room == 1)


@app.route("/own/closing", websocket=True)
def own_closing() -> Any:
    return sockets.upgrade(talk, user=None, refuse_with="close")


@app.route("/own/one", websocket=True)
def own_one() -> Any:
    """Change its mind after an accept, if asked to."""
    answer = sockets.upgrade(talk, user="one", name="one", limits=ONE)
    if request.args.get("no"):
        app.make_response(answer)
        abort(409)
    return answer


@app.route("/own/broken", websocket=True)
def own_broken() -> Any:
    raise OnPurposeError


asgi = sockets.asgi(app)
