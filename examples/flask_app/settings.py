"""The secret of the app: from config, from the environment, or made once and kept."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from flask import Flask

MIN_KEY_BYTES = 32  # more than anybody can guess


def load_key(app: Flask, name: str) -> str | bytes:
    """Find the key called `name`; a short one is an error, not a silent risk."""
    key: str | bytes = (
        app.config.get(name)
        or os.environ.get(name)
        or read_or_create(Path(app.instance_path) / f"{name.lower()}.txt")
    )
    size = len(key.encode() if isinstance(key, str) else key)
    if size < MIN_KEY_BYTES:
        raise ValueError(f"{name} must have at least {MIN_KEY_BYTES} bytes, it has {size}")
    return key


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
