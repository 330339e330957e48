"""The suite's home: a CPython 2.7 environment with pinned packages, made once and kept.

Autobahn|Testsuite runs on Python 2.7 only. Every package that it needs is pinned, the indirect
ones too: they are the last releases that work there together.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .errors import HarnessError

#: The last virtualenv that makes 2.7 environments, with dependencies of its time.
TOOL_PINS = (
    "virtualenv==20.21.1",
    "distlib==0.3.9",
    "filelock==3.12.2",
    "platformdirs==3.11.0",
)

SUITE_PINS = (
    "autobahntestsuite==25.10.1",
    "autobahn==0.10.9",
    "Twisted==19.10.0",
    "txaio==2.1.0",
    "zope.interface==4.6.0",
    "incremental==16.10.1",
    "Automat==20.2.0",
    "attrs==21.4.0",
    "constantly==15.1.0",
    "hyperlink==21.0.0",
    "idna==2.10",
    "typing==3.10.0.0",
    "PyHamcrest==1.10.1",
    "klein==17.10.0",
    "Werkzeug==1.0.1",
    "Jinja2==2.11.3",
    "MarkupSafe==1.1.1",
    "pyOpenSSL==19.1.0",
    "cryptography==3.3.2",
    "cffi==1.15.1",
    "pycparser==2.21",
    "enum34==1.1.10",
    "ipaddress==1.0.23",
    "service-identity==18.1.0",
    "pyasn1==0.5.1",
    "pyasn1-modules==0.3.0",
    "six==1.16.0",
    "ujson==2.0.3",
    "wsaccel==0.6.6",
    "unittest2==1.1.0",
    "argparse==1.4.0",
    "traceback2==1.4.0",
    "linecache2==1.0.0",
    "setuptools==44.0.0",
)

NO_PYTHON27 = (
    "Autobahn|Testsuite needs CPython 2.7 and none was found: install one with its headers "
    "(for example `pyenv install 2.7.18`), or set PYTHON27 to its path"
)

LOG_TAIL = 15

Which = Callable[[str], str | None]


def find_python27(env: Mapping[str, str], which: Which = shutil.which) -> Path:
    """Find CPython 2.7: $PYTHON27, else pyenv's, else the one on PATH."""
    if named := env.get("PYTHON27"):
        return _existing(named)
    # Before PATH: pyenv's shim may be there and yet refuse to run.
    if installed := sorted(_pyenv_root(env).glob("versions/2.7.*/bin/python2.7")):
        return installed[-1]
    if on_path := which("python2.7"):
        return Path(on_path)
    raise HarnessError(NO_PYTHON27)


def _existing(named: str) -> Path:
    if not (found := shutil.which(named)):
        msg = f"PYTHON27 is {named!r}, which is not a program; {NO_PYTHON27}"
        raise HarnessError(msg)
    return Path(found)


def _pyenv_root(env: Mapping[str, str]) -> Path:
    return Path(env.get("PYENV_ROOT") or Path.home() / ".pyenv")


def clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return `env` without what would let this Python's packages leak into another one."""
    return {k: v for k, v in env.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}


def ready_wstest(directory: Path, env: Mapping[str, str] = os.environ) -> Path:
    """Return the suite's program, set up below `directory` unless it is there already."""
    wstest = directory / "py27" / "bin" / "wstest"
    stamp = directory / f"ready-{_fingerprint(directory)}"
    if not stamp.exists():
        _set_up(directory, find_python27(env), clean_environment(env))
        stamp.touch()
    return wstest


def _fingerprint(directory: Path) -> str:
    """Other pins need another set-up, and so does a moved one: its scripts hold full paths."""
    text = "\n".join((*TOOL_PINS, *SUITE_PINS, str(directory)))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _set_up(directory: Path, python27: Path, env: Mapping[str, str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "setup.log"
    log.write_bytes(b"")
    for command in _set_up_commands(directory, python27):
        _logged(command, log, env)


def _set_up_commands(directory: Path, python27: Path) -> list[list[str]]:
    tool, py27 = directory / "tool", directory / "py27"
    is_27 = "import sys; assert sys.version_info[:2] == (2, 7), sys.version"
    return [
        [str(python27), "-c", is_27],
        [sys.executable, "-m", "venv", "--clear", str(tool)],
        [str(tool / "bin" / "python"), "-m", "pip", "install", *TOOL_PINS],
        [
            *(str(tool / "bin" / "virtualenv"), "--clear", "--no-download"),
            *("--python", str(python27), str(py27)),
        ],
        [str(py27 / "bin" / "python"), "-m", "pip", "install", *SUITE_PINS],
        [str(py27 / "bin" / "wstest"), "--autobahnversion"],
    ]


def _logged(command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
    try:
        with log.open("ab") as out:
            subprocess.run(command, check=True, env=env, stdout=out, stderr=subprocess.STDOUT)
    except (OSError, subprocess.CalledProcessError) as error:
        msg = f"the set-up of the suite failed: {error}\n{tail(log)}\n(all of it: {log})"
        raise HarnessError(msg) from error


def tail(log: Path) -> str:
    """Return the last lines of a log, which mostly hold the reason."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL:])
