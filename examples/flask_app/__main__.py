"""Run the demo: python -m examples.flask_app [--host 127.0.0.1] [--port 5000]."""

from __future__ import annotations

import argparse
import logging

from werkzeug.serving import make_server

from . import create_app
from .db import DEMO_USERS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.flask_app")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--ws-port", type=int, default=8001)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    # The port first: the app is told the origins of its pages.
    server = make_server(options.host, options.port, lambda *call: app(*call), threaded=True)  # noqa: PLW0108
    origins = [f"http://{name}:{server.server_port}" for name in (options.host, "localhost")]
    app = create_app({"ORIGINS": origins})
    app.config["WS_PORT"] = app.extensions["websockets"].listen(options.host, options.ws_port)[1]
    logins = " or ".join(f"{name} / {password}" for name, password in DEMO_USERS.items())
    address = f"http://{options.host}:{server.server_port}/"
    # Printed only now: the port is open, so the address works.
    print(f"Open {address} and log in as {logins} (Ctrl+C stops)", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
