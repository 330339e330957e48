"""A WSGI server that nobody knows: its environ has no socket."""

from __future__ import annotations

import io
import socket
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["serve"]


def serve(port: int, app: WSGIApplication) -> None:
    """Answer one request a connection, one connection at a time."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, peer = listener.accept()
            with connection, connection.makefile("rb") as reader:
                connection.sendall(answer(reader, peer[0], app))


def answer(reader: io.BufferedReader, peer: str, app: WSGIApplication) -> bytes:
    method, target, protocol = reader.readline().decode("latin-1").split()
    path, _, query = target.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": protocol,
        "SERVER_SOFTWARE": "Unheard-of/0.1",
        "REMOTE_ADDR": peer,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    while line := reader.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value.strip()
    parts: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
        parts.append("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
        return parts.append

    body = b"".join(app(environ, start_response))
    return b"".join(parts) + body
