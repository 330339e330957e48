"""`flask ws routes` and `flask ws check`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, session
from flask_login import LoginManager, UserMixin

from ws_middleware import Anonymous, FlaskAuth, Heartbeat, JWTAuth, Limits, WebSockets
from ws_middleware.cli.findings import find_workers
from ws_middleware.cli.flask import group

if TYPE_CHECKING:
    from click.testing import Result

    from ws_middleware import Principal, UpgradeRequest

ROOT = Path(__file__).parents[1]

VARIABLES = ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def make_app(key: str | None = "s" * 32, **settings: Any) -> tuple[Flask, WebSockets]:
    app = Flask("shop")
    app.secret_key = key
    sockets = WebSockets(**{"auth": FlaskAuth(lambda: session.get("user")), **settings})
    sockets.init_app(app)
    return app, sockets


def run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(group, arguments)


def check(app: Flask) -> tuple[int, list[str]]:
    """The exit code and what was found."""
    result = run(app, "check")
    lines = result.output.splitlines()
    return result.exit_code, lines[:-1]


# --- routes --------------------------------------------------------------------------------------


def may_read(user: Principal, request: UpgradeRequest) -> bool:
    return True


def test_routes_is_a_table() -> None:
    app, sockets = make_app(origins=["https://a.example", "https://b.example"])
    token = JWTAuth("k" * 32, algorithms=["HS256"], sources=["header"])
    sockets.route("/ws/chat/<int:room>", name="chat", authorize=may_read)
    sockets.route(
        "/ws/bulk",
        auth=token,
        origins="*",
        heartbeat=None,
        limits=Limits(message_size=None, connections_per_user=None),
    ).on_message(lambda ws, message: None)
    sockets.route("/ws/odd", heartbeat=Heartbeat(interval=2.5), limits=Limits(message_size=65537))

    @app.route("/ws/view", websocket=True)
    def view() -> str:
        return ""

    result = run(app, "routes")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    headings, rule, *rows = [re.split(" {2,}", line) for line in lines]
    assert headings == ["path", "name", "served by", "auth", "authorize", "origins", "limits"]
    assert set("".join(rule)) == {"-"}
    assert lines[2].index("push only") == lines[3].index("events") == lines[0].index("served by")
    assert rows == [
        [
            *("/ws/chat/<int:room>", "chat", "push only", "FlaskAuth()", "may_read"),
            "https://a.example https://b.example",
            "1 MiB a message, 20 a user, ping every 30 s",
        ],
        [
            *("/ws/bulk", "/ws/bulk", "events", "JWTAuth(HS256 in header)", "-", "*"),
            "any size a message, any number a user, no pings",
        ],
        [
            *("/ws/odd", "/ws/odd", "push only", "FlaskAuth()", "-"),
            "https://a.example https://b.example",
            "65537 B a message, 20 a user, ping every 2.5 s",
        ],
        ["/ws/view", "view", "a view of the app"],
    ]


def test_routes_of_each_app_are_its_own() -> None:
    sockets = WebSockets(auth=FlaskAuth(lambda: "ann"))
    sockets.route("/ws")
    for name, size in [("ann", 1024), ("bob", 2048)]:
        app = Flask(name)
        app.config["WEBSOCKETS"] = {"limits": Limits(message_size=size)}
        sockets.init_app(app)
        assert f" {size // 1024} KiB a message" in run(app, "routes").output


def test_an_app_without_routes_says_so() -> None:
    assert run(make_app()[0], "routes").output == "This app has no WebSocket routes.\n"
    assert run(Flask("plain"), "routes").output == "This app has no WebSocket routes.\n"


# --- check ---------------------------------------------------------------------------------------


def test_a_good_app_has_no_errors() -> None:
    app, sockets = make_app(origins=["same-origin", "https://shop.example"])
    sockets.route("/ws")
    result = run(app, "check")
    assert (result.exit_code, result.output) == (0, "No errors found.\n")


def test_init_app_was_never_called() -> None:
    assert check(Flask("shop")) == (
        1,
        [
            (
                "error: init_app() was never called for this app, so it serves no sockets. Where "
                "the app is made, say: sockets = WebSockets(auth=...); sockets.init_app(app)"
            ),
        ],
    )


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, None),
        ({"WEB_CONCURRENCY": "1"}, None),
        ({"WEB_CONCURRENCY": "many"}, None),
        ({"WEB_CONCURRENCY": "4"}, "WEB_CONCURRENCY=4"),
        ({"GUNICORN_CMD_ARGS": "--threads 8"}, None),
        ({"GUNICORN_CMD_ARGS": "-w 2"}, "GUNICORN_CMD_ARGS='-w 2'"),
        ({"GUNICORN_CMD_ARGS": "-w2"}, "GUNICORN_CMD_ARGS='-w2'"),
        ({"GUNICORN_CMD_ARGS": "--workers=3 -b :80"}, "GUNICORN_CMD_ARGS='--workers=3 -b :80'"),
        ({"GUNICORN_CMD_ARGS": "--workers 3"}, "GUNICORN_CMD_ARGS='--workers 3'"),
        ({"GUNICORN_CMD_ARGS": "-w 4 -w 1"}, None),
        ({"GUNICORN_CMD_ARGS": "-w 1", "WEB_CONCURRENCY": "4"}, None),
        ({"GUNICORN_CMD_ARGS": "--threads 2", "WEB_CONCURRENCY": "4"}, "WEB_CONCURRENCY=4"),
        ({"GUNICORN_CMD_ARGS": "-w"}, None),
        ({"GUNICORN_CMD_ARGS": "'"}, None),
    ],
)
def test_how_many_workers_are_asked_for(environ: dict[str, str], told: str | None) -> None:
    assert find_workers(environ) == told


def test_several_workers_without_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert check(make_app()[0]) == (
        1,
        [
            (
                "error: WEB_CONCURRENCY=4: several worker processes, and nothing carries messages "
                "between them: a send to an audience raises BrokerRequired. Let Redis carry them, "
                'WebSockets(broker="redis://localhost:6379/0"), run one worker (gunicorn '
                "--workers 1 --threads N), or say that you mean it: "
                'WebSockets(broker="memory://per-process")'
            ),
        ],
    )
    assert check(make_app(broker="memory://per-process")[0]) == (0, [])


def test_an_unknown_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSM_ORIGIN", "https://a.example")
    assert check(make_app()[0]) == (
        1,
        [
            (
                "error: the environment variable WSM_ORIGIN means nothing; did you mean "
                "WSM_ORIGINS? (mend its name, or take it out)"
            ),
        ],
    )


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


NO_KEY = (
    "error: SECRET_KEY is not set: the app can read no session, so FlaskAuth() finds nobody. Set "
    "app.secret_key to what secrets.token_hex(32) gives, from a secret store"
)
NO_MANAGER = (
    "error: FlaskAuth() asks flask-login, and this app has no login manager. Add "
    "LoginManager(app), or say who it is: FlaskAuth(get_user=lambda: session.get('user_id'))"
)


def test_a_login_that_cannot_be() -> None:
    app, sockets = make_app(None, auth=FlaskAuth())
    assert check(app) == (0, [])  # no route asks it
    sockets.route("/ws")
    assert check(app) == (1, [NO_MANAGER, NO_KEY])
    manager = LoginManager(app)
    manager.user_loader(User)
    assert check(app) == (1, [NO_KEY])
    app.secret_key = "s" * 32
    assert check(app) == (0, [])


def test_a_login_without_a_session_needs_no_key() -> None:
    app, sockets = make_app(None, auth=FlaskAuth())
    sockets.route("/ws")
    LoginManager(app).request_loader(lambda request: User("ann"))
    assert check(app) == (0, [])
    other, others = make_app(None, auth=FlaskAuth(lambda: "ann"))
    others.route("/ws")
    assert check(other) == (0, [])


def test_flask_login_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    app, sockets = make_app(auth=FlaskAuth())
    sockets.route("/ws")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, (line,) = check(app)
    assert code == 1
    assert line.startswith("error: FlaskAuth() asks flask-login, which is not installed. Install")


def test_origins_that_are_for_development_are_noted_in_production(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, sockets = make_app()
    sockets.route("/ws/all", auth=Anonymous(), origins="*")
    sockets.route("/ws/plain", origins=["http://shop.example"])
    sockets.route("/ws/local", origins=["http://localhost:5000"])
    sockets.route("/ws/both", origins=["http://shop.example", "https://shop.example"])
    assert check(app) == (
        0,
        [
            (
                "note: /ws/all: origins='*' lets every page of the web connect. Unless that is "
                "meant, list the pages: origins=['https://myapp.com']"
            ),
            (
                "note: /ws/plain: every origin that is listed is http://, and a page that is "
                "served over https is of another origin. List it: origins=['https://shop.example']"
            ),
        ],
    )
    monkeypatch.setenv("FLASK_DEBUG", "1")
    assert check(app) == (0, [])


def test_settings_that_contradict_each_other_are_an_error() -> None:
    app, sockets = make_app()
    sockets.route("/ws", origins=["https://a.example"]).given["origins"] = "*"
    code, (line,) = check(app)
    assert code == 1
    assert line.startswith(
        "error: route /ws: origins='*' lets any page ride on the user's cookies."
    )


# --- the command itself --------------------------------------------------------------------------

APP = """
from flask import Flask
from ws_middleware import Anonymous, WebSockets

app = Flask("shop")
plain = Flask("plain")
sockets = WebSockets(auth=Anonymous())
sockets.route("/ws/news")
sockets.init_app(app)
"""


@pytest.fixture
def flask(tmp_path: Path) -> Any:
    """Run `flask` where this package is installed as pyproject.toml says, whatever was before."""
    (tmp_path / "shop.py").write_text(APP)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (command,) = project["entry-points"]["flask.commands"].items()
    installed = tmp_path / "ws_middleware-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: ws-middleware\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(f"[flask.commands]\n{command[0]} = {command[1]}\n")
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_every_app_has_the_command(flask: Any) -> None:
    good = flask("--app", "shop:app", "ws", "check")
    assert (good.returncode, good.stdout, good.stderr) == (0, "No errors found.\n", "")
    bad = flask("--app", "shop:plain", "ws", "check")
    assert (bad.returncode, bad.stderr) == (1, "")
    assert bad.stdout.startswith("error: init_app() was never called for this app")
    assert "/ws/news" in flask("--app", "shop:app", "ws", "routes").stdout


def test_help_says_what_they_do(flask: Any) -> None:
    told = flask("--app", "shop:app", "ws", "--help").stdout
    assert "Show and check this app's WebSockets (ws_middleware)." in told
    assert "check   Look for what would keep the sockets of this app from working" in told
    assert "routes  List the WebSocket routes and who may connect to them." in told
    assert "Show and check this app's WebSockets" in flask("--app", "shop:app", "--help").stdout
