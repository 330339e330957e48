"""The demo's pages in a real browser, against the demo as a process of its own."""

from __future__ import annotations

import http.server
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from selenium.webdriver.common.by import By

from tests.browser.support import Demo, Window, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CONNECT = """
const socket = new WebSocket(arguments[0]);
socket.onopen = () => { done("open"); socket.close(); };
socket.onclose = (event) => done(event.code);
"""

# A socket beside those of the page, which says how it ended.
WATCH = """
window.ended = "not yet";
const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws/notifications");
socket.onclose = (event) => { window.ended = [event.code, event.reason]; };
socket.onopen = () => done("open");
"""


def test_a_line_appears_on_the_other_page(demo: Demo, alice: Window, bob: Window) -> None:
    for window, name in [(alice, "alice"), (bob, "bob")]:
        window.log_in(demo, name)
        window.enter(demo, "/rooms/1")
    alice.type("#compose input[name=text]", "hello <b>bob</b>\n")
    wait_for(lambda: bob.lines == ["hello <b>bob</b>"], 5, lambda: bob.lines)
    bob.type("#compose input[name=text]", "hello alice\n")
    both = ["hello <b>bob</b>", "hello alice"]
    for window in (alice, bob):
        wait_for(lambda: window.lines == both, 5, lambda: window.lines)  # noqa: B023
        assert len(window.attempts) == 1
    # Over the socket: nothing was posted.
    assert "POST /rooms/1/messages" not in demo.log()
    assert alice.run("return document.querySelector('#compose').elements.text.value") == ""


def test_an_announcement_appears_on_every_page(demo: Demo, alice: Window, bob: Window) -> None:
    bob.log_in(demo, "bob")
    bob.enter(demo, "/rooms/1")
    alice.log_in(demo, "alice")
    alice.enter(demo, "/")
    alice.type("form.line input[name=text]", "lunch\n")
    wait_for(lambda: bob.text("#banner") == "alice lunch", 5, lambda: bob.text("#banner"))
    assert len(bob.attempts) == 1


def test_without_a_socket_lines_are_posted(demo: Demo, alice: Window, bob: Window) -> None:
    for window, name in [(alice, "alice"), (bob, "bob")]:
        window.log_in(demo, name)
        window.enter(demo, "/rooms/1")
    alice.run("""
        live.restart();
        const form = document.getElementById("compose");
        form.elements.text.value = "by post";
        form.requestSubmit();
    """)
    for window in (bob, alice):
        wait_for(lambda: window.lines[-1:] == ["by post"], 5, lambda: window.lines)  # noqa: B023
    assert "POST /rooms/1/messages" in demo.log()


def test_a_page_that_is_online_again_does_not_wait(demo: Demo, alice: Window) -> None:
    alice.log_in(demo, "alice")
    alice.enter(demo, "/rooms/1")
    alice.run("live.restart()")
    assert alice.status.startswith("Reconnecting in ")
    script = "window.dispatchEvent(new Event('online')); return window.wsAttempts.length"
    assert alice.run(script) == 2
    alice.wait_live()


def test_what_was_missed_is_fetched(demo: Demo, alice: Window, bob: Window) -> None:
    for window, name in [(alice, "alice"), (bob, "bob")]:
        window.log_in(demo, name)
        window.enter(demo, "/rooms/1")
    # A retry takes half a second at least: time for a line that bob cannot hear.
    bob.run("live.restart()")
    alice.type("#compose input[name=text]", "you missed this\n")
    wait_for(lambda: alice.lines[-1] == "you missed this", 5, lambda: alice.lines)
    wait_for(lambda: bob.lines[-1] == "you missed this", 8, lambda: bob.lines)
    assert bob.lines.count("you missed this") == 1


@contextmanager
def another_origin() -> Iterator[str]:
    """A page that the demo knows nothing of."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>evil</title>")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_page_of_another_origin_is_refused(demo: Demo, alice: Window) -> None:
    alice.log_in(demo, "alice")
    alice.enter(demo, "/")
    url = f"ws://127.0.0.1:{demo.port}/ws/chat/1"
    assert alice.run_async(CONNECT, url) == "open"
    with another_origin() as page:
        alice.get(page)
        # Another port is another origin but the same site: the browser sends the cookie along.
        assert alice.run_async(CONNECT, url) == 1006
    assert "refused /ws/chat/1: origin_not_allowed" in demo.log()


def test_a_logout_ends_the_sockets_of_all_tabs(demo: Demo, alice: Window) -> None:
    alice.log_in(demo, "alice")
    alice.enter(demo, "/rooms/1")
    assert alice.run_async(WATCH) == "open"
    alice.new_tab()
    alice.enter(demo, "/rooms/2")
    assert alice.run_async(WATCH) == "open"
    rooms = alice.tabs[-2:]
    alice.new_tab()
    alice.log_out(demo)
    for tab in rooms:
        alice.show(tab)
        wait_for(lambda: alice.status == "Please log in.", 8, lambda: alice.status)
        assert alice.run("return window.ended") == [4401, "logged_out"]
        assert alice.driver.find_element(By.CSS_SELECTOR, "#status a").get_attribute("href") == (
            f"{demo.address}/login"
        )
    attempts = len(alice.attempts)
    time.sleep(1)
    assert len(alice.attempts) == attempts


def test_a_logout_elsewhere_ends_no_login_here(demo: Demo, alice: Window, bob: Window) -> None:
    alice.log_in(demo, "alice")
    alice.enter(demo, "/rooms/1")
    bob.log_out(demo)
    bob.log_in(demo, "alice")  # the same person at another computer
    bob.log_out(demo)
    wait_for(lambda: len(alice.attempts) == 2, 8, lambda: alice.attempts)
    alice.wait_live()
    assert len(alice.attempts) == 2


def test_a_page_whose_user_is_no_member_any_more_stops(demo: Demo, bob: Window) -> None:
    bob.log_in(demo, "bob")
    bob.enter(demo, "/rooms/1")
    demo.run_sql("DELETE FROM members WHERE user_id = 2")
    bob.run("live.restart()")
    wait_for(lambda: bob.status.startswith("Not allowed"), 8, lambda: bob.status)
    demo.run_sql("INSERT INTO members (room_id, user_id) VALUES (1, 2)")


def test_twenty_pages_come_back_after_a_crash(demo: Demo, alice: Window, bob: Window) -> None:
    def open_ten(window: Window, name: str) -> None:
        window.log_in(demo, name)
        window.enter(demo, "/rooms/1")
        for _ in range(9):
            window.new_tab()
            window.enter(demo, "/rooms/1")

    with ThreadPoolExecutor() as both:
        list(both.map(open_ten, [alice, bob], ["alice", "bob"]))
    pages = [(window, tab) for window in (alice, bob) for tab in window.tabs]
    assert len(pages) == 20

    killed = time.time()
    demo.stop(signal.SIGKILL)
    time.sleep(5)  # and the time it takes to start
    demo.start(demo.port)

    # By themselves. Few are unlucky three times in a row and then wait for up to 24 s: these are
    # told that they are online, so that the test has an end.
    patience = time.monotonic() + 15
    first_retries = []
    for window, tab in pages:
        window.show(tab)
        while window.status != "Live":
            if time.monotonic() > patience:
                assert re.match("Connecting|Reconnecting in|Live", window.status)
                window.run("window.dispatchEvent(new Event('online'))")
                window.wait_live()
            time.sleep(0.05)
        retries = [at for at in window.attempts if at > killed]
        assert 1 <= len(retries) <= 6
        first_retries.append(retries[0] - killed)
    assert min(first_retries) > 0.5
    assert max(first_retries) - min(first_retries) > 1
    assert max(first_retries) < 6

    # Live means live, on all of them.
    alice.type("#compose input[name=text]", "all here?\n")
    for window, tab in pages:
        window.show(tab)
        wait_for(lambda: window.lines[-1] == "all here?", 5, lambda: window.lines)  # noqa: B023
