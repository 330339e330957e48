"""The routes on the port of a Flask app, for WSGI servers."""

from __future__ import annotations

from flask import Flask

from tests.asgi.routes import control, sockets

control()
app = Flask(__name__)


@app.get("/")
def index() -> str:
    return "http"


sockets.init_app(app)
