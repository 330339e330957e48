"""The data of the app in one SQLite file.

Every call opens its own short connection, so a `Store` may be used from any thread. Call it in
one: it waits for the disk.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS users (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS rooms (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS members (
    room_id INTEGER NOT NULL REFERENCES rooms (id),
    user_id INTEGER NOT NULL REFERENCES users (id),
    PRIMARY KEY (room_id, user_id)
);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    room_id INTEGER NOT NULL REFERENCES rooms (id),
    user_id INTEGER NOT NULL REFERENCES users (id),
    text TEXT NOT NULL,
    at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_by_room ON messages (room_id, id);
CREATE TABLE IF NOT EXISTS announcements (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users (id),
    text TEXT NOT NULL,
    at TEXT NOT NULL
);
"""

DEMO_USERS = {"alice": "alice-demo", "bob": "bob-demo"}
DEMO_ROOMS = {"general": ["alice", "bob"], "alice's desk": ["alice"]}

SELECT_MESSAGES = """
SELECT messages.id, room_id AS room, users.name AS "from", text, at
FROM messages JOIN users ON users.id = user_id
"""
SELECT_ANNOUNCEMENTS = """
SELECT announcements.id, users.name AS "from", text, at
FROM announcements JOIN users ON users.id = user_id
"""

MAX_ID = 2**63 - 1  # SQLite raises an error for anything larger


@dataclass(frozen=True)
class User:
    id: str
    name: str


@dataclass(frozen=True)
class Room:
    id: int
    name: str


def hash_password(password: str) -> str:
    """Return what is kept of a password: salt and scrypt's hash."""
    salt = secrets.token_bytes(16)
    return f"{_encode(salt)}${_encode(_scrypt(password, salt))}"


def is_password(password: str, password_hash: str) -> bool:
    salt, _, expected = password_hash.partition("$")
    found = _scrypt(password, base64.b64decode(salt))
    return hmac.compare_digest(found, base64.b64decode(expected))


def _scrypt(password: str, salt: bytes) -> bytes:
    # 32 MiB and about 60 ms for each guess.
    return hashlib.scrypt(password.encode(), salt=salt, n=2**15, r=8, p=1, maxmem=2**26)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Store:
    """Reads and writes the SQLite file at `path`; makes and seeds it if it is new."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection:
            # One transaction: processes that start together seed only once.
            connection.executescript("BEGIN IMMEDIATE;" + SCHEMA)
            if connection.execute("SELECT 1 FROM users").fetchone() is None:
                _seed(connection)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            with connection:  # commit, or roll back on an error
                yield connection

    def _rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._open() as connection:
            return connection.execute(sql, values).fetchall()

    def user(self, user_id: str) -> User | None:
        for row in self._rows("SELECT id, name FROM users WHERE id = ?", user_id):
            return _user(row)
        return None

    def credentials(self, name: str) -> tuple[User, str] | None:
        """The user called `name` and the hash of their password."""
        for row in self._rows("SELECT * FROM users WHERE name = ?", name):
            return _user(row), row["password_hash"]
        return None

    def room(self, room: int) -> Room | None:
        if room > MAX_ID:
            return None
        for row in self._rows("SELECT id, name FROM rooms WHERE id = ?", room):
            return Room(row["id"], row["name"])
        return None

    def rooms_of(self, user_id: str) -> list[Room]:
        sql = """SELECT id, name FROM rooms JOIN members ON room_id = id
                 WHERE user_id = ? ORDER BY id"""
        return [Room(row["id"], row["name"]) for row in self._rows(sql, user_id)]

    def may_read(self, user_id: str, room: int) -> bool:
        """The one place that decides who may read and write in a room."""
        if not 0 < room <= MAX_ID:
            return False
        sql = "SELECT 1 FROM members WHERE user_id = ? AND room_id = ?"
        return bool(self._rows(sql, user_id, room))

    def last_messages(self, room: int, limit: int = 50) -> list[dict[str, Any]]:
        """The newest messages of a room, oldest first."""
        sql = SELECT_MESSAGES + "WHERE room_id = ? ORDER BY messages.id DESC LIMIT ?"
        return [dict(row) for row in reversed(self._rows(sql, room, limit))]

    def add_message(self, user_id: str, room: int, text: str) -> dict[str, Any]:
        """Store a message; returns its id, room, from (a name), text and at (UTC)."""
        with self._open() as connection:
            added = connection.execute(
                "INSERT INTO messages (room_id, user_id, text, at) VALUES (?, ?, ?, ?)",
                (room, user_id, text, _now()),
            )
            sql = SELECT_MESSAGES + "WHERE messages.id = ?"
            return dict(connection.execute(sql, (added.lastrowid,)).fetchone())

    def add_announcement(self, user_id: str, text: str) -> dict[str, Any]:
        """Store an announcement; returns its id, from (a name), text and at (UTC)."""
        with self._open() as connection:
            added = connection.execute(
                "INSERT INTO announcements (user_id, text, at) VALUES (?, ?, ?)",
                (user_id, text, _now()),
            )
            sql = SELECT_ANNOUNCEMENTS + "WHERE announcements.id = ?"
            return dict(connection.execute(sql, (added.lastrowid,)).fetchone())

    def latest_announcement(self) -> dict[str, Any] | None:
        sql = SELECT_ANNOUNCEMENTS + "ORDER BY announcements.id DESC LIMIT 1"
        for row in self._rows(sql):
            return dict(row)
        return None


def _user(row: sqlite3.Row) -> User:
    return User(str(row["id"]), row["name"])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _seed(connection: sqlite3.Connection) -> None:
    for name, password in DEMO_USERS.items():
        connection.execute(
            "INSERT INTO users (name, password_hash) VALUES (?, ?)",
            (name, hash_password(password)),
        )
    for room, names in DEMO_ROOMS.items():
        room_id = connection.execute("INSERT INTO rooms (name) VALUES (?)", (room,)).lastrowid
        for name in names:
            connection.execute(
                "INSERT INTO members (room_id, user_id) SELECT ?, id FROM users WHERE name = ?",
                (room_id, name),
            )
