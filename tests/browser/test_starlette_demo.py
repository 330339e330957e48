"""The Starlette demo in a real browser: the pages are the Flask demo's, the server is not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.browser.support import Demo, Window, find_program, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# A socket beside those of the page, which says how it ended.
WATCH = """
window.ended = "not yet";
const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws/notifications");
socket.onclose = (event) => { window.ended = [event.code, event.reason]; };
socket.onopen = () => done("open");
"""

# What the page's policy refused, and what went wrong in its scripts.
FAULTS = """
window.faults = [];
document.addEventListener("securitypolicyviolation", (e) => faults.push(e.violatedDirective));
window.addEventListener("error", (e) => faults.push(e.message));
"""


class StarletteDemo(Demo):
    """`python -m examples.starlette_app` with a database and a log in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._environ = {
            **os.environ,
            "DEMO_SECRET_KEY": "s" * 32,
            "DEMO_DATABASE": str(self._database),
        }

    def start(self, port: int = 0) -> None:
        """Start it; it serves when its one line has come."""
        with self._log_path.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "examples.starlette_app", "--port", str(port)],
                env=self._environ,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.match(r"Open (http://127\.0\.0\.1:\d+)/ and log in as alice", line)
        assert found is not None, line + self.log()
        self.address = found[1]


@pytest.fixture(scope="module")
def starlette(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StarletteDemo]:
    find_program("chromium", "chromium-browser")
    with StarletteDemo(tmp_path_factory.mktemp("starlette")) as demo:
        yield demo


def test_a_line_appears_on_the_other_page(
    starlette: StarletteDemo, alice: Window, bob: Window
) -> None:
    for window, name in [(alice, "alice"), (bob, "bob")]:
        window.log_in(starlette, name)
        window.enter(starlette, "/rooms/1")
        window.run(FAULTS)
    alice.type("#compose input[name=text]", "hello <b>bob</b>\n")
    wait_for(lambda: bob.lines == ["hello <b>bob</b>"], 5, lambda: bob.lines)
    bob.type("#compose input[name=text]", "hello alice\n")
    both = ["hello <b>bob</b>", "hello alice"]
    for window in (alice, bob):
        wait_for(lambda: window.lines == both, 5, lambda: window.lines)  # noqa: B023
        assert len(window.attempts) == 1
        assert window.run("return faults") == []
    # Over the socket: nothing was posted.
    assert "POST /rooms/1/messages" not in starlette.log()


def test_an_announcement_that_is_posted_appears_on_every_page(
    starlette: StarletteDemo, alice: Window, bob: Window
) -> None:
    bob.log_in(starlette, "bob")
    bob.enter(starlette, "/rooms/1")
    alice.log_in(starlette, "alice")
    alice.enter(starlette, "/")
    alice.type("form.line input[name=text]", "lunch\n")
    wait_for(lambda: bob.text("#banner") == "alice lunch", 5, lambda: bob.text("#banner"))
    assert len(bob.attempts) == 1
    assert "POST /announce" in starlette.log()


def test_a_logout_ends_the_sockets_of_all_tabs(starlette: StarletteDemo, alice: Window) -> None:
    alice.log_in(starlette, "alice")
    alice.enter(starlette, "/rooms/1")
    assert alice.run_async(WATCH) == "open"
    alice.new_tab()
    alice.enter(starlette, "/rooms/2")
    assert alice.run_async(WATCH) == "open"
    rooms = alice.tabs[-2:]
    alice.new_tab()
    alice.log_out(starlette)
    for tab in rooms:
        alice.show(tab)
        wait_for(lambda: alice.status == "Please log in.", 8, lambda: alice.status)
        assert alice.run("return window.ended") == [4401, "logged_out"]


def test_a_page_whose_user_is_no_member_any_more_stops(
    starlette: StarletteDemo, bob: Window
) -> None:
    bob.log_in(starlette, "bob")
    bob.enter(starlette, "/rooms/1")
    starlette.run_sql("DELETE FROM members WHERE user_id = 2")
    bob.run("live.restart()")
    wait_for(lambda: bob.status.startswith("Not allowed"), 8, lambda: bob.status)
    starlette.run_sql("INSERT INTO members (room_id, user_id) VALUES (1, 2)")


def test_a_page_comes_back_after_a_restart(starlette: StarletteDemo, alice: Window) -> None:
    alice.log_in(starlette, "alice")
    alice.enter(starlette, "/rooms/1")
    # When all has ended, uvicorn lets the signal do what it would have done.
    assert starlette.stop(signal.SIGTERM) == -signal.SIGTERM
    wait_for(lambda: alice.status.startswith("Reconnecting in"), 8, lambda: alice.status)
    starlette.start(starlette.port)
    alice.run("window.dispatchEvent(new Event('online'))")
    alice.wait_live(15)
    alice.type("#compose input[name=text]", "back\n")
    wait_for(lambda: alice.lines[-1] == "back", 5, lambda: alice.lines)
