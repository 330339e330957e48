"""The settings of the app: from a dict, from the environment, or a default."""

from __future__ import annotations

import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

MIN_KEY_BYTES = 32  # more than anybody can guess

INSTANCE = Path(__file__).parent / "instance"


@dataclass(frozen=True)
class Settings:
    database: Path
    secret_key: str
    #: Whether the session's cookie is for HTTPS only.
    secure: bool


def read_settings(config: dict[str, str]) -> Settings:
    """Read each from `config`, else from the environment as DEMO_ and the name."""

    def read(name: str) -> str | None:
        return config.get(name) or os.environ.get(f"DEMO_{name}")

    folder = Path(read("INSTANCE_PATH") or INSTANCE)
    key = read("SECRET_KEY") or read_or_create(folder / "secret_key.txt")
    if len(key.encode()) < MIN_KEY_BYTES:
        raise ValueError(f"SECRET_KEY must have at least {MIN_KEY_BYTES} bytes")
    return Settings(Path(read("DATABASE") or folder / "demo.sqlite3"), key, bool(read("SECURE")))


def read_or_create(path: Path) -> str:
    """Read the key file, making it first if needed.

    The file is linked into place complete and private to its owner, so that processes
    which start together never read half a key and all end up with the same one.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32))
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was first: use its key
        finally:
            os.unlink(draft)
    return path.read_text().strip()
