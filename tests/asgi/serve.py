"""Run the routes on what has no command of its own: `serve.py own|werkzeug|uvicorn-... PORT`."""

from __future__ import annotations

import asyncio
import signal
import sys

from tests.asgi.routes import control, sockets


def main() -> None:
    name, port = sys.argv[1], int(sys.argv[2])
    if name == "werkzeug":
        from tests.asgi.flask_app import app  # noqa: PLC0415 - each server is its own import

        app.run("127.0.0.1", port, threaded=True)
        return
    if name.startswith("uvicorn"):
        serve_uvicorn(port, workers=2 if name == "uvicorn-run" else 1)
        return
    control()
    sockets.listen("127.0.0.1", port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    signal.pause()


def serve_uvicorn(port: int, *, workers: int) -> None:
    """Serve as programs do that have uvicorn built in."""
    import uvicorn  # noqa: PLC0415

    if workers > 1:
        uvicorn.run("tests.asgi.app:app", port=port, workers=workers)
    else:
        asyncio.run(uvicorn.Server(uvicorn.Config("tests.asgi.app:app", port=port)).serve())


if __name__ == "__main__":
    main()
