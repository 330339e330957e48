"""What each server's start brings to the log: what was given and does not hold, and no more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.asgi.expected import AT_START
from tests.asgi.servers import ASGI, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.asgi.servers import Running

pytestmark = pytest.mark.slow

#: How each server writes a warning.
WARNING = re.compile(r"WARNING\s+(?:ws_middleware\.settings )?(.*)")


def warnings(server: Running) -> list[str]:
    return [found[1] for line in server.log.splitlines() if (found := WARNING.search(line))]


def check(server: Running, *beginnings: str) -> None:
    """See that these warnings are there, each once, and no other."""
    with server.connect("/ws/echo") as client:  # which brings none of its own
        client.send("x")
        assert client.recv(10) == "x"
    found = warnings(server)
    assert len(found) == len(beginnings), found
    for each, beginning in zip(found, beginnings, strict=True):
        assert each.startswith(beginning)


@pytest.mark.parametrize("name", ASGI)
def test_only_what_the_app_asks_for_in_vain_is_said(name: str, tmp_path: Path) -> None:
    with run(name, tmp_path) as server:
        check(server, *AT_START.get(name, ()))


HEARTBEAT = {"WSM_HEARTBEAT_INTERVAL": "7", "WSM_HEARTBEAT_TIMEOUT": "5"}
SAID = "Heartbeat(interval=7, timeout=5) (WSM_HEARTBEAT_INTERVAL, WSM_HEARTBEAT_TIMEOUT)"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("uvicorn sansio", "--ws-ping-interval 7 --ws-ping-timeout 5"),
        ("uvicorn wsproto", "--ws-ping-interval 7 --ws-ping-timeout 5"),
        ("gunicorn uvicorn", None),
        ("uvicorn ours", ""),
        ("daphne", "--ping-interval 7 --ping-timeout 5"),
    ],
)
def test_a_heartbeat_is_the_servers_until_it_is_told(
    name: str, options: str | None, tmp_path: Path
) -> None:
    always = AT_START.get(name, ())
    with run(name, tmp_path, environ=HEARTBEAT) as server:
        check(server, *always, *([] if options == "" else [f"{SAID} does not hold on "]))
        said = options or "--ws-ping-interval 7"
        assert (f"Start it with {said}" in server.log) is (options != "")
    if options:
        (tmp_path / "told").mkdir()
        with run(name, tmp_path / "told", *options.split(), environ=HEARTBEAT) as server:
            check(server, *always)


def test_the_head_is_the_wsgi_servers_to_bound(tmp_path: Path) -> None:
    bound = {"WSM_SERVER_LIMITS_HEAD_FIELDS": "50"}
    with run("gunicorn gthread", tmp_path, environ=bound) as server:
        check(server, "ServerLimits(head_fields=50) (WSM_SERVER_LIMITS_HEAD_FIELDS) does not hold")
        assert "Start it with --limit-request-fields 50" in server.log
    told = ("--limit-request-fields", "50")
    (tmp_path / "told").mkdir()
    with run("gunicorn gthread", tmp_path / "told", *told, environ=bound) as server:
        check(server)


def test_on_a_port_of_our_own_it_is_ours(tmp_path: Path) -> None:
    bound = {"WSM_SERVER_LIMITS_HEAD_FIELDS": "50", **HEARTBEAT}
    with run("own port", tmp_path, environ=bound) as server:
        check(server)
