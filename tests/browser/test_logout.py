"""Two tabs of one login in a real browser: a logout in one ends the sockets of both."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, request
from flask_login import LoginManager, UserMixin, login_user, logout_user
from werkzeug.serving import make_server

from tests.browser.support import wait_for
from ws_middleware import FlaskAuth, WebSockets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.browser.support import Window

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGE = """<!doctype html><title>shop</title><script>
const seen = { state: "connecting" };
const ws = new WebSocket(`ws://${location.host}/ws/news`);
ws.onopen = () => { seen.state = "open"; };
ws.onclose = (event) => { seen.state = [event.code, event.reason]; };
</script>"""


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


@pytest.fixture
def site() -> Iterator[str]:
    app = Flask("shop")
    app.secret_key = "s" * 32
    LoginManager(app).user_loader(User)
    sockets = WebSockets(auth=FlaskAuth())
    sockets.route("/ws/news")
    sockets.init_app(app)

    @app.get("/")
    def page() -> str:
        return PAGE

    @app.get("/login")
    def login() -> str:
        login_user(User(request.args["name"]))
        return "in"

    @app.get("/logout")
    def logout() -> str:
        logout_user()
        return "out"

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    sockets.close(timeout=3).result(10)
    server.shutdown()
    thread.join(10)
    server.server_close()


def state_of(window: Window) -> Any:
    return window.run("return seen.state")


def open_page(window: Window, site: str) -> str:
    """Open the page in this tab and return the tab, once its socket is open."""
    window.get(site)
    wait_for(lambda: state_of(window) == "open", 10, lambda: state_of(window))
    return window.driver.current_window_handle


def test_a_logout_in_one_tab_ends_the_sockets_of_both(
    site: str, alice: Window, bob: Window
) -> None:
    for window, name in [(alice, "alice"), (bob, "bob")]:
        window.get(f"{site}/login?name={name}")
        open_page(window, site)
    first = alice.driver.current_window_handle
    alice.new_tab()
    second = open_page(alice, site)
    assert alice.run_async("fetch('/logout').then((answer) => answer.text()).then(done)") == "out"
    for tab in (second, first):
        alice.show(tab)
        wait_for(lambda: state_of(alice) == [4401, "logged_out"], 10, lambda: state_of(alice))
    assert state_of(bob) == "open"
    # And there is no way back without a login.
    alice.get(site)
    wait_for(lambda: state_of(alice) == [1006, ""], 10, lambda: state_of(alice))
