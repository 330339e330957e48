"""An app whose authenticators have pooled asyncio clients, and whose handlers use SQLAlchemy."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import httpx
import redis.asyncio
from flask import Flask, current_app
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.pool import QueuePool

from ws_middleware import Limits, WebSockets

if TYPE_CHECKING:
    from ws_middleware import BlockingWebSocket, Principal, UpgradeRequest, WebSocket

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
logging.getLogger("httpx").setLevel(logging.WARNING)

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE"]
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 3, "max_overflow": 0, "pool_timeout": 2}
db = SQLAlchemy(app)

# Made at import, as apps do: which loop they belong to is settled by their first use.
identity = httpx.AsyncClient(base_url=os.environ["IDENTITY"])
sessions = redis.asyncio.Redis.from_url(os.environ["REDIS"], decode_responses=True)


class OnPurposeError(Exception):
    """Not what any code here raises by mistake."""


class Member(db.Model):  # type: ignore[name-defined, misc]
    name = db.Column(db.String, primary_key=True)
    room = db.Column(db.Integer)
    said = db.Column(db.Integer, default=0)


async def by_http(request: UpgradeRequest) -> str | None:
    answer = await identity.get("/who", headers={"Cookie": request.headers.get("cookie") or ""})
    return answer.text or None


async def by_redis(request: UpgradeRequest) -> str | None:
    name = await sessions.get(f"session:{request.cookies.get('session', '')}")
    return None if name is None else str(name)


async def by_either(request: UpgradeRequest) -> str | None:
    return await by_redis(request) or await by_http(request)


def is_member(user: Principal, request: UpgradeRequest) -> bool:
    assert current_app.name == app.name
    member = db.session.get(Member, user.id)
    return member is not None and member.room == request.path_params["room"]


async def echo(ws: WebSocket, **_: Any) -> None:
    async for message in ws:
        await ws.send(f"{ws.user.id} {message!s}")


sockets = WebSockets(limits=Limits(connections_per_user=None))
sockets.route("/ws/http", auth=by_http)(echo)
sockets.route("/ws/redis", auth=by_redis)(echo)
sockets.route("/ws/either", auth=by_either)(echo)
sockets.route("/ws/room/<int:room>", auth=by_redis, authorize=is_member)(echo)
count = sockets.route("/ws/count", auth=by_redis)


@count.on_message
def said(ws: WebSocket, message: str) -> None:
    member = db.session.get_one(Member, ws.user.id)
    if message == "fail":
        raise OnPurposeError
    member.said += 1
    db.session.commit()
    ws.send(f"{member.said}")  # read again after the commit, so a connection is out


@sockets.route("/ws/blocking", auth=by_redis)
def blocking(ws: BlockingWebSocket) -> None:
    for message in ws:
        member = db.session.get_one(Member, ws.user.id)
        ws.send(f"{member.name}")
        if message == "release":
            db.session.remove()


@app.get("/health")
def health() -> str:
    return "ok"


@app.get("/pool")
def pool() -> dict[str, int]:
    assert isinstance(db.engine.pool, QueuePool)
    return {"out": db.engine.pool.checkedout()}


with app.app_context():
    db.create_all()
    db.session.merge(Member(name="ann", room=1, said=0))
    db.session.merge(Member(name="bob", room=2, said=0))
    db.session.commit()
    db.engine.dispose()

sockets.init_app(app)
