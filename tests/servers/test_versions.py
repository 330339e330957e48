"""The oldest versions that we support, in an environment of their own.

The newest are what everything else is tested with. The oldest are the lower bounds in
`pyproject.toml`: of what the package needs, of Flask and Django, and of the servers that the tests
are installed with.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tomllib

import pytest

from .conftest import ROOT

CACHE = ROOT / ".cache"

#: Of the packages that only the tests need: those that are about what we support.
SUPPORTED = {"cheroot", "flask-login", "flask-sock", "gunicorn", "waitress"}

#: What lower bounds do not say: Flask 3.0 takes the newest Werkzeug, too, and gunicorn 20.1 needs
#: the `pkg_resources` that setuptools had once.
BESIDE = ["werkzeug==3.0", "setuptools<81"]

#: What runs the tests, in any version.
TOOLS = ["cryptography", "hypothesis", "psutil", "pytest", "redis", "websockets"]

#: What a server has in one mode it has in another, and wsgiref is as old as this Python.
NOT = "single or gunicorn-preload or wsgiref or gevent or uwsgi"

#: gunicorn 20.1 answers one of two requests that come in one packet, with sockets and without.
PIPELINED = "(what_came_before and gthread)"


def oldest() -> list[str]:
    """Return the lower bounds, as pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["django"], *extras["flask"]]
    bounds = [re.match(r"([\w-]+)>=([\d.]+)", each) for each in (*needed, *extras["dev"])]
    wanted = {re.split(r"\W", each)[0] for each in needed} | SUPPORTED
    return [f"{each[1]}=={each[2]}" for each in bounds if each and each[1] in wanted]


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter of an environment with the oldest versions, made once and kept."""
    packages = [*oldest(), *BESIDE, *TOOLS]
    text = "\n".join([sys.version, str(CACHE), *packages])
    folder = CACHE / f"oldest-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    python, stamp = folder / "bin" / "python", folder / "ready"
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *packages]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            why = f"the oldest versions cannot be installed: {done.stderr[-2000:]}"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
        stamp.touch()
    return str(python)


def test_the_docs_name_the_oldest_of_what_serves() -> None:
    pins = dict(pin.split("==") for pin in (*oldest(), BESIDE[0]))
    names = ["gunicorn", "Werkzeug", "waitress", "cheroot", "Flask", "Django"]
    told = ", ".join(f"{name} {pins[name.lower()]}" for name in names)
    page = (ROOT / "docs" / "wsgi-servers.md").read_text()
    assert told in " ".join(page.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        pytest.param(
            ["tests/servers/test_wsgi.py", "-k", f"not ({NOT} or {PIPELINED})"], id="servers"
        ),
        pytest.param(["tests/servers/test_workers.py"], id="workers"),
        pytest.param(
            ["tests/test_flask.py", "tests/test_django.py", "-k", f"not ({NOT})"], id="hosts"
        ),
    ],
)
def test_the_oldest_versions_pass(python: str, what: list[str]) -> None:
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *what]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
