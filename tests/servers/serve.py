"""Run the app on one of the servers that have no command of their own: `serve.py NAME PORT`."""

from __future__ import annotations

import sys
from wsgiref.simple_server import make_server

from tests.servers.app import app


def main() -> None:
    name, port = sys.argv[1], int(sys.argv[2])
    if name in {"werkzeug", "werkzeug-single"}:
        app.run("127.0.0.1", port, threaded=name == "werkzeug")
    elif name == "waitress":
        from waitress import serve  # noqa: PLC0415 - each server is its own import

        serve(app, host="127.0.0.1", port=port, threads=4)
    elif name == "cheroot":
        from cheroot.wsgi import Server  # noqa: PLC0415

        Server(("127.0.0.1", port), app, numthreads=4).start()
    else:
        make_server("127.0.0.1", port, app).serve_forever()


if __name__ == "__main__":
    main()
