"""The demo as a process of its own, and a browser window to look at it with.

Chromium is the system's. Where there is none the tests are skipped, but not where CI counts.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Self

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

__all__ = ["Demo", "Window", "find_program", "open_window", "wait_for"]

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1000,800",
]


def wait_for(condition: Callable[[], bool], seconds: float, what: object) -> None:
    """Ask until it is so; `what` is said if it never is, and may be something to call."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            told = what() if callable(what) else what
            msg = f"not within {seconds:g} s: {told}"
            raise AssertionError(msg)
        time.sleep(0.05)


class Demo:
    """`python -m examples.flask_app` with a database and a log in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._log_path = folder / "log.txt"
        self._database = folder / "demo.sqlite3"
        self._environ = {
            **os.environ,
            "SECRET_KEY": "s" * 32,
            "FLASK_DATABASE": str(self._database),
        }
        self._process: subprocess.Popen[str] | None = None
        self.address = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        # Ctrl-C ends it cleanly, open sockets or not.
        assert self.stop(signal.SIGINT) == 0, self.log()
        assert "Traceback" not in self.log(), self.log()

    def start(self, port: int = 0) -> None:
        """Start it; it serves when its one line has come."""
        with self._log_path.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "examples.flask_app", "--port", str(port)],
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

    def stop(self, how: signal.Signals) -> int:
        """End it and return its exit code."""
        assert self._process is not None
        self._process.send_signal(how)
        with self._process:  # closes its pipe
            return self._process.wait(10)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def log(self) -> str:
        return self._log_path.read_text()

    def run_sql(self, sql: str) -> None:
        """Change the database behind the demo's back."""
        with closing(sqlite3.connect(self._database)) as connection, connection:
            connection.execute(sql)


class Window:
    """A browser of somebody's own: own cookies, several tabs."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def get(self, url: str) -> None:
        self.driver.get(url)

    def run(self, script: str, *values: object) -> Any:
        return self.driver.execute_script(script, *values)

    def run_async(self, script: str, *values: object) -> Any:
        """Run a script that calls `done(result)`."""
        script = f"const done = arguments[arguments.length - 1]; {script}"
        return self.driver.execute_async_script(script, *values)

    def log_in(self, demo: Demo, name: str) -> None:
        self.get(f"{demo.address}/login")
        if self.driver.find_elements(By.ID, "username"):
            self.type("#username", name)
            self.type("#password", f"{name}-demo\n")
        # A click or an Enter may return before the next page is there.
        wait_for(lambda: name in self.account, 8, lambda: self.account)

    def log_out(self, demo: Demo) -> None:
        self.get(demo.address)
        if self.account:
            self.click("form.account button")
        wait_for(lambda: not self.account, 8, lambda: self.account)

    @property
    def account(self) -> str:
        """Whom the page calls logged in; empty if nobody."""
        script = "return document.querySelector('form.account')?.textContent ?? ''"
        return str(self.run(script))

    def type(self, selector: str, text: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, selector).send_keys(text)

    def click(self, selector: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def text(self, selector: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    @property
    def status(self) -> str:
        found: str = self.run("return document.getElementById('status').textContent")
        return found

    @property
    def lines(self) -> list[str]:
        script = "return [...document.querySelectorAll('#messages .text')].map(e => e.textContent)"
        found: list[str] = self.run(script)
        return found

    @property
    def attempts(self) -> list[float]:
        """When each attempt to connect began, in seconds since the epoch."""
        return [at / 1000 for at in self.run("return window.wsAttempts")]

    def wait_live(self, seconds: float = 10) -> None:
        wait_for(lambda: self.status == "Live", seconds, lambda: self.status)

    def enter(self, demo: Demo, path: str) -> None:
        """Open a page and wait until its sockets are open."""
        self.get(demo.address + path)
        self.wait_live()

    @property
    def tabs(self) -> list[str]:
        return self.driver.window_handles

    def new_tab(self) -> None:
        self.driver.switch_to.new_window("tab")

    def show(self, tab: str) -> None:
        self.driver.switch_to.window(tab)

    def close_tabs(self) -> None:
        """Leave one empty tab."""
        self.driver.switch_to.new_window("tab")
        kept = self.driver.current_window_handle
        for tab in self.tabs:
            if tab != kept:
                self.show(tab)
                self.driver.close()
        self.show(kept)


def find_program(*names: str) -> str:
    """Return the path of the first program there is; else skip, or fail where CI says so."""
    for name in names:
        if path := shutil.which(name):
            return path
    reason = f"no {' or '.join(names)} on PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def open_window(profile: Path, *flags: str) -> Iterator[Window]:
    """Open a browser with cookies of its own, kept in the folder `profile`."""
    options = webdriver.ChromeOptions()
    options.binary_location = find_program("chromium", "chromium-browser")
    for flag in [*FLAGS, *flags, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    service = webdriver.ChromeService(find_program("chromedriver"))
    driver = webdriver.Chrome(options, service)
    driver.set_page_load_timeout(15)
    driver.set_script_timeout(15)
    try:
        yield Window(driver)
    finally:
        driver.quit()
