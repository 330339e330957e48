"""What the attacks share: peers with bad manners, and the server that they attack."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import re
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Self, cast

import psutil

from tests.support import CLOSE, PING, TEXT, Frame, RawPeer, close_frame, frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from .server import Report

__all__ = [
    "ACROSS",
    "FACTOR",
    "KIB",
    "LOOPS",
    "MIB",
    "PROMPT",
    "TICK",
    "LateError",
    "Latencies",
    "Memory",
    "Peer",
    "Target",
    "answer_of",
    "both_loops",
    "crowding",
    "in_parallel",
    "wait_until",
]

ROOT = Path(__file__).parents[2]

KIB = 1024
MIB = 1024**2

LOOPS = ("asyncio", "uvloop")

#: The server's deadlines fall into ticks of this many seconds: at most one late.
TICK = 0.25

#: A machine that runs tests runs other things too: what it may add to a deadline, in seconds.
ACROSS = 1.0

#: No peer may delay another by more than 100 ms. The median must hold as it is; the worst of 19
#: in 20 may be so many times worse where cores are shared, and both are stretched by `crowding`.
PROMPT = 0.1
FACTOR = 4.0

#: Linux's option under which close() tells the other side nothing; Python has no name for it.
_TCP_REPAIR = 19

#: Echoes that an attack's effect on others is measured by, at the least.
_FEWEST = 10

#: Counts that say that somebody is connected.
_BUSY = (
    "sockets",
    "registered",
    "addresses",
    "timed",
    "undecided",
    "admitted",
    "users",
    "served",
    "tasks",
    "handlers",
)


def crowding() -> float:
    """Return how many processes want each core of this machine, at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def wait_until(true: Callable[[], bool], timeout: float) -> float:
    """Wait until it is `true` and return how long that took, or fail."""
    start = time.monotonic()
    while not true():
        waited = time.monotonic() - start
        assert waited < timeout, f"not so after {waited:.2f} s"
        time.sleep(0.02)
    return time.monotonic() - start


def in_parallel(*attacks: Callable[[], object]) -> None:
    """Run the attacks at the same time, and raise what the first of them raised."""
    with ThreadPoolExecutor(len(attacks)) as pool:
        for done in [pool.submit(attack) for attack in attacks]:
            done.result()


def both_loops(configuration: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test that mostly waits on a server of each loop, at the same time."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        given = list(inspect.signature(test).parameters.values())[1:]
        attack_ = inspect.Parameter("attack", inspect.Parameter.POSITIONAL_OR_KEYWORD)

        @functools.wraps(test)
        def on_both(attack: Callable[[str, str], Target], **others: object) -> None:
            targets = [attack(configuration, loop) for loop in LOOPS]
            in_parallel(*(functools.partial(test, target, **others) for target in targets))

        # What pytest reads to know which fixtures to give.
        on_both.__signature__ = inspect.Signature([attack_, *given])  # type: ignore[attr-defined]
        return on_both

    return decorate


class Peer(RawPeer):
    """A raw peer that can be rude."""

    def __init__(
        self, address: tuple[str, int], timeout: float = 10.0, *, receive_buffer: int | None = None
    ) -> None:
        # Not `create_connection`: the window is negotiated when the connection is made.
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise
        self._buffer = b""

    def opened(self, path: str) -> Self:
        """Open a WebSocket."""
        answer = self.upgrade(path)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return self

    def reset(self) -> None:
        """Go with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def vanish(self) -> None:
        """Go as by a power cut: nothing tells the other side. Where that needs rights, go silent.

        Its next packet gets a RST, as from a machine that has started anew.
        """
        with contextlib.suppress(PermissionError):
            self.socket.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
            self.socket.close()

    def end(self) -> None:
        """End our half, and stay to listen."""
        self.socket.shutdown(socket.SHUT_WR)

    def send_anyway(self, data: bytes) -> bool:
        """Send until the other side has had enough; whether it has taken all."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def read_close(self) -> int | None:
        """Read on to the close frame and return its code."""
        while (got := self.read_frame()).opcode != CLOSE:
            pass
        return got.close_code

    def read_data(self) -> Frame:
        """Read the next frame that is no ping."""
        while (got := self.read_frame()).opcode == PING:
            pass
        return got

    def echo(self, text: str) -> None:
        """Send a text and see it come back."""
        self.send(frame(TEXT, text.encode()))
        got = self.read_data()
        assert got == Frame(True, TEXT, text.encode()), got  # noqa: FBT003 - the FIN bit

    def is_gone(self) -> bool:
        """Whether the other side has let go: an end or a reset, whatever came before."""
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def leave(self) -> None:
        """Close in good order."""
        self.send(close_frame())
        self.read_close()
        self.read_rest()


def answer_of(peer: Peer) -> int:
    """Return the status of the one answer there is, with an end right behind it."""
    answer = peer.read_head()
    body = peer.read_rest()
    assert re.search(rb"HTTP/1\.\d \d\d\d", body) is None, body
    assert b"connection: close" in answer.lower(), answer
    return int(answer.split()[1])


class Memory:
    """The server's resident memory while it is attacked: where it began, its highest point."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.before = self.peak = 0

    def __enter__(self) -> Self:
        self.before = self.peak = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self._look()

    def _look(self) -> None:
        self.peak = max(self.peak, self._process.memory_info().rss)

    @property
    def growth(self) -> int:
        """Bytes between the two."""
        return self.peak - self.before


class LateError(AssertionError):
    """Somebody was delayed, by the attack or by what else the machine had to do."""


class Latencies:
    """How long another client waits for its echoes meanwhile."""

    def __init__(self, target: Target, path: str = "/echo") -> None:
        self._peer = target.peer(path)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure)
        self._failed: BaseException | None = None
        self.seconds: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._over.set()
        self._thread.join()
        self._peer.socket.close()

    def _measure(self) -> None:
        try:
            while len(self.seconds) < _FEWEST or not self._over.wait(0.02):
                start = time.monotonic()
                self._peer.echo("how long?")
                self.seconds.append(time.monotonic() - start)
        except (AssertionError, EOFError, OSError) as error:
            self._failed = error

    def check(self) -> None:
        """Nobody was delayed; else raise `LateError`, and the attack is looked at once more."""
        if self._failed is not None:
            raise self._failed
        crowd = crowding()
        if median(self.seconds) > PROMPT * crowd or self._nearly_worst > PROMPT * FACTOR * crowd:
            raise LateError(self)

    @property
    def _nearly_worst(self) -> float:
        """The worst of 19 in 20: one in a hundred may be the machine's doing."""
        return sorted(self.seconds)[len(self.seconds) * 19 // 20]

    def __repr__(self) -> str:
        if not self.seconds:
            return "<no echoes>"
        middle, worst = median(self.seconds) * 1000, max(self.seconds) * 1000
        return f"<{len(self.seconds)} echoes, median {middle:.1f} ms, worst {worst:.1f} ms>"


class Target:
    """A server in a process of its own."""

    def __init__(self, log: Path, *options: str) -> None:
        self._log = log
        self._mark = 0
        self._lock = threading.Lock()
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.hostile.server", *options],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                bufsize=1,
                # One arena for each thread of its pools would make its memory depend on chance.
                env=os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "2"},
            )
        line = self._answer(30)
        assert line.strip().isdigit(), f"{line!r}, and in its log: {log.read_text()}"
        self.address = ("127.0.0.1", int(line))
        self.process = psutil.Process(self._process.pid)
        self._warm_up()

    def _answer(self, timeout: float) -> str:
        stdout = cast("IO[str]", self._process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            assert selector.select(timeout), "the server does not answer on its stdin"
        return stdout.readline()

    def _warm_up(self) -> None:
        """Have everything imported, and every pool and arena filled, before anybody measures."""
        for path in ("/echo", "/events", "/auth?delay=0", "/auth-thread?delay=0"):
            for _ in range(8):
                with Peer(self.address).opened(path) as peer:
                    for size in (5, 60 * KIB, 5):
                        peer.echo("x" * size)
                    peer.leave()
        self.wait_idle()

    def peer(self, path: str | None = None, *, receive_buffer: int | None = None) -> Peer:
        """Return a connected peer; with a path, one that has opened a WebSocket there."""
        peer = Peer(self.address, receive_buffer=receive_buffer)
        try:
            return peer if path is None else peer.opened(path)
        except BaseException:
            peer.socket.close()
            raise

    def url(self, path: str) -> str:
        return f"ws://{self.address[0]}:{self.address[1]}{path}"

    # --- what it says of itself --------------------------------------------------------------

    def report(self, *, collect: bool = False) -> Report:
        """Ask what it holds."""
        with self._lock:
            stdin = cast("IO[str]", self._process.stdin)
            stdin.write("collect\n" if collect else "report\n")
            stdin.flush()
            return cast("Report", json.loads(self._answer(10)))

    def memory(self) -> Memory:
        """Watch its memory, from here on."""
        return Memory(self.process)

    @property
    def rss(self) -> int:
        """Its resident memory, in bytes."""
        return int(self.process.memory_info().rss)

    def begin(self) -> None:
        """Start a new page of its log."""
        self._mark = self._log.stat().st_size

    @property
    def log(self) -> str:
        """What it has logged since `begin`."""
        with self._log.open("rb") as log:
            log.seek(self._mark)
            return log.read().decode()

    def wait_idle(self, timeout: float = 10.0) -> float:
        """Wait until all counts are back at zero; return how long that took."""
        start = time.monotonic()
        while busy := {name: n for name, n in self.report().items() if name in _BUSY and n}:
            waited = time.monotonic() - start
            assert waited < timeout, f"after {waited:.2f} s there is still {busy}"
            time.sleep(0.02)
        return time.monotonic() - start

    def check_sound(self) -> None:
        """Nothing was left behind; it still answers, at once; and it logged no traceback."""
        self.wait_idle()
        took = min(self._time_fresh() for _ in range(3))
        assert took < PROMPT * FACTOR * crowding(), f"a fresh client waited {took:.2f} s"
        self.wait_idle()
        for sign in ("Traceback", "ERROR ", "CRITICAL "):
            assert sign not in self.log, self.log[-5000:]

    def _time_fresh(self) -> float:
        """Return how long somebody new waits for an answer."""
        start = time.monotonic()
        with self.peer("/echo") as fresh:
            fresh.echo("are you there?")
            took = time.monotonic() - start
            fresh.leave()
        return took

    def stop(self) -> None:
        """End it as its own rules say."""
        try:
            cast("IO[str]", self._process.stdin).close()
            assert self._process.wait(15) == 0, self._log.read_text()[-5000:]
        finally:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            cast("IO[str]", stream).close()
