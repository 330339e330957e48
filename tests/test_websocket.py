"""What a handler holds: each sentence that the design has about `ws`, over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import socket
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed as PeerSawClose

from tests.clients.python import connect, end_of, until
from tests.support import BINARY, CLOSE, TEXT, close_frame, frame
from ws_middleware import (
    Anonymous,
    BadMessage,
    ConnectionClosed,
    Limits,
    MessageTooBig,
    Receipt,
    Route,
    TooManyRooms,
    WebSocket,
    WebSockets,
)
from ws_middleware.net import serving
from ws_middleware.net.grace import GRACE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from websockets.sync.client import ClientConnection

    from tests.conftest import Served

    Serve = Callable[[WebSockets], Served]
    Script = Callable[[WebSocket], Awaitable[Any]]


@contextlib.contextmanager
def conversation(
    serve: Serve, script: Script, **policy: Any
) -> Iterator[tuple[ClientConnection, Future[Any]]]:
    """Run `script` as the handler of a client's socket; its outcome comes as a future."""
    outcome: Future[Any] = Future()
    sockets = WebSockets(auth=Anonymous(), **policy)

    @sockets.route("/")
    async def handler(ws: WebSocket) -> None:
        try:
            outcome.set_result(await script(ws))
        except BaseException as error:
            outcome.set_exception(error)
            raise

    with connect(serve(sockets)) as client:
        yield client, outcome


def push_only(serve: Serve, **policy: Any) -> tuple[Served, Route]:
    sockets = WebSockets(auth=Anonymous(), **policy)
    route = sockets.route("/")
    return serve(sockets), route


def the_one(route: Route) -> WebSocket:
    """Return the only socket of a route: it is there before its client has the 101."""
    (websocket,) = route.everyone.local()
    return websocket


# --- what it is ----------------------------------------------------------------------------------


def test_it_knows_its_route_request_user_and_parameters(serve: Serve) -> None:
    sockets = WebSockets(auth=lambda request: request.query.get("user"))
    route = sockets.route("/ws/<int:number>/<word>", subprotocols=["chat.v2", "chat.v1"])
    served = serve(sockets)
    with connect(served, "/ws/7/x%20y?user=ann", subprotocols=["chat.v1", "chat.v2"]) as client:
        ws = the_one(route)
        assert ws.user.id == "ann"
        assert ws.user.is_authenticated
        assert ws.path_params == {"number": 7, "word": "x y"}
        assert ws.request.path == "/ws/7/x y"
        assert ws.request.host == f"{served.address[0]}:{served.address[1]}"
        assert ws.request.path_params == ws.path_params
        assert ws.subprotocol == client.subprotocol == "chat.v2"
        assert ws.route is route
        assert ws.rooms == frozenset()
        assert ws.latency is None
        assert (ws.closed, ws.close_code, ws.close_reason) == (False, None, "")
        assert repr(ws) == f"<WebSocket {ws.id} /ws/*/* open>"


def test_ids_are_unique_and_begin_with_their_nodes(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served), connect(served):
        first, second = (ws.id for ws in route.everyone.local())
    assert first != second
    assert first.partition("-")[0] == second.partition("-")[0]


def test_it_keeps_the_code_and_the_reason_of_the_peer(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        ws = the_one(route)
        client.close(4001, "bye")
    until(lambda: ws.closed)
    assert (ws.close_code, ws.close_reason) == (4001, "bye")
    assert repr(ws).endswith("closed 4001>")


def test_it_keeps_the_code_and_the_reason_of_our_own(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        ws = the_one(route)
        ws.close(4002, "enough")
        assert end_of(client) == (4002, "enough")
    assert (ws.close_code, ws.close_reason) == (4002, "enough")


def test_a_peer_that_just_goes_is_1006(serve: Serve) -> None:
    served, route = push_only(serve)
    with served.peer() as peer:
        assert peer.upgrade().startswith(b"HTTP/1.1 101")
        ws = the_one(route)
    until(lambda: ws.closed)
    assert ws.close_code == 1006


def test_a_close_frame_without_a_code_is_1005(serve: Serve) -> None:
    served, route = push_only(serve)
    with served.peer() as peer:
        peer.upgrade()
        ws = the_one(route)
        peer.send(close_frame(None))
        assert peer.read_frame().opcode == CLOSE
    until(lambda: ws.closed)
    assert ws.close_code == 1005


def test_a_ping_tells_the_latency(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served):
        ws = the_one(route)
        latency = ws.ping().result(5)
        assert 0 < latency < 5
        assert ws.latency == latency


# --- sending -------------------------------------------------------------------------------------


def test_str_is_text_and_all_kinds_of_bytes_are_binary(serve: Serve) -> None:
    served, route = push_only(serve)
    with served.peer() as peer:
        peer.upgrade()
        ws = the_one(route)
        for message in ("héllo", b"\x00\xff", bytearray(b"a"), memoryview(b"b"), "", b""):
            ws.send(message)  # type: ignore[arg-type] # more is taken than is promised
        got = [(each.opcode, each.payload) for each in (peer.read_frame() for _ in range(6))]
    assert got == [
        (TEXT, "héllo".encode()),
        (BINARY, b"\x00\xff"),
        (BINARY, b"a"),
        (BINARY, b"b"),
        (TEXT, b""),
        (BINARY, b""),
    ]


@pytest.mark.parametrize("wrong", [1, None, {"a": 1}, ["x"]])
def test_another_type_is_a_type_error_at_once(serve: Serve, wrong: Any) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        with pytest.raises(TypeError, match="send_json"):
            the_one(route).send(wrong)
        the_one(route).send("still open")
        assert client.recv(5) == "still open"


def test_a_lone_surrogate_is_a_value_error_at_once_in_any_thread(serve: Serve) -> None:
    async def script(ws: WebSocket) -> None:
        with pytest.raises(ValueError):
            ws.send("\ud800")
        await ws.send("fine")

    with conversation(serve, script) as (client, outcome):
        outcome.result(5)
        assert client.recv(5) == "fine"
    served, route = push_only(serve)
    with connect(served), pytest.raises(ValueError):
        the_one(route).send("\ud800")


def test_send_json_is_compact_text(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        the_one(route).send_json({"a": [1, None], "b": "é"})
        assert client.recv(5) == '{"a":[1,null],"b":"é"}'


def test_what_json_cannot_hold_is_the_callers_fault_at_once(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served):
        with pytest.raises(TypeError):
            the_one(route).send_json(object())
        with pytest.raises(ValueError):
            the_one(route).send_json(float("nan"))
        with pytest.raises(ValueError):
            the_one(route).send_json("\ud800")


def test_a_message_over_outbound_bytes_is_refused_by_name(serve: Serve) -> None:
    served, route = push_only(serve, limits=Limits(outbound_bytes=1000))
    with connect(served) as client:
        ws = the_one(route)
        with pytest.raises(MessageTooBig, match=r"1001 bytes.*outbound_bytes"):
            ws.send(b"x" * 1001)
        with pytest.raises(MessageTooBig, match="1002 bytes"):
            ws.send("é" * 501)
        ws.send("é" * 500)
        assert client.recv(5) == "é" * 500


def test_a_thread_sends_in_its_order_and_gets_receipts(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        ws = the_one(route)

        def work(name: str) -> None:
            for number in range(100):
                ws.send(f"{name}{number}").result(5)

        threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        got = [str(client.recv(5)) for _ in range(300)]
        for thread in threads:
            thread.join()
    for name in "abc":
        assert [each for each in got if each[0] == name] == [f"{name}{i}" for i in range(100)]


def test_a_receipt_can_be_awaited_on_another_loop(serve: Serve) -> None:
    served, route = push_only(serve)

    async def elsewhere(ws: WebSocket) -> float:
        await ws.send("from afar")
        return await ws.ping()

    with connect(served) as client:
        assert asyncio.run(elsewhere(the_one(route))) > 0
        assert client.recv(5) == "from afar"


def test_result_is_refused_on_a_loops_own_thread(serve: Serve) -> None:
    async def script(ws: WebSocket) -> None:
        ws.send("no wait").result()  # ready: nothing to wait for
        with pytest.raises(RuntimeError, match="await the receipt"):
            ws.ping().result(1)

    with conversation(serve, script) as (_, outcome):
        outcome.result(5)


def test_result_gives_up_after_its_timeout(serve: Serve) -> None:
    served, route = push_only(serve)
    with served.peer() as peer:
        peer.upgrade()
        receipt = the_one(route).ping()  # a raw peer answers none
        with pytest.raises(TimeoutError):
            receipt.result(0.05)


def _fill(ws: WebSocket) -> Receipt[None]:
    """Send until something waits; return the receipt that is not resolved."""
    for _ in range(1000):
        receipt = ws.send(b"x" * 32 * 1024)
        try:
            receipt.result(0.2)
        except TimeoutError:
            return receipt
    raise AssertionError


def test_the_receipt_of_a_send_waits_for_a_peer_that_is_behind(serve: Serve) -> None:
    served, route = push_only(serve)
    with served.peer() as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        peer.upgrade()
        receipt = _fill(the_one(route))
        assert not receipt.done
        reader = threading.Thread(target=peer.read_rest)
        reader.start()
        receipt.result(5)
        the_one(route).terminate()
        reader.join(5)


def test_the_receipt_of_a_send_raises_if_the_socket_ends_first(serve: Serve) -> None:
    served, route = push_only(serve)
    with served.peer() as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        peer.upgrade()
        receipt = _fill(the_one(route))
    with pytest.raises(ConnectionClosed) as caught:
        receipt.result(5)
    assert caught.value.code == 1006


def test_waiting_for_receipts_keeps_pace_with_a_slow_peer(serve: Serve) -> None:
    async def script(ws: WebSocket) -> None:
        for _ in range(128):
            await ws.send(b"x" * 32 * 1024)

    outcome: Future[None] = Future()
    sockets = WebSockets(auth=Anonymous(), limits=Limits(outbound_bytes=128 * 1024))

    @sockets.route("/")
    async def handler(ws: WebSocket) -> None:
        await script(ws)
        outcome.set_result(None)

    with serve(sockets).peer() as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        peer.upgrade()
        for number in range(128):
            time.sleep(0.002)
            assert len(peer.read_frame().payload) == 32 * 1024, number
        outcome.result(5)
        assert peer.read_frame().close_code == 1000


def test_not_waiting_for_receipts_of_a_peer_that_is_behind_ends_it(serve: Serve) -> None:
    served, route = push_only(serve, limits=Limits(outbound_bytes=128 * 1024))
    with served.peer() as peer:
        peer.upgrade()
        ws = the_one(route)
        for _ in range(1000):
            ws.send(b"x" * 32 * 1024)
        until(lambda: ws.closed)
        assert (ws.close_code, ws.close_reason) == (1013, "slow_consumer")


def test_sending_on_a_closed_socket_raises_only_at_who_waits(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        ws = the_one(route)
        client.close(4001, "bye")
    until(lambda: ws.closed)
    with pytest.raises(ConnectionClosed) as caught:
        ws.send("x").result(1)
    assert (caught.value.code, caught.value.reason) == (4001, "bye")
    with pytest.raises(ConnectionClosed):
        ws.ping().result(1)
    with pytest.raises(ConnectionClosed):
        asyncio.run(_wait_for(ws.send("x")))
    ws.send("not waited for")
    ws.send_json({})
    ws.ping()
    ws.close().result(5)
    gc.collect()
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


async def _wait_for(receipt: Receipt[None]) -> None:
    await receipt


# --- closing -------------------------------------------------------------------------------------


def test_close_acts_at_once_from_a_thread_and_its_receipt_tells_when(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        ws = the_one(route)
        receipt = ws.close(4000, "now")
        assert end_of(client) == (4000, "now")
    receipt.result(5)
    assert ws.closed


def test_messages_sent_before_a_close_arrive_before_it(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        ws = the_one(route)
        for number in range(100):
            ws.send(str(number))
        ws.close(1000)
        assert [client.recv(5) for _ in range(100)] == [str(number) for number in range(100)]
        with pytest.raises(PeerSawClose):
            client.recv(5)


def test_of_two_closes_the_first_counts(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        ws = the_one(route)
        ws.close(4001, "first")
        ws.close(4002, "second").result(5)
        assert end_of(client) == (4001, "first")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, True])
def test_a_code_that_may_not_be_sent_is_a_value_error_at_once(serve: Serve, code: int) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        with pytest.raises(ValueError, match="close code"):
            the_one(route).close(code)
        the_one(route).send("still open")
        assert client.recv(5) == "still open"


def test_a_reason_that_is_too_long_is_a_value_error_at_once(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        with pytest.raises(ValueError, match="123 bytes"):
            the_one(route).close(1000, "é" * 62)
        the_one(route).close(1000, "é" * 61)
        assert end_of(client) == (1000, "é" * 61)


def test_terminate_drops_the_connection_without_a_close_frame(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        ws = the_one(route)
        ws.terminate()
        assert end_of(client) == (1006, "")
    until(lambda: ws.closed)
    assert ws.close_code == 1006


# --- receiving -----------------------------------------------------------------------------------


def test_receive_gives_text_as_str_and_binary_as_bytes(serve: Serve) -> None:
    async def script(ws: WebSocket) -> list[str | bytes]:
        return [await ws.receive() for _ in range(4)]

    with conversation(serve, script) as (client, outcome):
        for message in ("é", b"\xff", "", b""):
            client.send(message)
        assert outcome.result(5) == ["é", b"\xff", "", b""]


def test_receive_with_a_timeout_loses_nothing(serve: Serve) -> None:
    async def script(ws: WebSocket) -> tuple[list[Any], int]:
        got: list[Any] = []
        timeouts = 0
        while len(got) < 300:
            try:
                got.append(await ws.receive(timeout=0.0005))
            except TimeoutError:
                timeouts += 1
        return got, timeouts

    with conversation(serve, script) as (client, outcome):
        for number in range(300):
            client.send(str(number))
            if number % 20 == 0:
                time.sleep(0.002)
        got, timeouts = outcome.result(10)
    assert got == [str(number) for number in range(300)]
    assert timeouts


def test_a_cancelled_receive_loses_nothing(serve: Serve) -> None:
    async def script(ws: WebSocket) -> str | bytes:
        receiving = asyncio.ensure_future(ws.receive())
        await asyncio.sleep(0)
        receiving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await receiving
        await ws.send("go")
        return await ws.receive(5)

    with conversation(serve, script) as (client, outcome):
        assert client.recv(5) == "go"
        client.send("kept")
        assert outcome.result(5) == "kept"


def test_a_receive_whose_message_another_task_has_taken_waits_for_the_next(serve: Serve) -> None:
    async def script(ws: WebSocket) -> list[str | bytes]:
        receiving = asyncio.ensure_future(ws.receive())
        await asyncio.sleep(0)
        await ws.send("go")
        while not ws.inbox:  # noqa: ASYNC110 - to be the next that runs
            await asyncio.sleep(0)
        assert not receiving.done(), "it is woken, but has not run yet"
        taken = await ws.receive()
        await ws.send("again")
        return [taken, await receiving]

    with conversation(serve, script) as (client, outcome):
        assert client.recv(5) == "go"
        client.send("one")
        assert client.recv(5) == "again"
        client.send("two")
        assert outcome.result(5) == ["one", "two"]


def test_two_receives_at_once_are_refused(serve: Serve) -> None:
    async def script(ws: WebSocket) -> None:
        receiving = asyncio.ensure_future(ws.receive())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await ws.receive()
        receiving.cancel()

    with conversation(serve, script) as (_, outcome):
        outcome.result(5)


@pytest.mark.parametrize("waiting", [False, True])
def test_receive_is_refused_off_the_sockets_loop(serve: Serve, waiting: bool) -> None:  # noqa: FBT001
    async def script(ws: WebSocket) -> None:
        if waiting:
            await asyncio.to_thread(until, lambda: ws.inbox)

        def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="socket's own loop"):
                asyncio.run(ws.receive())

        await asyncio.to_thread(elsewhere)

    with conversation(serve, script) as (client, outcome):
        if waiting:
            client.send("x")
        outcome.result(5)


def test_receive_json_gives_what_the_message_holds(serve: Serve) -> None:
    async def script(ws: WebSocket) -> list[Any]:
        return [await ws.receive_json() for _ in range(2)]

    with conversation(serve, script) as (client, outcome):
        client.send('{"a": [1, 2.5, null]}')
        client.send(b'"bytes will do"')
        assert outcome.result(5) == [{"a": [1, 2.5, None]}, "bytes will do"]


BAD_JSON = ["{", "", "NaN", "[-Infinity]", "1e999", "[" * 100_000, b"\xff\xff"]


@pytest.mark.parametrize("message", BAD_JSON, ids=lambda each: repr(each[:8]))
def test_bad_json_unhandled_is_1007_and_no_traceback(
    serve: Serve, caplog: pytest.LogCaptureFixture, message: str | bytes
) -> None:
    async def script(ws: WebSocket) -> None:
        await ws.receive_json()

    caplog.set_level(logging.DEBUG, "ws_middleware")
    with conversation(serve, script) as (client, outcome):
        client.send(message)
        assert end_of(client) == (1007, "bad_message")
        with pytest.raises(BadMessage):
            outcome.result(5)
    until(lambda: "close id=" in caplog.text)
    assert "bad_message" in caplog.text
    assert "Traceback" not in caplog.text
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_bad_json_can_be_handled_and_the_socket_goes_on(serve: Serve) -> None:
    async def script(ws: WebSocket) -> Any:
        with pytest.raises(BadMessage):
            await ws.receive_json()
        return await ws.receive_json()

    with conversation(serve, script) as (client, outcome):
        client.send("no json")
        client.send("1")
        assert outcome.result(5) == 1


@pytest.mark.parametrize("code", [1000, 1001, 4000, None])
def test_iteration_ends_with_the_socket_however_it_ends(serve: Serve, code: int | None) -> None:
    async def script(ws: WebSocket) -> list[str | bytes]:
        return [message async for message in ws]

    with conversation(serve, script) as (client, outcome):
        client.send("a")
        client.send(b"b")
        if code is None:
            until(lambda: client.protocol.writes == [])
            client.socket.shutdown(socket.SHUT_RDWR)
        else:
            client.close(code)
        assert outcome.result(5) == ["a", b"b"]


def test_receiving_on_a_closed_socket_raises_its_code_and_reason(serve: Serve) -> None:
    async def script(ws: WebSocket) -> list[Any]:
        got: list[Any] = []
        for _ in range(3):
            try:
                got.append(await ws.receive())
            except ConnectionClosed as closed:
                got.append((closed.code, closed.reason))
        return got

    with conversation(serve, script) as (client, outcome):
        client.send("last words")
        client.close(4001, "bye")
        assert outcome.result(5) == ["last words", (4001, "bye"), (4001, "bye")]


def test_a_close_from_a_thread_wakes_who_receives(serve: Serve) -> None:
    sockets: Future[WebSocket] = Future()

    async def script(ws: WebSocket) -> tuple[int, str]:
        sockets.set_result(ws)
        with pytest.raises(ConnectionClosed) as caught:
            await ws.receive()
        return caught.value.code, caught.value.reason

    with conversation(serve, script) as (client, outcome):
        sockets.result(5).close(4003, "moved")
        assert outcome.result(5) == (4003, "moved")
        assert end_of(client) == (4003, "moved")


def test_a_connection_closed_that_nobody_catches_is_no_error(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(ws: WebSocket) -> None:
        while True:
            await ws.receive()

    with conversation(serve, script) as (client, outcome):
        client.close()
        with pytest.raises(ConnectionClosed):
            outcome.result(5)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_wait_closed_discards_what_arrives_and_waits_for_the_end(serve: Serve) -> None:
    async def script(ws: WebSocket) -> tuple[bool, int | None]:
        await ws.wait_closed()
        return ws.closed, ws.close_code

    with conversation(serve, script, limits=Limits(inbound_messages=2)) as (client, outcome):
        for _ in range(50):  # more than an inbox holds: they are read all the same
            client.send("ignored")
        assert client.ping().wait(5)
        assert not outcome.done()
        client.close(4001)
        assert outcome.result(5) == (True, 4001)


def test_wait_closed_that_is_given_up_leaves_receive_as_it_was(serve: Serve) -> None:
    async def script(ws: WebSocket) -> str | bytes:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.wait_closed(), 0.05)
        await ws.send("go")
        return await ws.receive(2)

    with conversation(serve, script) as (client, outcome):
        assert client.recv(5) == "go"
        client.send("heard again")
        assert outcome.result(5) == "heard again"


def test_wait_closed_on_a_closed_socket_returns(serve: Serve) -> None:
    async def script(ws: WebSocket) -> bool:
        await ws.wait_closed()
        await ws.wait_closed()
        return True

    with conversation(serve, script) as (client, outcome):
        client.close()
        assert outcome.result(5)


def test_a_full_inbox_pauses_reading_and_loses_nothing(serve: Serve) -> None:
    go = threading.Event()

    async def script(ws: WebSocket) -> list[Any]:
        await asyncio.to_thread(go.wait, 10)
        return [await ws.receive() for _ in range(500)]

    with conversation(serve, script, limits=Limits(inbound_messages=4)) as (client, outcome):
        for number in range(500):
            client.send(str(number))
        go.set()
        assert outcome.result(5) == [str(number) for number in range(500)]


def test_a_close_of_ours_counts_at_once_while_the_inbox_is_full(serve: Serve) -> None:
    go = threading.Event()
    sockets = WebSockets(auth=Anonymous(), limits=Limits(inbound_messages=2))
    route = sockets.route("/")

    @route
    async def handler(ws: WebSocket) -> None:
        await asyncio.to_thread(go.wait, 10)

    with serve(sockets).peer() as peer:
        peer.upgrade()
        ws = the_one(route)
        peer.send(b"".join(frame(TEXT, b"x") for _ in range(5)))
        until(lambda: len(ws.inbox) == 2)
        ws.close(4001)
        assert peer.read_frame().close_code == 4001
        try:
            until(lambda: ws.closed, 1)  # whether or not the peer answers
            assert ws.close_code == 4001
            assert route.everyone.count() == 0
        finally:
            go.set()


# --- rooms ---------------------------------------------------------------------------------------


def test_join_and_leave_from_any_thread(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        ws = the_one(route)
        ws.join("a")
        ws.join("b")
        ws.join("a")
        assert ws.rooms == {"a", "b"}
        route.room("a").send("in a").result(5)
        assert client.recv(5) == "in a"
        ws.leave("a")
        ws.leave("never in it")
        assert ws.rooms == {"b"}
        assert route.room("a").send("nobody").result(5).local == 0
        assert route.room("b").send("in b").result(5).local == 1


def test_a_closed_socket_is_in_no_room(serve: Serve) -> None:
    served, route = push_only(serve)
    with connect(served) as client:
        ws = the_one(route)
        ws.join("a")
        client.close()
    until(lambda: ws.closed)
    assert ws.rooms == frozenset()
    ws.join("b")
    assert route.room("b").send("x").result(5).local == 0
    assert ws.rooms == frozenset()


def test_one_room_too_many_is_refused_by_name(serve: Serve) -> None:
    served, route = push_only(serve, limits=Limits(rooms_per_socket=2))
    with connect(served):
        ws = the_one(route)
        ws.join("a")
        ws.join("b")
        ws.join("a")
        with pytest.raises(TooManyRooms, match="rooms_per_socket"):
            ws.join("c")
        ws.leave("a")
        ws.join("c")
        assert ws.rooms == {"b", "c"}


@pytest.mark.parametrize("wrong", [None, 1.5, b"x", True, object()])
def test_a_room_of_another_type_is_a_type_error_at_once(serve: Serve, wrong: Any) -> None:
    served, route = push_only(serve)
    with connect(served):
        for method in (the_one(route).join, the_one(route).leave):
            with pytest.raises(TypeError, match="room must be str, int or UUID"):
                method(wrong)


@pytest.mark.parametrize("wrong", ["", "x" * 256, "a\nb", "\ud800"])
def test_a_room_that_is_no_name_is_a_value_error_at_once(serve: Serve, wrong: str) -> None:
    served, route = push_only(serve)
    with connect(served), pytest.raises(ValueError, match="room must be 1 to 255 bytes"):
        the_one(route).join(wrong)


# --- the end of a handler ------------------------------------------------------------------------


def test_a_handler_gets_five_seconds_after_its_peer() -> None:
    assert GRACE == 5.0


def test_a_ticker_that_never_looks_ends_when_its_peer_has_gone(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "GRACE", 0.3)

    async def script(ws: WebSocket) -> None:
        while True:
            ws.send("tick")
            await asyncio.sleep(0.01)

    with conversation(serve, script) as (client, outcome):
        assert client.recv(5) == "tick"
        client.close()
        left = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            outcome.result(5)
        assert 0.2 < time.monotonic() - left < 2
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_a_ticker_that_waits_for_its_receipts_ends_at_once(serve: Serve) -> None:
    async def script(ws: WebSocket) -> None:
        while True:
            await ws.send(json.dumps({"tick": 1}))
            await asyncio.sleep(0.01)

    with conversation(serve, script) as (client, outcome):
        client.recv(5)
        client.close()
        with pytest.raises(ConnectionClosed):
            outcome.result(2)


def test_messages_in_one_write_with_the_close_are_all_received(serve: Serve) -> None:
    async def script(ws: WebSocket) -> list[str | bytes]:
        return [message async for message in ws]

    outcome: Future[Any] = Future()
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/")
    async def handler(ws: WebSocket) -> None:
        outcome.set_result(await script(ws))

    with serve(sockets).peer() as peer:
        peer.upgrade()
        peer.send(b"".join(frame(TEXT, b"%d" % i) for i in range(40)) + close_frame(1000))
        assert outcome.result(5) == [str(i) for i in range(40)]
        assert peer.read_frame().close_code == 1000
