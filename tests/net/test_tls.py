from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import ssl
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from tests.certificates import Certificate, make_certificate
from ws_middleware.net.takeover import Found, take
from ws_middleware.net.takeover_tls import TLSConnection
from ws_middleware.net.tls import TLSTransport

from .tls_pairs import TLSPair, make_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ws_middleware.net.takeover import Taken


class Protocol(asyncio.BufferedProtocol):
    """Notes what it is told; `on_data` is called with what came."""

    def __init__(self, size: int = 65536) -> None:
        self.buffer = bytearray(size)
        self.received = bytearray()
        self.sizes: list[int] = []
        self.told: list[str] = []
        self.lost: list[Exception | None] = []
        self.stays_after_eof = True
        self.on_data: Callable[[], object] = lambda: None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self.buffer[:nbytes]
        self.sizes.append(nbytes)
        self.on_data()

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.stays_after_eof

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class Scene:
    """A transport on a loop, its protocol, and the peer, all in this thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pair: TLSPair, taken: Taken) -> None:
        assert isinstance(taken.connection, TLSConnection)
        self.loop = loop
        self.pair = pair
        self.connection = taken.connection
        self.sink = taken.sink
        self.protocol = Protocol()
        self.transport = TLSTransport(loop, self.connection, self.protocol)

    def turn(self, times: int = 3) -> None:
        """Let everything happen that can happen without us."""

        async def pass_by() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(pass_by())

    def until(self, done: Callable[[], object]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(5):
                while not done():  # noqa: ASYNC110 - the peer is no part of the loop
                    await asyncio.sleep(0.001)

        self.loop.run_until_complete(wait())

    def has(self, size: int) -> bool:
        """Whether so much has come."""
        return len(self.protocol.received) == size

    def feed(self, data: bytes) -> None:
        """Send all of it from the peer."""
        sent = 0

        def is_sent() -> bool:
            nonlocal sent
            sent += self.pair.feed(data[sent:])
            return sent == len(data)

        self.until(is_sent)

    def read(self, size: int) -> bytes:
        """Read so many bytes at the peer."""
        data = bytearray()

        def is_there() -> bool:
            with contextlib.suppress(ssl.SSLWantReadError):
                data.extend(self.pair.read())
            return len(data) >= size

        self.until(is_there)
        return bytes(data)

    def read_end(self) -> str:
        """How the stream ends at the peer: "closed", or "cut" without a close_notify."""
        found: list[str] = []

        def has_ended() -> bool:
            try:
                if self.pair.read() == b"":
                    found.append("closed")
            except ssl.SSLEOFError:
                found.append("cut")
            except ssl.SSLWantReadError:
                pass
            return bool(found)

        self.until(has_ended)
        return found[0]

    def finish(self) -> None:
        self.transport.abort()
        self.until(lambda: self.protocol.lost)
        assert len(self.protocol.lost) == 1
        self.turn()
        assert self.connection.fileno() == -1
        self.pair.server.close()
        self.sink.close()
        self.pair.client.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    made = request.param()
    yield made
    made.close()


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def pair(request: pytest.FixtureRequest, certificate: Certificate) -> TLSPair:
    return make_pair(certificate, version=request.param)


@pytest.fixture
def scene(loop: asyncio.AbstractEventLoop, pair: TLSPair) -> Iterator[Scene]:
    made = Scene(loop, pair, take(Found("test", pair.server, bytes)))
    made.transport.start()
    yield made
    made.finish()


LARGE = bytes(range(256)) * 8000


# --- reading -------------------------------------------------------------------------------------


def test_what_is_known_of_it(scene: Scene) -> None:
    transport, protocol = scene.transport, scene.protocol
    assert protocol.transport is transport
    assert transport.get_protocol() is protocol
    assert transport.get_extra_info("socket").fileno() == scene.connection.fileno()
    assert transport.get_extra_info("peername") == ""  # of a socket pair
    assert transport.get_extra_info("cipher") is None
    assert not transport.is_closing()
    other = Protocol()
    transport.set_protocol(other)
    scene.pair.feed(b"x")
    scene.until(lambda: other.received)
    transport.set_protocol(protocol)


def test_byte_by_byte(scene: Scene) -> None:
    for number in range(100):
        scene.pair.feed(bytes([number]))
    scene.until(lambda: len(scene.protocol.received) == 100)
    assert scene.protocol.received == bytes(range(100))


def test_two_megabytes(scene: Scene) -> None:
    scene.feed(LARGE)
    scene.until(lambda: len(scene.protocol.received) == len(LARGE))
    assert scene.protocol.received == LARGE


def test_what_the_server_left_inside_openssl_comes_first(
    loop: asyncio.AbstractEventLoop, pair: TLSPair
) -> None:
    pair.feed(b"head" + b"early")
    assert pair.server.recv(4) == b"head"
    scene = Scene(loop, pair, take(Found("test", pair.server, bytes)))
    scene.transport.start()
    scene.until(lambda: scene.protocol.received)
    assert scene.protocol.received == b"early"
    scene.pair.feed(b"late")
    scene.until(lambda: scene.protocol.received == b"earlylate")
    scene.finish()


def test_a_turn_takes_a_buffer_and_no_more(loop: asyncio.AbstractEventLoop, pair: TLSPair) -> None:
    scene = Scene(loop, pair, take(Found("test", pair.server, bytes)))
    scene.protocol.buffer = bytearray(1000)
    turns: list[int] = []
    scene.protocol.on_data = lambda: loop.call_soon(turns.append, len(scene.protocol.sizes))
    scene.pair.feed(b"x" * 16384 * 2)
    scene.transport.start()
    scene.until(lambda: len(scene.protocol.received) == 16384 * 2)
    scene.turn()
    # The others on the loop had their turn after each buffer.
    assert turns == list(range(1, len(turns) + 1))
    assert max(scene.protocol.sizes) == 1000
    scene.finish()


def test_records_that_are_there_come_in_one_piece(
    loop: asyncio.AbstractEventLoop, pair: TLSPair
) -> None:
    scene = Scene(loop, pair, take(Found("test", pair.server, bytes)))
    scene.pair.feed(b"x" * 16384 * 3)
    scene.transport.start()
    scene.until(lambda: scene.protocol.received)
    assert scene.protocol.sizes == [16384 * 3]
    scene.finish()


def test_paused_nothing_comes_and_resumed_all_of_it(scene: Scene) -> None:
    scene.protocol.buffer = bytearray(10)
    scene.protocol.on_data = scene.transport.pause_reading
    scene.pair.feed(b"0123456789" * 3)
    scene.until(lambda: scene.protocol.received)
    assert not scene.transport.is_reading()
    scene.turn(20)
    assert scene.protocol.sizes == [10]
    for size in (20, 30):  # they are inside OpenSSL, and the descriptor knows nothing of them
        scene.transport.resume_reading()
        scene.until(partial(scene.has, size))
    scene.protocol.on_data = lambda: None
    scene.transport.resume_reading()
    scene.transport.resume_reading()
    assert scene.transport.is_reading()
    scene.pair.feed(b"more")
    scene.until(lambda: scene.protocol.received.endswith(b"more"))


# --- ends ----------------------------------------------------------------------------------------


def end_of(pair: TLSPair, kind: str) -> None:
    if kind == "close_notify":
        with contextlib.suppress(ssl.SSLWantReadError):
            pair.client.unwrap()
    else:
        socket.socket.shutdown(pair.client, socket.SHUT_WR)


@pytest.mark.parametrize("kind", ["close_notify", "bare"])
@pytest.mark.parametrize("suppress", [True, False])
def test_both_kinds_of_end_are_an_end(
    loop: asyncio.AbstractEventLoop,
    certificate: Certificate,
    kind: str,
    suppress: bool,  # noqa: FBT001
) -> None:
    pair = make_pair(certificate, suppress_ragged_eofs=suppress)
    scene = Scene(loop, pair, take(Found("test", pair.server, bytes)))
    scene.transport.start()
    scene.pair.feed(b"last words")
    end_of(pair, kind)
    scene.until(lambda: scene.protocol.told)
    scene.turn(20)
    assert scene.protocol.received == b"last words"
    assert scene.protocol.told == ["eof"]
    assert scene.protocol.lost == []
    assert not scene.transport.is_reading()
    scene.transport.close()
    scene.until(lambda: scene.protocol.lost)
    assert scene.protocol.lost == [None]
    scene.finish()


def test_after_a_close_notify_we_may_still_write(scene: Scene) -> None:
    end_of(scene.pair, "close_notify")
    scene.until(lambda: scene.protocol.told)
    scene.transport.write(b"answer")
    scene.transport.close()
    assert scene.pair.client.read(100) == b"answer"
    scene.until(lambda: scene.protocol.lost)


def test_after_a_bare_end_a_write_ends_it(scene: Scene) -> None:
    end_of(scene.pair, "bare")
    scene.until(lambda: scene.protocol.told)
    scene.transport.write(b"answer")
    scene.until(lambda: scene.protocol.lost)
    assert isinstance(scene.protocol.lost[0], OSError)


def test_a_protocol_that_does_not_stay_is_closed(scene: Scene) -> None:
    scene.protocol.stays_after_eof = False
    end_of(scene.pair, "close_notify")
    scene.until(lambda: scene.protocol.lost)
    assert (scene.protocol.told, scene.protocol.lost) == (["eof"], [None])


def test_an_end_while_paused_is_told_when_reading_goes_on(scene: Scene) -> None:
    scene.protocol.on_data = scene.transport.pause_reading
    scene.pair.feed(b"x")
    end_of(scene.pair, "close_notify")
    scene.until(lambda: scene.protocol.received)
    scene.turn(20)
    assert scene.protocol.told == []
    scene.transport.resume_reading()
    scene.until(lambda: scene.protocol.told)
    assert scene.protocol.told == ["eof"]


def test_garbage_is_an_end_without_a_log(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.pair.feed(b"good")
    os.write(scene.pair.client.fileno(), b"not TLS at all, and longer than a header")
    with caplog.at_level(logging.DEBUG):
        scene.until(lambda: scene.protocol.lost)
    assert isinstance(scene.protocol.lost[0], ssl.SSLError)
    assert scene.protocol.received == b"good"
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_a_reset_is_an_end(loop: asyncio.AbstractEventLoop, certificate: Certificate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, address = listener.accept()
    pair = make_pair(certificate, (server, client))
    scene = Scene(loop, pair, take(Found("test", pair.server, bytes)))
    scene.protocol.stays_after_eof = False
    scene.transport.start()
    assert scene.transport.get_extra_info("peername") == address
    assert pair.server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    scene.turn()
    linger_never = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # so that it resets
    client = pair.client
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_never)
    client.close()
    scene.until(lambda: scene.protocol.lost)
    scene.finish()


def test_a_protocol_that_fails_at_once_is_closed(
    loop: asyncio.AbstractEventLoop, certificate: Certificate
) -> None:
    pair = make_pair(certificate)
    scene = Scene(loop, pair, take(Found("test", pair.server, bytes)))

    def fail(transport: asyncio.BaseTransport) -> None:
        msg = "no"
        raise ValueError(msg)

    scene.protocol.connection_made = fail  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="no"):
        scene.transport.start()
    assert scene.read_end() == "cut"
    scene.finish()


# --- writing -------------------------------------------------------------------------------------


def test_a_peer_that_does_not_read(scene: Scene) -> None:
    transport = scene.transport
    transport.set_write_buffer_limits(high=100_000, low=20_000)
    for start in range(0, len(LARGE), 50_000):
        transport.write(LARGE[start : start + 50_000])
    waiting = transport.get_write_buffer_size()
    assert waiting > 100_000
    assert scene.protocol.told == ["pause"]
    scene.turn(20)
    assert transport.get_write_buffer_size() == waiting
    got = scene.pair.client.recv(16384) + scene.pair.client.recv(16384)
    got += scene.read(300_000)
    scene.until(lambda: transport.get_write_buffer_size() < waiting)  # what goes is seen to go
    got += scene.read(len(LARGE) - len(got))
    assert got == LARGE
    assert scene.protocol.told == ["pause", "resume"]
    assert transport.get_write_buffer_size() == 0
    scene.pair.feed(b"x")
    scene.until(lambda: scene.protocol.received)


def test_what_is_written_while_told_to_resume_comes_behind(scene: Scene) -> None:
    def more() -> None:
        scene.protocol.told.append("resume")
        scene.transport.write(b"the end")

    scene.protocol.resume_writing = more  # type: ignore[method-assign]
    scene.transport.write(LARGE)
    assert scene.read(len(LARGE) + 7) == LARGE + b"the end"
    assert scene.protocol.told == ["pause", "resume"]


def test_nothing_and_views_can_be_written(scene: Scene) -> None:
    scene.transport.write(b"")
    scene.transport.write(memoryview(b"ab"))
    scene.transport.writelines([b"c", bytearray(b"d")])
    assert scene.read(4) == b"abcd"


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ({}, (16_384, 65_536)),
        ({"high": 1000}, (250, 1000)),
        ({"low": 1000}, (1000, 4000)),
        ({"high": 0}, (0, 0)),
    ],
)
def test_limits(certificate: Certificate, given: dict[str, int], limits: tuple[int, int]) -> None:
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        pair = make_pair(certificate)
        scene = Scene(loop, pair, take(Found("test", pair.server, bytes)))
        scene.transport.set_write_buffer_limits(**given)
        assert scene.transport.get_write_buffer_limits() == limits
        with pytest.raises(ValueError, match="high"):
            scene.transport.set_write_buffer_limits(high=1, low=2)
        scene.finish()


def test_a_close_comes_behind_what_was_written(scene: Scene) -> None:
    scene.transport.write(LARGE)
    scene.transport.close()
    scene.transport.close()
    scene.transport.write(b"too late")
    assert scene.transport.is_closing()
    assert scene.protocol.lost == []
    assert scene.read(len(LARGE)) == LARGE
    assert scene.read_end() == "closed"
    scene.until(lambda: scene.protocol.lost)
    assert scene.protocol.lost == [None]


def test_an_abort_is_at_once(scene: Scene) -> None:
    scene.transport.write(LARGE)
    scene.transport.abort()
    scene.transport.abort()
    scene.transport.close()
    assert scene.transport.get_write_buffer_size() == 0
    assert scene.protocol.lost == []  # not from within
    scene.until(lambda: scene.protocol.lost)
    assert scene.protocol.lost == [None]
    assert scene.read_end() == "cut"


@pytest.mark.parametrize("unread", [0, 10, 100_000])
def test_after_our_end_the_peers_words_are_forgotten_and_its_end_is_told(
    scene: Scene, unread: int
) -> None:
    assert scene.transport.can_write_eof()
    scene.protocol.buffer = bytearray(1000)
    scene.protocol.on_data = scene.transport.pause_reading
    scene.pair.feed(b"x" * 5000)
    scene.until(lambda: scene.protocol.received)
    scene.feed(b"u" * unread)
    scene.transport.write(LARGE)
    scene.transport.write_eof()
    scene.transport.write_eof()
    with pytest.raises(RuntimeError, match="after write_eof"):
        scene.transport.write(b"x")
    assert scene.read(len(LARGE)) == LARGE
    scene.transport.resume_reading()
    assert scene.read_end() == "closed"
    scene.feed(b"y" * 200_000)
    scene.turn(20)
    assert scene.protocol.received == b"x" * 1000
    assert scene.protocol.told == ["pause", "resume"]
    assert scene.protocol.lost == []
    scene.pair.client.close()
    scene.until(lambda: "eof" in scene.protocol.told)
    scene.transport.close()
    scene.until(lambda: scene.protocol.lost)
    assert scene.protocol.lost == [None]


# --- key updates, and what no peer can be made to do ----------------------------------------------


class Commanded:
    """The openssl command as a client: it updates its keys when told to."""

    def __init__(self, scene: Scene, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.scene = scene
        self.stdin, self.stdout = process.stdin, process.stdout
        self.output = b""
        os.set_blocking(self.stdout.fileno(), False)

    def type(self, line: bytes) -> None:
        self.stdin.write(line)
        self.stdin.flush()

    def until(self, text: bytes) -> None:
        """Wait for its output; what it reads of us is a part of that."""

        def is_there() -> bool:
            self.output += self.stdout.read() or b""
            return text in self.output

        self.scene.until(is_there)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_key_updates(loop: asyncio.AbstractEventLoop, certificate: Certificate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen(
            ["openssl", "s_client", "-connect", address, "-tls1_3"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        plain = listener.accept()[0]
    server = certificate.server().wrap_socket(plain, server_side=True)
    with (
        process,
        certificate.client().wrap_socket(
            socket.socket(), do_handshake_on_connect=False, server_hostname="127.0.0.1"
        ) as nobody,
    ):
        scene = Scene(loop, TLSPair(server, nobody), take(Found("test", server, bytes)))
        scene.transport.start()
        client = Commanded(scene, process)
        for number in range(3):
            line = b"line %d\n" % number
            client.type(line)
            scene.until(partial(scene.protocol.received.endswith, line))
            scene.transport.write(b"got " + line)
            client.until(b"got " + line)
            client.output = b""
            client.type(b"K\n")  # update the keys, and ask for ours
            client.until(b"KEYUPDATE")
        client.type(b"last\n")
        scene.until(lambda: scene.protocol.received.endswith(b"last\n"))
        scene.transport.write(b"bye\n")
        client.until(b"bye\n")
        assert scene.protocol.lost == []
        scene.transport.close()
        client.until(b"closed")
        client.stdin.close()
        scene.finish()


class Contrary:
    """A connection that wants the other direction first: OpenSSL does that when it renegotiates."""

    def __init__(self, inner: TLSConnection) -> None:
        self.inner = inner
        self.wants: list[type[ssl.SSLError]] = []
        self.tries = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def _want(self) -> None:
        self.tries += 1
        if self.wants:
            raise self.wants.pop(0)


class ContraryReader(Contrary):
    def read_into(self, buffer: memoryview) -> int:
        self._want()
        return self.inner.read_into(buffer)


class ContraryWriter(Contrary):
    def __init__(self, inner: TLSConnection) -> None:
        super().__init__(inner)
        self.tried: list[bytes] = []

    def write(self, data: memoryview) -> int:
        self.tried.append(bytes(data))
        self._want()
        return self.inner.write(data)


def test_a_read_that_has_to_write_first(scene: Scene) -> None:
    scene.turn()
    contrary = ContraryReader(scene.connection)
    scene.transport._connection = contrary  # type: ignore[assignment]
    contrary.wants = [ssl.SSLWantWriteError, ssl.SSLWantWriteError]
    scene.pair.feed(b"x")
    scene.until(lambda: scene.protocol.received)
    assert contrary.tries == 3
    scene.transport.write(b"y")
    assert scene.read(1) == b"y"


def test_a_read_that_has_to_write_first_does_not_spin_where_nothing_can_be_written(
    scene: Scene,
) -> None:
    scene.turn()
    contrary = ContraryReader(scene.connection)
    scene.transport._connection = contrary  # type: ignore[assignment]
    contrary.wants = [ssl.SSLWantWriteError]
    scene.transport.write(LARGE)
    scene.pair.feed(b"x")
    scene.until(lambda: contrary.tries)
    scene.turn(20)
    assert contrary.tries == 1  # the descriptor is readable, and nobody asks it
    assert scene.read(len(LARGE)) == LARGE
    scene.until(lambda: scene.protocol.received)


def test_what_was_begun_is_tried_again_as_it_was(scene: Scene) -> None:
    contrary = ContraryWriter(scene.connection)
    scene.transport._connection = contrary  # type: ignore[assignment]
    contrary.wants = [ssl.SSLWantWriteError]
    scene.transport.write(b"begun")
    scene.transport.write(b" and more")
    assert scene.read(14) == b"begun and more"
    assert contrary.tried == [b"begun", b"begun", b" and more"]


def test_a_write_that_has_to_read_first_waits_for_a_read(scene: Scene) -> None:
    scene.turn()
    contrary = ContraryWriter(scene.connection)
    scene.transport._connection = contrary  # type: ignore[assignment]
    contrary.wants = [ssl.SSLWantReadError]
    scene.transport.write(b"y")
    scene.transport.write(b"z")
    scene.turn(20)
    assert contrary.tries == 1  # the descriptor is writable, and nobody asks it
    scene.pair.feed(b"x")
    assert scene.read(2) == b"yz"
    assert scene.protocol.received == b"x"
