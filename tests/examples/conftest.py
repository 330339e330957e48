"""The demo with a fresh database, and the people who use it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from examples.flask_app import create_app
from examples.flask_app.db import Store
from tests.examples.visitor import Browser

if TYPE_CHECKING:
    from pathlib import Path

    from flask import Flask


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh database, made once: hashing the passwords takes most of the time."""
    path = tmp_path_factory.mktemp("seeded") / "demo.sqlite3"
    Store(path)
    return path


@pytest.fixture
def config(seeded: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "DATABASE": shutil.copy(seeded, tmp_path / "test.sqlite3"),
        "SECRET_KEY": "s" * 32,
        "TESTING": True,
    }


@pytest.fixture
def app(config: dict[str, Any]) -> Flask:
    return create_app(config)


@pytest.fixture
def guest(app: Flask) -> Browser:
    return Browser(app)


@pytest.fixture
def alice(app: Flask) -> Browser:
    return Browser(app).login("alice")


@pytest.fixture
def bob(app: Flask) -> Browser:
    return Browser(app).login("bob")


@pytest.fixture
def store(app: Flask) -> Store:
    found: Store = app.extensions["store"]
    return found
