"""Run the app on a server without a command of its own: `serve.py NAME PORT [CERTIFICATE KEY]`."""

from __future__ import annotations

import sys

if sys.argv[1] == "gevent-pywsgi-patched":  # before whatever it patches is imported
    from gevent import monkey

    monkey.patch_all()

from pathlib import Path
from wsgiref.simple_server import make_server

from tests.certificates import Certificate
from tests.servers import minimal
from tests.servers.app import app


def main() -> None:
    name, port = sys.argv[1], int(sys.argv[2])
    tls = Certificate(*map(Path, sys.argv[3:])) if sys.argv[3:] else None
    if name in {"werkzeug", "werkzeug-single"}:
        context = tls and (str(tls.certificate), str(tls.key))
        app.run("127.0.0.1", port, threaded=name == "werkzeug", ssl_context=context)
    elif name == "werkzeug-processes":
        app.run("127.0.0.1", port, threaded=False, processes=2)
    elif name == "minimal":
        minimal.serve(port, app)
    elif name == "waitress":
        from waitress import serve  # noqa: PLC0415 - each server is its own import

        serve(app, host="127.0.0.1", port=port, threads=4)
    elif name == "cheroot":
        from cheroot.wsgi import Server  # noqa: PLC0415

        cheroot = Server(("127.0.0.1", port), app, numthreads=4)
        if tls:
            from cheroot.ssl.builtin import BuiltinSSLAdapter  # noqa: PLC0415

            cheroot.ssl_adapter = BuiltinSSLAdapter(str(tls.certificate), str(tls.key))
        cheroot.safe_start()
    elif name.startswith("gevent-pywsgi"):
        from gevent.pywsgi import WSGIServer  # noqa: PLC0415

        WSGIServer(("127.0.0.1", port), app).serve_forever()
    else:
        server = make_server("127.0.0.1", port, app)
        if tls:
            server.socket = tls.server().wrap_socket(server.socket, server_side=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
