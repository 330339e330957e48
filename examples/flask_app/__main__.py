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
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    server = make_server(options.host, options.port, create_app(), threaded=True)
    logins = " or ".join(f"{name} / {password}" for name, password in DEMO_USERS.items())
    address = f"http://{options.host}:{server.server_port}/"
    # Printed only now: the port is open, so the address works.
    print(f"Open {address} and log in as {logins} (Ctrl+C stops)", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
