"""Chromium from the system. Where there is none the tests are skipped, but not where CI counts."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from selenium import webdriver

from tests.browser.support import Demo, Window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


def find(*names: str) -> str:
    """Return the path of the first program there is; else skip, or fail where CI says so."""
    for name in names:
        if path := shutil.which(name):
            return path
    reason = f"no {' or '.join(names)} on PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def open_window(profile: Path) -> Iterator[Window]:
    options = webdriver.ChromeOptions()
    options.binary_location = find("chromium", "chromium-browser")
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    service = webdriver.ChromeService(find("chromedriver"))
    driver = webdriver.Chrome(options, service)
    driver.set_page_load_timeout(15)
    driver.set_script_timeout(15)
    try:
        yield Window(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def alices_window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    with open_window(tmp_path_factory.mktemp("alice")) as window:
        yield window


@pytest.fixture(scope="session")
def bobs_window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    with open_window(tmp_path_factory.mktemp("bob")) as window:
        yield window


@pytest.fixture
def alice(alices_window: Window) -> Window:
    alices_window.close_tabs()
    return alices_window


@pytest.fixture
def bob(bobs_window: Window) -> Window:
    bobs_window.close_tabs()
    return bobs_window


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    find("chromium", "chromium-browser")
    with Demo(tmp_path_factory.mktemp("demo")) as demo:
        yield demo
