"""nginx with TLS before a server, with the very file that the example is deployed with."""

from __future__ import annotations

import ipaddress
import signal
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.browser.support import find_program

from .conftest import ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

__all__ = ["DEPLOY", "Nginx", "edited", "run_nginx"]

DEPLOY = ROOT / "examples" / "flask_app" / "deploy"

#: What a distribution's nginx.conf has around a site's file; all that is written is in the folder.
AROUND = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr info;
events {}
http {
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include site.conf;
}
"""


class Nginx(NamedTuple):
    """An nginx that runs."""

    port: int
    #: Where it sends those who come without TLS from.
    plain_port: int
    folder: Path

    @property
    def origin(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.folder / "cert.pem")

    def connect(
        self,
        path: str,
        headers: dict[str, str],
        *,
        site: str = "",
        origin: str = "",
        source: str = "127.0.0.1",
    ) -> ClientConnection:
        """Connect as a page of `origin` does, and as if `site` were on the default port."""
        site = site or f"localhost:{self.port}"
        client: ClientConnection = connect(
            f"wss://{site}{path}",
            sock=socket.create_connection(("127.0.0.1", self.port), source_address=(source, 0)),
            ssl=self.tls,
            origin=Origin(origin or f"https://{site}"),
            additional_headers=headers,
        )
        return client


def edited(text: str, *edits: tuple[str, str]) -> str:
    """Return the text with each first part replaced by its second; it must be there."""
    for old, new in edits:
        assert old in text, f"not there: {old}"
        text = text.replace(old, new)
    return text


def _make_certificate(folder: Path) -> None:
    """Sign one for ourselves."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [
        x509.DNSName("localhost"),
        x509.DNSName("chat.example.com"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "key.pem").write_bytes(secret)


@contextmanager
def run_nginx(folder: Path, upstream: str, *edits: tuple[str, str]) -> Iterator[Nginx]:
    """Serve the example's site, changed by `edits`, from `upstream`: an address as nginx has it."""
    program = find_program("nginx", "/usr/sbin/nginx")
    folder.mkdir()
    nginx = Nginx(free_port(), free_port(), folder)
    _make_certificate(folder)
    site = edited(
        (DEPLOY / "nginx.conf").read_text(),
        ("server 127.0.0.1:8000;", f"server {upstream};"),
        ("listen 80;", f"listen 127.0.0.1:{nginx.plain_port};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{nginx.port} ssl;"),
        ("/etc/ssl/chat.example.com/fullchain.pem", "cert.pem"),
        ("/etc/ssl/chat.example.com/privkey.pem", "key.pem"),
        *edits,
    )
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(AROUND)
    command = [program, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        _wait_until_up(nginx, process)
        yield nginx
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _wait_until_up(nginx: Nginx, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", nginx.port), 1).close()
        except OSError:
            told = (nginx.folder / "nginx.log").read_text()
            assert process.poll() is None, told
            assert time.monotonic() < end, told
            time.sleep(0.02)
        else:
            return
