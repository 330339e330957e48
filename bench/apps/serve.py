"""Run the app on a server that has no command of its own: `serve.py NAME PORT`."""

from __future__ import annotations

import logging
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

from .ours import app


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        """Write no line for each request: the other servers don't either."""


def main() -> None:
    name, port = sys.argv[1], int(sys.argv[2])
    if name == "werkzeug":
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        app.run("127.0.0.1", port, threaded=True)
    elif name == "waitress":
        from waitress import serve  # noqa: PLC0415 - each server is its own import

        serve(app, host="127.0.0.1", port=port, threads=4)
    elif name == "cheroot":
        from cheroot.wsgi import Server  # noqa: PLC0415

        Server(("127.0.0.1", port), app, numthreads=4).start()
    elif name == "wsgiref":
        make_server("127.0.0.1", port, app, handler_class=_Quiet).serve_forever()
    else:
        sys.exit(f"no server is called {name}")


if __name__ == "__main__":
    main()
