"""What clients see when a server's process ends, as docs/wsgi-servers.md says it."""

from __future__ import annotations

import re
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import jwt
import pytest
from websockets.exceptions import ConnectionClosed

from tests.docs.pages import ROOT, read_tables
from tests.support import head

from .app import KEY
from .conftest import run
from .test_wsgi import refused

if TYPE_CHECKING:
    from pathlib import Path

TABLES = read_tables(ROOT / "docs" / "wsgi-servers.md")

#: Far in the future: 2100.
LATER = 4102444800


def names(cell: str) -> list[str]:
    return re.split(r",\s*", cell.replace("`", ""))


@pytest.mark.parametrize("name", ["gunicorn-sync", "gunicorn-gthread"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_gunicorn_says_restart(tmp_path: Path, name: str, number: signal.Signals) -> None:
    row = TABLES["The end of a process"].by("server", "goodbye (1012)")["gunicorn"]
    assert number.name in names(row["goodbye (1012)"])
    assert end(tmp_path, name, number) == {1012}


@pytest.mark.parametrize("name", ["werkzeug", "waitress", "wsgiref"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1012), (signal.SIGTERM, 1006)])
def test_servers_without_a_handler_end_without_a_word(
    tmp_path: Path, name: str, number: signal.Signals, code: int
) -> None:
    assert end(tmp_path, name, number) == {code}


def end(folder: Path, name: str, number: signal.Signals) -> set[int | None]:
    """Send a signal to a server with three sockets, and return how these were closed."""
    with run(name, folder) as server, ExitStack() as stack:
        headers = server.cookie()
        clients = [stack.enter_context(server.connect("/ws/view", headers)) for _ in range(3)]
        for client in clients:
            client.recv(10)
        with server.peer() as peer:  # wsgiref forgets a signal that comes while it answers
            peer.send(b"GET / HTTP/1.0\r\n\r\n")
            assert peer.read_rest().endswith(b"http")
        server.process.send_signal(number)
        for client in clients:
            with pytest.raises(ConnectionClosed):
                client.recv(10)
        server.process.wait(15)
        return {client.close_code for client in clients}


@pytest.mark.parametrize("name", ["gunicorn", "waitress", "cheroot", "werkzeug", "wsgiref"])
def test_servers_whose_line_shows_a_token_are_named_in_the_docs(tmp_path: Path, name: str) -> None:
    shows = TABLES["Tokens in access logs"].by("server", "its line shows the token")[name]
    token = jwt.encode({"sub": "ann", "exp": LATER}, KEY)
    with run("gunicorn-gthread" if name == "gunicorn" else name, tmp_path) as server:
        with server.peer() as peer:
            peer.send(head(f"/ws/token?token={token}", host=f"127.0.0.1:{server.port}"))
            assert peer.status() == 101
        assert refused(server, "/ws/token?token=nonsense-of-a-token", {})[0] == 401
        if not shows["its line shows the token"].endswith("it writes no line"):
            server.until(lambda: server.log.count("GET /ws/token?token=") == 2)
        in_log = [token in server.log, "nonsense-of-a-token" in server.log]
    assert in_log == [shows["its line shows the token"] == "yes"] * 2
