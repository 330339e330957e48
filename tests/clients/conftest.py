"""Node.js with the packages that the tests use, installed once and kept."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parents[2] / ".cache" / "node"
PACKAGES = {"ws": "8", "redis": "5"}


class Node(NamedTuple):
    """The command `node`, and the folder that has the packages."""

    command: str

    def run(self, script: str, *arguments: str) -> str:
        """Run a script of this folder to its end and return what it says."""
        path = Path(__file__).with_name(script)
        command = [self.command, str(path), str(FOLDER), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def node() -> Node:
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        missing = "node" if found is None else "npm"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing} is not installed, and CI must have it")
        pytest.skip(f"{missing} is not installed")
    if not all((FOLDER / "node_modules" / name / "package.json").exists() for name in PACKAGES):
        install(npm)
    return Node(found)


def install(npm: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "package.json").write_text('{"private": true}\n')
    wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
    command = [npm, "install", "--prefix", str(FOLDER), "--no-audit", "--no-fund", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
