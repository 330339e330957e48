"""The commands as they are typed, with processes that serve and a Redis between them."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed

import ws_middleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.sync.client import ClientConnection

    from tests.redis_server import RedisServer

    from .conftest import Shell

SECRET = "s" * 32


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"


def told(shell: Shell, *words: str) -> list[dict[str, Any]]:
    """Return what every process answers."""
    answer = json.loads(shell.answer(*words, "--json"))
    assert answer["missing"] == 0
    processes: list[dict[str, Any]] = answer["processes"]
    return processes


def is_connected(shell: Shell, count: int = 1) -> bool:
    """Whether so many processes hear the broker."""
    done = shell.run("stats", "--json")
    return done.returncode == 0 and len(json.loads(done.stdout)["processes"]) == count


def heard(*clients: ClientConnection) -> list[Any]:
    return [each.recv(10) for each in clients]


# --- publish -------------------------------------------------------------------------------------


def test_publish_reaches_a_room_a_user_a_socket_and_everyone(shell: Shell) -> None:
    with shell.serve() as one, shell.serve() as two, ExitStack() as stack:
        wait_for(lambda: is_connected(shell, 2))
        ann = stack.enter_context(one.connect("/ws/chat/lobby?user=ann"))
        bob = stack.enter_context(two.connect("/ws/chat/lobby?user=bob"))
        news = stack.enter_context(two.connect("/ws/news?user=ann"))
        wait_for(lambda: sum(each["sockets"] for each in told(shell, "stats")) == 3)
        assert shell.answer("publish", "room:lobby", '{"hi": 1}') == "published to 2 listening\n"
        assert heard(ann, bob) == ['{"hi": 1}'] * 2
        shell.answer("publish", "user:ann", "every tab")
        assert heard(ann, news) == ["every tab"] * 2
        shell.answer("publish", "user:ann", "one tab", "--route", "/ws/news")
        assert heard(news) == ["one tab"]
        shell.answer("publish", "everyone", "all")
        assert heard(ann, bob, news) == ["all"] * 3
        (id_,) = [each["id"] for p in told(shell, "who", "--user", "bob") for each in p["sockets"]]
        shell.answer("publish", f"socket:{id_}", "for bob")
        assert heard(bob) == ["for bob"]
        shell.answer("publish", "everyone", "but not for bob", "--exclude", id_)
        assert heard(ann, news) == ["but not for bob"] * 2
        assert shell.run("publish", "room:lobby", "-", "--binary", input="\0ä").returncode == 0
        assert heard(ann, bob) == ["\0ä".encode()] * 2


def test_publish_says_when_nobody_listens(shell: Shell) -> None:
    done = shell.run("publish", "room:lobby", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "published, and nobody listens: is it the app's --prefix?\n"


def test_publish_signs_where_there_is_a_secret(redis: RedisServer, shell: Shell) -> None:
    shell.environ["WSM_BROKER_SECRET"] = SECRET
    with shell.serve() as one:
        wait_for(lambda: is_connected(shell))
        with one.connect("/ws/news?user=ann") as ann:
            wait_for(lambda: told(shell, "stats")[0]["sockets"] == 1)
            del shell.environ["WSM_BROKER_SECRET"]
            shell.answer("publish", "everyone", "forged")
            shell.environ["WSM_BROKER_SECRET"] = SECRET
            shell.answer("publish", "everyone", "signed")
            assert heard(ann) == ["signed"]
            assert told(shell, "stats")[0]["broker"]["counts"]["dropped_forged"] == 1


# --- stats and who -------------------------------------------------------------------------------


def test_stats_shows_every_process_and_who_is_not_there(shell: Shell) -> None:
    with shell.serve() as one, shell.serve() as two:
        wait_for(lambda: is_connected(shell, 2))
        with one.connect("/ws/news?user=ann"), one.connect("/ws/news?user=bob"):
            wait_for(lambda: sum(each["sockets"] for each in told(shell, "stats")) == 2)
            found = {each["pid"]: each for each in told(shell, "stats")}
            assert set(found) == {one.process.pid, two.process.pid}
            assert [found[each.process.pid]["users"] for each in (one, two)] == [2, 0]
            assert all(each["ready"] and each["host"] for each in found.values())
            head, line, *rows = shell.answer("stats").splitlines()
            assert head.split()[:6] == ["host", "pid", "node", "up", "ready", "sockets"]
            assert set(line) == {"-", " "}
            assert sorted(row.split()[1] for row in rows) == sorted(str(pid) for pid in found)
        two.process.send_signal(signal.SIGSTOP)
        done = shell.run("stats")
        two.process.send_signal(signal.SIGCONT)
        assert done.returncode == 1
        assert done.stderr == "1 more did not answer within 2 s\n"
        assert str(one.process.pid) in done.stdout


def test_who_names_the_sockets_of_a_user_and_of_a_room(shell: Shell) -> None:
    with shell.serve() as one, shell.serve() as two, ExitStack() as stack:
        wait_for(lambda: is_connected(shell, 2))
        for served, path in [
            (one, "/ws/chat/lobby?user=ann"),
            (two, "/ws/chat/lobby?user=bob"),
            (two, "/ws/news?user=ann"),
        ]:
            stack.enter_context(served.connect(path))
        wait_for(lambda: sum(each["sockets"] for each in told(shell, "stats")) == 3)

        def rows(*words: str) -> list[tuple[str, str, str]]:
            found = [each for p in told(shell, "who", *words) for each in p["sockets"]]
            return sorted((each["user"], each["route"], *each["rooms"], "")[:3] for each in found)

        of_ann = ("ann", "/ws/chat/*", "lobby"), ("ann", "/ws/news", "")
        assert rows("--user", "ann") == [*of_ann]
        assert rows("--user", "ann", "--route", "/ws/news") == [of_ann[1]]
        assert rows("--room", "lobby") == [of_ann[0], ("bob", "/ws/chat/*", "lobby")]
        assert len(rows()) == 3
        assert rows("--user", "nobody") == []
        shown = shell.answer("who", "--user", "bob").splitlines()
        assert shown[0].split() == "id user route rooms peer host pid in out".split()  # noqa: SIM905
        assert shown[2].split()[1:5] == ["bob", "/ws/chat/*", "lobby", "127.0.0.1"]


def test_stats_of_nobody(shell: Shell) -> None:
    done = shell.run("stats")
    assert done.returncode == 1
    assert done.stderr == "no process answers: is it the app's --prefix, and does it serve?\n"


# --- tail ----------------------------------------------------------------------------------------


def test_tail_shows_what_is_sent(redis: RedisServer, shell: Shell) -> None:
    with (
        shell.begin("tail", "--count", "5") as everything,
        shell.begin("tail", "room:lobby", "--count", "2") as lobby,
        shell.begin("tail", "room:lobby", "--route", "/ws/*", "--count", "1") as of_a_route,
        redis.client as client,
    ):
        wait_for(lambda: client.pubsub_numpat() == 6)
        shell.run("publish", "room:lobby", "one\n\x1b[31m")
        shell.run("publish", "room:lobbies", "two")
        shell.run("publish", "room:lobby", "three", "--route", "/ws/*", "--exclude", "a-1")
        client.publish("shop:user::ann", '{"v": 1, "close": {"code": 4401, "reason": "out"}}')
        client.publish("shop:everyone:", "{}")
        client.publish("other:everyone:", '{"v": 1, "text": "of another app"}')
        shown = [process.communicate(timeout=20)[0] for process in (everything, lobby, of_a_route)]
    lines = [[line.partition(" ")[2] for line in each.splitlines()] for each in shown]
    first = "room::lobby from -: one\\n\\x1b[31m"
    third = "room:/ws/*:lobby from -: three (without a-1)"
    assert lines[0] == [
        first,
        "room::lobbies from -: two",
        third,
        "user::ann from -: close 4401 out over 0 s",
        "everyone: dropped: malformed",
    ]
    assert lines[1] == [first, third]
    assert lines[2] == [third]


def test_tail_goes_on_when_redis_is_back_and_ends_by_ctrl_c(
    redis: RedisServer, shell: Shell
) -> None:
    with shell.begin("tail") as process:
        with redis.client as client:
            wait_for(lambda: client.pubsub_numpat() == 4)
        redis.kill()
        wait_for(lambda: "trying again" in shell.log(1))
        redis.start()
        with redis.client as client:
            wait_for(lambda: client.pubsub_numpat() == 4)
        shell.run("publish", "everyone", "back")
        assert process.stdout is not None
        assert process.stdout.readline().endswith("everyone: from -: back\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert "Traceback" not in shell.log(1)


# --- serve ---------------------------------------------------------------------------------------


def test_serve_ends_with_1012_for_all(shell: Shell) -> None:
    with ExitStack() as stack, shell.serve("tests.cli.shop:sockets", "--drain-over", "1") as one:
        clients = [stack.enter_context(one.connect("/ws/news?user=ann")) for _ in range(3)]
        one.process.send_signal(signal.SIGTERM)
        for each in clients:
            with pytest.raises(ConnectionClosed):
                each.recv(10)
            assert (each.close_code, each.close_reason) == (1012, "restart")
        assert one.process.wait(10) == 0


@pytest.mark.parametrize(
    ("options", "over"),
    [
        pytest.param((), "0.7", id="the-apps"),
        pytest.param(("--drain-over", "0"), "0.0", id="the-commands-comes-first"),
    ],
)
def test_serve_spreads_its_closes_as_the_app_has_said(
    bare: Shell, options: tuple[str, ...], over: str
) -> None:
    bare.environ["WSM_DRAIN_OVER"] = "0.7"
    with bare.serve("tests.cli.shop:sockets", *options) as one:
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(10) == 0
    assert f"ending: 0 sockets, over {over} s" in bare.log(1)


def test_serve_takes_an_app_that_a_call_makes(bare: Shell) -> None:
    with bare.serve("tests.cli.shop:create_app()") as one, one.connect("/ws/made") as client:
        client.ping().wait(5)


def test_serve_processes_may_share_a_port(bare: Shell) -> None:
    with bare.serve("tests.cli.shop:sockets", "--reuse-port") as one:
        port = one.url.rpartition(":")[2]
        words = ("serve", "tests.cli.shop:sockets", "--reuse-port", "--port", port)
        with bare.begin(*words) as second:
            assert second.stdout is not None
            assert second.stdout.readline().endswith(f":{port}\n")
            second.send_signal(signal.SIGINT)
            assert second.wait(10) == 0


# --- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "error"),
    [
        pytest.param(("serve", "shop"), "'shop' names no object: write MODULE:NAME", id="no name"),
        pytest.param(("serve", "nowhere:x"), "there is no module 'nowhere' here", id="no module"),
        pytest.param(
            ("serve", "tests.cli.shop:x"), "tests.cli.shop has no 'x'; write", id="no object"
        ),
        pytest.param(
            ("serve", "tests.cli.shop:nothing"),
            "tests.cli.shop:nothing is a object, and neither a WebSockets nor an app",
            id="another object",
        ),
        pytest.param(
            ("serve", "tests.cli.shop:create_app"),
            "; a function is called as tests.cli.shop:create_app()",
            id="a function",
        ),
        pytest.param(
            ("publish", "lobby", "x", "--broker", "redis://127.0.0.1:1"),
            "'lobby' is nobody: write room:NAME, user:ID, socket:ID or everyone",
            id="no audience",
        ),
        pytest.param(
            ("publish", "room:", "x", "--broker", "redis://127.0.0.1:1"),
            "room must be 1 to 255 bytes",
            id="a room without a name",
        ),
        pytest.param(
            ("publish", "everyone", "x", "--broker", "redis://:secret@127.0.0.1:1"),
            "Redis at redis://127.0.0.1:1 did not take the message",
            id="no Redis",
        ),
        pytest.param(
            ("stats", "--broker", "redis://:secret@127.0.0.1:1"),
            "Redis at redis://127.0.0.1:1 cannot be listened to",
            id="nobody to ask",
        ),
        pytest.param(
            ("stats", "--broker", "http://127.0.0.1"), "broker takes 'memory://'", id="no broker"
        ),
        pytest.param(
            ("tail", "--broker", "memory://"), "between processes there is only", id="memory"
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(bare: Shell, words: tuple[str, ...], error: str) -> None:
    done = bare.run(*words)
    assert done.returncode == 1
    assert done.stderr.startswith("ws-middleware: error: ")
    assert error in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_wrong_call_is_a_2(bare: Shell) -> None:
    for words in ((), ("stats",), ("publish", "everyone"), ("who", "--user", "1", "--room", "2")):
        done = bare.run(*words)
        assert done.returncode == 2
        assert "usage: ws-middleware" in done.stderr


def test_every_command_has_help(bare: Shell) -> None:
    assert bare.answer("--version") == f"{ws_middleware.__version__}\n"
    listed = bare.answer("--help")
    for command in ("publish", "tail", "stats", "who", "serve"):
        assert f"    {command} " in listed
        assert bare.answer(command, "--help").startswith(f"usage: ws-middleware {command}")
