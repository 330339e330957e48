"""The suite of `test_wsgi`, where the server ends TLS itself; and what TLS alone has."""

from __future__ import annotations

import signal
import socket
import ssl
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from tests.certificates import make_certificate
from tests.support import CLOSE, TEXT, close_frame, frame, head

from .conftest import run
from .test_wsgi import (
    refused,
    test_a_bad_upgrade_is_told,
    test_a_frame_in_the_packet_of_the_request_is_answered,
    test_a_view_may_own_its_socket,
    test_an_upgrade_is_one_line_of_the_access_log,
    test_idle_sockets_hold_no_thread_and_leave_no_descriptor,
    test_refusals_are_plain_http,
    test_text_a_large_message_and_http_beside_it,
    test_the_apps_own_hook_decides,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from .conftest import Running

__all__ = [
    "test_a_bad_upgrade_is_told",
    "test_a_frame_in_the_packet_of_the_request_is_answered",
    "test_a_view_may_own_its_socket",
    "test_an_upgrade_is_one_line_of_the_access_log",
    "test_idle_sockets_hold_no_thread_and_leave_no_descriptor",
    "test_refusals_are_plain_http",
    "test_text_a_large_message_and_http_beside_it",
    "test_the_apps_own_hook_decides",
]

SERVERS = ["werkzeug", "gunicorn-sync", "gunicorn-gthread", "cheroot", "wsgiref"]


def run_tls(
    name: str, folder: Path, *extra: str, **environ: str
) -> AbstractContextManager[Running]:
    """Run a server that ends TLS itself, with a certificate of its own."""
    made = make_certificate(folder)
    files = [str(made.certificate), str(made.key)]
    if name.startswith("gunicorn"):
        files = ["--certfile", files[0], "--keyfile", files[1]]
    return run(name, folder, *files, *extra, tls=made.client(), **environ)


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with run_tls(request.param, tmp_path_factory.mktemp("tls")) as running:
        yield running
        log = running.log
        assert "Traceback" not in log, log[-3000:]
        assert "ERROR" not in log, log[-3000:]
        assert "ResourceWarning" not in log, log[-3000:]
