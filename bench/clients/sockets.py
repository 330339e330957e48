"""WebSockets held in a process of its own: orders are JSON lines on stdin, answers on stdout.

    {"do": "open", "count": 1000, "at_once": 40, "timeout": 10}
                                 -> {"opened": 1000, "failed": 0, "ms": [...]}
    {"do": "send", "rate": 400}  -> {}       text frames a second, to one socket after the other
    {"do": "rest"}               -> {}       no more of them
    {"do": "report"}             -> {"open": 1000, "received": 123, "sent": 456}
    {"do": "watch"}              -> {}       from now on, note when all sockets had one more each
    {"do": "seen_by_all"}        -> {"at": [...]}     when that was, as time.perf_counter has it
    {"do": "close"}              -> {}       closing handshakes, and the end of the connections

The frames are made by hand (RFC 6455 section 5.2): a client library would cost more than the
server that is measured. With `--socketio` they carry as much of Engine.IO 4 and Socket.IO 5 as it
takes to be connected.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import os
import sys
import time
from typing import Any, Final, cast

#: A masked client frame whose mask is zero, so that its payload stays as it is.
_ZERO: Final = b"\x00\x00\x00\x00"
_MESSAGE: Final = bytes([0x81, 0x80 | 32]) + _ZERO + b"x" * 32
_CLOSE: Final = bytes([0x88, 0x82]) + _ZERO + (1000).to_bytes(2, "big")
_CLOSED, _PING = 0x8, 0x9

#: Seconds for all closing handshakes together.
_CLOSING: Final = 10.0
#: Seconds between two looks at which messages are due.
_STEP: Final = 0.002


class Peer(asyncio.Protocol):
    """One socket, from its request to its end."""

    def __init__(self, holder: Holder, request: bytes) -> None:
        self._holder = holder
        self._request = request
        self._buffer = b""
        self._is_open = False
        self.transport: asyncio.Transport
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_open:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if head.split(b" ", 2)[1] != b"101":
                self.transport.abort()
                return
            self._buffer = rest
            self._is_open = True
            self._upgraded()
        self._read_frames()

    def _upgraded(self) -> None:
        self.answered.set_result(None)

    def _read_frames(self) -> None:
        while len(self._buffer) >= 2:
            size, start = self._buffer[1], 2
            if size > 125:
                start += 2 if size == 126 else 8
                size = int.from_bytes(self._buffer[2:start], "big")
            if len(self._buffer) < start + size:
                return
            opcode = self._buffer[0] & 0x0F
            payload = self._buffer[start : start + size]
            self._buffer = self._buffer[start + size :]
            if opcode == _PING:
                self.transport.write(bytes([0x8A, 0x80 | size]) + _ZERO + payload)
            elif opcode == _CLOSED:
                self.transport.close()
            else:
                self._took(payload)

    def _took(self, payload: bytes) -> None:  # noqa: ARG002 - only its coming counts
        self._holder.count()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(exc or ConnectionError("refused"))
        self._holder.peers.pop(self, None)
        self.gone.set_result(None)


class SocketIOPeer(Peer):
    """Connects to the default namespace; what the server emits there are its messages."""

    def _upgraded(self) -> None:
        """Wait for more: the upgrade is not the end of the handshakes."""

    def _took(self, payload: bytes) -> None:
        if payload.startswith(b"42"):  # message, event
            self._holder.count()
        elif payload.startswith(b"0"):  # Engine.IO is open
            self._send(b"40")
        elif payload.startswith(b"40"):  # so is Socket.IO
            self.answered.set_result(None)
        elif payload == b"2":
            self._send(b"3")  # its ping, our pong
        else:
            self.transport.abort()

    def _send(self, packet: bytes) -> None:
        self.transport.write(bytes([0x81, 0x80 | len(packet)]) + _ZERO + packet)


class Holder:
    """All sockets of this process."""

    def __init__(self, port: int, path: str, peer: type[Peer]) -> None:
        self._port = port
        self._path = path
        self._peer = peer
        #: What `received` was when the watch began, and the times at which all had one more.
        self._watched: int | None = None
        self._seen: list[float] = []
        self._sending: asyncio.Task[None] | None = None
        self.peers: dict[Peer, None] = {}
        self.received = 0
        self.sent = 0

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await getattr(self, f"_{order.pop('do')}")(**order)
        return answer

    def _head(self) -> bytes:
        key = base64.b64encode(os.urandom(16)).decode()
        return (
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()

    async def _open(self, count: int, at_once: int, timeout: float) -> dict[str, Any]:
        places = asyncio.Semaphore(at_once)

        async def one() -> float | None:
            async with places:
                return await self._open_one(timeout)

        started = time.perf_counter()
        took = await asyncio.gather(*(one() for _ in range(count)))
        ms = [each for each in took if each is not None]
        seconds = time.perf_counter() - started
        return {"opened": len(ms), "failed": count - len(ms), "ms": ms, "seconds": seconds}

    async def _open_one(self, timeout: float) -> float | None:
        start = time.perf_counter()
        peer = self._peer(self, self._head())
        try:
            async with asyncio.timeout(timeout):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: peer, "127.0.0.1", self._port)
                await peer.answered
        except (OSError, TimeoutError):
            if hasattr(peer, "transport"):
                peer.transport.abort()
            return None
        self.peers[peer] = None
        return (time.perf_counter() - start) * 1000

    async def _send(self, rate: float) -> dict[str, Any]:
        self._sending = asyncio.create_task(self._send_on(rate))
        return {}

    async def _send_on(self, rate: float) -> None:
        peers = itertools.cycle(list(self.peers))
        start, begun = time.perf_counter(), self.sent
        while True:
            due = int((time.perf_counter() - start) * rate)
            for peer in itertools.islice(peers, due - (self.sent - begun)):
                peer.transport.write(_MESSAGE)
                self.sent += 1
            await asyncio.sleep(_STEP)

    async def _rest(self) -> dict[str, Any]:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        return {}

    async def _report(self) -> dict[str, Any]:
        return {"open": len(self.peers), "received": self.received, "sent": self.sent}

    def count(self) -> None:
        """Count a message that has come."""
        self.received += 1
        if self._watched is not None and (self.received - self._watched) % len(self.peers) == 0:
            self._seen.append(time.perf_counter())

    async def _watch(self) -> dict[str, Any]:
        self._watched, self._seen = self.received, []
        return {}

    async def _seen_by_all(self) -> dict[str, Any]:
        return {"at": self._seen}

    async def _close(self) -> dict[str, Any]:
        await self._rest()
        peers = list(self.peers)
        for peer in peers:
            peer.transport.write(_CLOSE)
        if peers:
            await asyncio.wait([peer.gone for peer in peers], timeout=_CLOSING)
        for peer in list(self.peers):
            peer.transport.abort()
        return {}


async def serve_orders(holder: Holder) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await holder.obey(json.loads(line))), flush=True)


def _fast_loop() -> asyncio.AbstractEventLoop:
    """Return a loop that keeps us from being what is measured."""
    try:
        import uvloop  # noqa: PLC0415 - only where there is one
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--socketio", action="store_true")
    args = parser.parse_args()
    peer = SocketIOPeer if args.socketio else Peer
    with asyncio.Runner(loop_factory=_fast_loop) as runner:
        runner.run(serve_orders(Holder(args.port, args.path, peer)))


if __name__ == "__main__":
    main()
