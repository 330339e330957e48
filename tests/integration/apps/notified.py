"""An app whose users are told things by a task queue; the queue's workers import it, too."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flask import Flask

from ws_middleware import Limits, WebSockets

if TYPE_CHECKING:
    from ws_middleware import UpgradeRequest

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")


def who(request: UpgradeRequest) -> str | None:
    return request.cookies.get("user")


app = Flask(__name__)
sockets = WebSockets(auth=who, limits=Limits(connections_per_user=None))
sockets.route("/ws/news")


@app.get("/health")
def health() -> str:
    return "ok"


sockets.init_app(app)
