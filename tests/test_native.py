"""What gevent patches is patched for good: each of these has an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent

import pytest

from ws_middleware import native

ROOT = Path(__file__).parents[1]


def run(code: str, *, patched: bool = True, before: str = "") -> None:
    """Run a script that asserts, with gevent's patches or with gevent alone."""
    pytest.importorskip("gevent")
    head = "import gevent\n"
    if patched:
        head = "from gevent import monkey; monkey.patch_all()\n" + head
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{before}\n{head}{dedent(code)}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- without gevent ------------------------------------------------------------------------------


def test_an_event_that_was_set_is_not_waited_for() -> None:
    event = native.Event()
    assert not event.is_set()
    event.set()
    event.set()
    assert event.is_set()
    assert event.wait()
    assert event.wait(0)


def test_an_event_that_does_not_come() -> None:
    event = native.Event()
    assert not event.wait(0.01)
    assert not event.wait(-1)


def test_all_who_wait_for_an_event_wake() -> None:
    event = native.Event()
    woken = [threading.Thread(target=event.wait) for _ in range(3)]
    for thread in woken:
        thread.start()
    event.set()
    for thread in woken:
        thread.join(5)
        assert not thread.is_alive()


def test_a_thread_of_ours_has_its_name_and_holds_nobody() -> None:
    seen: list[tuple[str, bool, bool]] = []
    done = native.Event()

    def work() -> None:
        thread = threading.current_thread()
        seen.append((thread.name, thread.daemon, native.is_ours()))
        done.set()

    native.start_thread(work, "ws-test")
    assert done.wait(5)
    assert seen == [("ws-test", True, True)]
    assert not native.is_ours()


def test_connected_sockets() -> None:
    one, other = native.socketpair()
    with one, other:
        one.sendall(b"x")
        assert other.recv(10) == b"x"
        assert not one.get_inheritable()


def test_there_is_no_host_but_gevents() -> None:
    assert not native.is_green()
    assert native.Host.here() is None
    assert not native.can_yield()


# --- with it -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["patched-first", "imported-first"])
def test_the_primitives_are_the_systems_own(order: str) -> None:
    lines = ["from ws_middleware import native", "from gevent import monkey; monkey.patch_all()"]
    first = lines if order == "imported-first" else lines[::-1]
    code = """
    import _thread, socket, threading
    from ws_middleware.net.takeover import native as same
    assert same is native
    assert "gevent" in str(threading.Lock) + str(socket.socket)
    assert "gevent" not in f"{type(native.Lock())} {native.Socket} {type(native.socketpair()[0])}"
    assert native.get_ident() == monkey.get_original("_thread", "get_ident")()
    assert native.get_ident() != threading.get_ident()
    assert native.is_green()
    """
    run("import warnings; warnings.simplefilter('ignore')\n" + "\n".join(first) + dedent(code),
        patched=False)  # fmt: skip


@pytest.mark.parametrize("patched", [True, False])
def test_greenlets_run_while_one_waits(patched: bool) -> None:  # noqa: FBT001
    code = """
    from ws_middleware import native
    from ws_middleware.receipt import Receipt
    from gevent import monkey
    real_sleep = monkey.get_original("time", "sleep")
    turns = []
    def turn():
        while True:
            turns.append(1)
            gevent.sleep(0.01)
    turning = gevent.spawn(turn)
    gevent.sleep(0)
    receipt = Receipt()
    native.start_thread(lambda: (real_sleep(0.3), receipt.resolve(5)), "t")
    def view():
        assert receipt.result(10) == 5
        assert len(turns) > 3
        try:
            Receipt().result(0.05)
        except TimeoutError:
            return True
    assert gevent.spawn(view).get()
    """
    run(code, patched=patched)


def test_a_hub_makes_no_greenlet_of_a_thread_that_is_none() -> None:
    code = """
    from ws_middleware import native
    gevent.get_hub()
    assert not native.can_yield()
    assert gevent.spawn(native.can_yield).get()
    """
    run(code, patched=False)


def test_one_waits_though_nothing_else_could_wake_its_hub() -> None:
    run("""
    import time
    from gevent import monkey
    from ws_middleware import native
    from ws_middleware.receipt import Receipt
    gevent.get_hub()
    receipt = Receipt()
    sleep = monkey.get_original("time", "sleep")
    native.start_thread(lambda: (sleep(0.1), receipt.resolve(None)), "t")
    receipt.result()  # a LoopExit, if the hub did not know that something is to come
    """)


def test_the_hub_itself_waits_as_a_thread() -> None:
    run("""
    from gevent import monkey
    from ws_middleware import native
    from ws_middleware.receipt import Receipt
    sleep = monkey.get_original("time", "sleep")
    receipt, got = Receipt(), []
    native.start_thread(lambda: (sleep(0.1), receipt.resolve(5)), "t")
    gevent.get_hub().loop.run_callback(lambda: got.append(receipt.result(10)))
    gevent.sleep(0.3)
    assert got == [5]
    """)


def test_many_events_between_threads_and_greenlets() -> None:
    run("""
    from ws_middleware import native
    from ws_middleware.receipt import Receipt
    from collections import deque
    from gevent import monkey
    sleep = monkey.get_original("time", "sleep")
    asked, left = deque(), [800]
    def settle():
        while left[0]:
            try:
                asked.popleft().resolve(7)
                left[0] -= 1
            except IndexError:
                sleep(0)
    native.start_thread(settle, "t")
    def ask():
        for _ in range(100):
            receipt = Receipt()
            asked.append(receipt)
            assert receipt.result(10) == 7
    asking = [gevent.spawn(ask) for _ in range(8)]
    gevent.joinall(asking, raise_error=True, timeout=30)
    assert all(each.successful() for each in asking)
    """)


def test_a_loop_of_another_greenlet_is_no_reason_not_to_wait() -> None:
    run("""
    import asyncio, time
    from ws_middleware import native
    from ws_middleware.receipt import Receipt
    running = gevent.spawn(asyncio.run, asyncio.sleep(0.3))
    gevent.sleep(0.05)
    assert asyncio._get_running_loop() is not None  # in this thread, but not of this greenlet
    receipt = Receipt()
    native.start_thread(lambda: receipt.resolve(5), "t")
    assert receipt.result(10) == 5
    running.get()
    """)


def test_on_our_own_loop_nobody_waits() -> None:
    run("""
    import asyncio, time
    from ws_middleware import native
    from ws_middleware.net.loops import new_loop
    from ws_middleware.receipt import Receipt
    outcome, host = Receipt(), native.Host.here()
    def work():
        async def wait():
            time.sleep(0.01)  # patched: now this thread has a hub, too
            Receipt().result(10)
        loop = new_loop(host)
        try:
            loop.run_until_complete(wait())
        except RuntimeError as error:
            outcome.resolve(str(error))
        finally:
            loop.close()
    native.start_thread(work, "t")
    assert "await the receipt" in outcome.result(10)
    """)


def test_a_thread_leaves_no_descriptors_of_a_hub() -> None:
    run("""
    import os, time
    from ws_middleware import native
    gevent.sleep(0)
    def count():
        return len(os.listdir("/proc/self/fd"))
    before = count()
    started = native.Event()
    native.start_thread(lambda: (time.sleep(0.01), started.set()), "t")
    assert started.wait(10)
    for _ in range(200):
        if count() == before:
            break
        gevent.sleep(0.01)
    assert count() == before, count()
    """)


def test_a_log_line_of_our_thread_waits_for_no_lock() -> None:
    run("""
    import logging
    from gevent import monkey
    from ws_middleware import native
    from ws_middleware.net.logs import relay
    lines = []
    class Handler(logging.Handler):
        def emit(self, record):
            lines.append((record.getMessage(), native.is_ours()))
    handler = Handler()
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    log, asyncios = logging.getLogger("ws_middleware.test"), logging.getLogger("asyncio")
    filtered = []
    log.addFilter(lambda record: filtered.append(native.is_ours()) is None)
    relay(native.Host.here())
    relay(native.Host.here())
    said = native.Event()
    def talk():
        log.info("from %s", "us")
        asyncios.info("from its loop")
        said.set()
    native.start_thread(talk, "t")
    sleep = monkey.get_original("time", "sleep")
    with handler.lock:  # by a greenlet, which does not yield
        for _ in range(1000):
            if said.is_set():
                break
            sleep(0.01)
        assert said.is_set()
    gevent.sleep(0.1)
    log.info("from a greenlet")
    told = ["from us", "from its loop", "from a greenlet"]
    assert lines == [(each, False) for each in told], lines
    assert filtered == [False, False], filtered
    """)


def test_calls_in_the_executor_run_in_the_host() -> None:
    run("""
    import asyncio, threading
    from concurrent.futures import ThreadPoolExecutor
    from ws_middleware import native
    from ws_middleware.net.loops import new_loop
    from ws_middleware.receipt import Receipt
    main, host, outcome = native.get_ident(), native.Host.here(), Receipt()
    one = ThreadPoolExecutor(1)  # as asgiref's, whose calls share connections
    class Fault(Exception): pass
    def fail(error):
        raise error
    async def ask():
        assert await asyncio.to_thread(native.get_ident) == main
        run = asyncio.get_running_loop().run_in_executor
        assert {await run(one, native.get_ident), await run(one, native.get_ident)} == {main}
        assert await run(one, threading.get_ident) == await run(one, threading.get_ident)
        for error, seen in [(Fault(), Fault), (SystemExit(), RuntimeError)]:
            try:
                await asyncio.to_thread(fail, error)
            except seen:
                continue
            raise AssertionError
        try:
            await asyncio.wait_for(asyncio.to_thread(gevent.sleep, 0.2), 0.05)
        except TimeoutError:
            return "done"
    def work():
        loop = new_loop(host)
        try:
            outcome.resolve(loop.run_until_complete(ask()))
        except BaseException as error:
            outcome.fail(error)
        finally:
            loop.close()
    native.start_thread(work, "t")
    assert outcome.result(20) == "done"
    gevent.sleep(0.3)  # the call that nobody waits for ends on a loop that is closed
    """)


@pytest.mark.parametrize("order", ["uvloop first", "gevent first"])
def test_a_connection_of_uvloop_is_closed_once(order: str) -> None:
    pytest.importorskip("uvloop")
    run(
        """
        import asyncio
        from ws_middleware.native import Host, Socket, socketpair, start_thread
        from ws_middleware.net.loops import new_loop
        from ws_middleware.receipt import Receipt

        closed = []

        class Watched(Socket):
            def _real_close(self):
                closed.append(self.fileno())
                Socket._real_close(self)

        async def serve(sock):
            loop = asyncio.get_running_loop()
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock)
            transport.write(b"x")
            transport.close()
            assert await reader.read() == b""

        def work():
            loop = new_loop(host)
            try:
                loop.run_until_complete(serve(ours))
                done.resolve(None)
            except BaseException as error:
                done.fail(error)
            finally:
                loop.close()

        host, done = Host.here(), Receipt()
        one, other = socketpair()
        ours = Watched(fileno=one.detach())
        ours.setblocking(False)
        start_thread(work, "loop")
        done.result(10)
        assert ours.fileno() == -1
        assert closed == [], closed
        assert other.recv(10) + other.recv(10) == b"x"
        other.close()
        """,
        before="import uvloop" if order == "uvloop first" else "",
    )
