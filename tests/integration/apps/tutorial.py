"""The chat with a connection manager that FastAPI's tutorial leads to; two of its lines are ours.

`chat` is the tutorial's, with nobody asked who they are; `members` asks, with `Depends(principal)`.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect

from ws_middleware import Anonymous, JWTAuth, Principal, WebSocketMiddleware, WebSockets
from ws_middleware.starlette import principal

KEY = "a secret of 32 bytes or more: ........"

sockets = WebSockets(auth=JWTAuth(KEY, algorithms=["HS256"]))
sockets.guard("/ws/{client_id}", auth=Anonymous())

app = FastAPI()
app.add_middleware(WebSocketMiddleware, sockets=sockets)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


class ConnectionManager:
    def __init__(self) -> None:
        self.active: list[WebSocket] = []

    async def connect(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.active.append(websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        self.active.remove(websocket)

    async def send_personal_message(self, message: str, websocket: WebSocket) -> None:
        await websocket.send_text(message)

    async def broadcast(self, message: str) -> None:
        for connection in self.active:
            await connection.send_text(message)


manager = ConnectionManager()


@app.websocket("/ws/{client_id}")
async def chat(websocket: WebSocket, client_id: int) -> None:
    await manager.connect(websocket)
    try:
        while True:
            data = await websocket.receive_text()
            await manager.send_personal_message(f"You wrote: {data}", websocket)
            await manager.broadcast(f"Client #{client_id} says: {data}")
    except WebSocketDisconnect:
        manager.disconnect(websocket)
        await manager.broadcast(f"Client #{client_id} left the chat")


@app.websocket("/members")
async def members(websocket: WebSocket, user: Annotated[Principal, Depends(principal)]) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_json({"from": user.id, "text": text})


@app.post("/announce")
def announce(text: str) -> dict[str, int]:
    sent = sockets.everyone.send_json({"news": text})  # a `def` endpoint runs in a thread
    return {"sockets": sent.result(timeout=5).local}
