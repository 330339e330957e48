"""Runs the blocks of a page, in order, in one namespace and one folder of the page's own.

The ports that pages use are replaced by free ones, in what is shown and in what is hidden; nothing
else is. A program runs as a program: what blocks there blocks nothing here.
"""

from __future__ import annotations

import contextlib
import json
import linecache
import logging
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import pytest

from tests.docs.pages import ROOT, Block, read_blocks
from tests.redis_server import RedisServer, need_redis
from ws_middleware import WebSockets
from ws_middleware.cli import main as cli
from ws_middleware.variables import known_variables

__all__ = ["Runner"]

#: The ports that pages use: Flask's, and the one of `listen`.
_PORTS = ("5000", "8001")

#: How long a program may take to open its port or to end, and a log to get its lines.
_PATIENCE = 20.0

#: The port of Redis, where a page has one.
_REDIS = "6379"

#: What the pages install beside this package.
_PACKAGES = frozenset({"fastapi", "httpx2", "itsdangerous", "pytest", "uvicorn", "websockets"})


def free_port() -> int:
    """A port that nobody has right now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for_port(port: str, program: subprocess.Popen[bytes]) -> None:
    """Wait until somebody listens there."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and program.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), 1):
            return
        time.sleep(0.02)
    pytest.fail(f"the program did not open port {port}")


def matches(shown: str, actual: str) -> bool:
    """Whether `actual` is what a page shows; an ellipsis there stands for anything."""
    parts = (re.escape(part) for part in shown.split("…"))
    return re.fullmatch(".*?".join(parts), actual) is not None


def without_widths(text: str) -> str:
    """A table of a terminal without what depends on the longest of its values."""
    lines = (re.sub(r"-{2,}", "--", re.sub(r" +", " ", line)) for line in text.splitlines())
    return "\n".join(line.rstrip() for line in lines)


class _Log(logging.Handler):
    """Keeps the lines as `logging.basicConfig()` would print them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter(logging.BASIC_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record).partition("\n")[0])


class Runner:
    """Runs one page."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page = page
        self.folder = folder
        #: `folder` is for hidden code: where the page's files are.
        self.namespace: dict[str, Any] = {"__name__": "__page__", "folder": folder}
        self._ports = {port: str(free_port()) for port in _PORTS}
        self._programs: list[subprocess.Popen[bytes]] = []
        self._exported: dict[str, str] = {}
        self._output: str | None = None
        self._redis: RedisServer | None = None
        self._log = _Log()
        self._raised: BaseException | None = None

    def __enter__(self) -> Self:
        logger = logging.getLogger("ws_middleware")
        self._level = logger.level
        logger.addHandler(self._log)
        logger.setLevel(logging.INFO)
        return self

    def __exit__(self, *args: object) -> None:
        for program in self._programs:
            program.terminate()
        for program in self._programs:
            try:
                program.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                program.kill()
                raise
        for value in self.namespace.values():
            if isinstance(value, WebSockets):
                value.close(timeout=2).result(5)
            elif isinstance(value, contextlib.ExitStack):
                value.close()
        if self._redis is not None:
            self._redis.kill()
        logger = logging.getLogger("ws_middleware")
        logger.removeHandler(self._log)
        logger.setLevel(self._level)

    def run(self) -> None:
        """Run every block."""
        for block in read_blocks(self.page):
            try:
                self.run_block(block)
            except BaseException as error:
                error.add_note(f"in the block at {self.page.name}:{block.line}")
                raise

    def run_block(self, block: Block) -> None:
        """Run one block, whatever it is."""
        if block.directive == "redis":
            self._start_redis()
            return
        run = {
            "python": self._python,
            "javascript": self._javascript,
            "json": self._json,
            "text": self._text,
            "ini": self._text,
            "nginx": self._text,
            "yaml": self._text,
            "console": self._console,
            "sh": self._shell,
        }.get(block.language)
        assert run is not None, f"no way to check a block in {block.language or 'no language'}"
        run(block)

    def _start_redis(self) -> None:
        self._redis = RedisServer(need_redis(), self.folder)
        self._redis.start()
        self._ports[_REDIS] = str(self._redis.port)
        self.namespace["redis_server"] = self._redis

    def _ours(self, text: str) -> str:
        """With the ports that are ours in this run."""
        for shown, port in self._ports.items():
            text = re.sub(rf"\b{shown}\b", port, text)
        return text

    def _shown(self, text: str) -> str:
        """With the ports that the page shows."""
        for shown, port in self._ports.items():
            text = re.sub(rf"\b{port}\b", shown, text)
        return text

    # --- python ------------------------------------------------------------------------------

    def _python(self, block: Block) -> None:
        if block.directive == "value":
            self._text(block)
            return
        source = self._ours(block.code)
        if block.directive in {"file", "serve", "pytest"}:
            self._write(block.argument, source)
            if block.directive == "serve":
                self._serve(block.argument, source)
            elif block.directive == "pytest":
                self._pytest(block.argument)
            return
        assert block.directive in {"", "run", "raises"}, f"{block.directive} is not for Python"
        # Where it stands in the page, so that tracebacks lead there.
        name = f"<{self.page.name}:{block.line}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        code = compile(source, name, "exec", dont_inherit=True)
        if block.directive == "raises":
            with pytest.raises(Exception) as raised:
                exec(code, self.namespace)
            self._raised = raised.value
        else:
            exec(code, self.namespace)

    def _write(self, name: str, source: str) -> None:
        compile(source, name, "exec", dont_inherit=True)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")

    def _environ(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("WSM_")},
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}",
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            **self._exported,
        }

    def _serve(self, name: str, source: str) -> None:
        self._start([sys.executable, name], f"{name}.log", source)

    def _start(self, command: list[str], log_name: str, source: str, **environ: str) -> None:
        """Start a program, and wait until it has opened the ports that its source names."""
        with (self.folder / log_name).open("wb") as log:
            program = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**self._environ(), **environ},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._programs.append(program)
        for port in self._ports.values():
            if port in source:
                wait_for_port(port, program)

    def _pytest(self, name: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name],
            cwd=self.folder,
            env=self._environ(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    # --- what is shown -----------------------------------------------------------------------

    def _text(self, block: Block) -> None:
        shown = block.code.rstrip("\n")
        if block.directive == "error":
            assert self._raised is not None, "no block before this one has raised"
            kind = type(self._raised)
            module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
            actual = self._shown(f"{module}{kind.__qualname__}: {self._raised}")
            assert matches(shown, actual), f"shown: {shown}\nactual: {actual}"
        elif block.directive == "log":
            self._find_in_log(shown.splitlines())
        elif block.directive == "output":
            assert self._output is not None, "no command has been run"
            actual = without_widths(self._shown(self._output))
            assert matches(without_widths(shown), actual), f"shown: {shown}\nactual: {actual}"
        elif block.directive == "file":
            (self.folder / block.argument).write_text(self._ours(block.code), encoding="utf-8")
        else:
            assert block.directive == "value", "say in a comment what this text is; see pages.py"
            assert matches(shown, self._shown(str(self._value(block)))), self._value(block)

    def _value(self, block: Block) -> Any:
        return eval(self._ours(block.argument), self.namespace)

    def _find_in_log(self, shown: list[str]) -> None:
        end = time.monotonic() + _PATIENCE
        while True:
            lines = iter(self._logged())
            missing = next(
                (each for each in shown if not any(matches(each, it) for it in lines)), ""
            )
            if not missing:
                return
            assert time.monotonic() < end, f"not logged: {missing}\n" + "\n".join(self._logged())
            time.sleep(0.02)

    def _logged(self) -> list[str]:
        texts = [path.read_text(encoding="utf-8") for path in sorted(self.folder.glob("*.log"))]
        return [self._shown(line) for line in [*"\n".join(texts).splitlines(), *self._log.lines]]

    def _json(self, block: Block) -> None:
        shown = json.loads(block.code)
        if block.directive:
            assert block.directive == "value", f"{block.directive} is not for JSON"
            assert shown == self._value(block), self._value(block)

    # --- other languages ---------------------------------------------------------------------

    def _javascript(self, block: Block) -> None:
        assert block.directive in {"", "file"}, f"{block.directive} is not for JavaScript"
        node = shutil.which("node")
        if node is None:
            assert os.environ.get("CI") != "true", "CI needs Node.js to check the JavaScript"
            return
        path = self.folder / f"block{block.line}.mjs"  # a module: `await` as in a browser's console
        path.write_text(self._ours(block.code), encoding="utf-8")
        done = subprocess.run([node, "--check", str(path)], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        if block.directive == "file":
            target = self.folder / block.argument
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)

    def _console(self, block: Block) -> None:
        assert block.directive in {"", "begin", "command"}, f"{block.directive} is for no command"
        for line in block.code.replace("\\\n", " ").splitlines():
            # Output belongs into a text block, where it is checked.
            assert line.startswith("$ "), f"a console block has commands only: {line}"
            words = shlex.split(self._ours(line.removeprefix("$ ")), comments=True)
            if words[:1] == ["export"]:
                self._export(words[1:])
            elif block.directive == "begin":
                self._begin(words)
            elif block.directive == "command":
                self._run(words, int(block.argument or 0))
            else:
                self._command(line.removeprefix("$ "))

    def _export(self, words: list[str]) -> None:
        environ, rest = self._divide(words)
        assert not rest, f"export takes variables, not {rest}"
        self._exported.update(environ)

    @staticmethod
    def _divide(words: list[str]) -> tuple[dict[str, str], list[str]]:
        """The variables that a command begins with, and the rest of it."""
        environ: dict[str, str] = {}
        for at, word in enumerate(words):
            name, equals, value = word.partition("=")
            if not equals or not name.isidentifier():
                return environ, words[at:]
            assert name in known_variables() or not name.startswith("WSM_"), f"no variable {name}"
            environ[name] = value
        return environ, []

    def _begin(self, words: list[str]) -> None:
        environ, command = self._divide(words)
        log_name = f"{len(self._programs)}.log"
        self._start([self._find(command[0]), *command[1:]], log_name, " ".join(command), **environ)

    def _run(self, words: list[str], code: int) -> None:
        environ, command = self._divide(words)
        done = subprocess.run(
            [self._find(command[0]), *command[1:]],
            cwd=self.folder,
            env={**self._environ(), **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )
        self._output = done.stdout
        assert done.returncode == code, f"{shlex.join(words)}: {done.returncode}\n{done.stdout}"

    def _find(self, name: str) -> str:
        found = shutil.which(name, path=self._environ()["PATH"])
        if found is None:
            assert os.environ.get("CI") != "true", f"CI needs {name} to run what a page shows"
            pytest.skip(f"{name} is missing")
        return found

    def _shell(self, block: Block) -> None:
        for line in block.code.splitlines():
            if line.strip() and not line.startswith("#"):
                self._command(line)

    def _command(self, line: str) -> None:
        """Check that a command is one that the reader can run. It is not run here."""
        environ, words = self._divide(shlex.split(line, comments=True))
        assert words, f"no command: {line}"
        command, *arguments = words
        checks = {
            "make": self._check_make,
            "python": self._check_python,
            "pip": self._check_pip,
            "ws-middleware": self._check_ours,
        }
        assert command in checks, f"not on the list of commands that can be checked: {command}"
        with patch.dict(os.environ, {**self._exported, **environ}):
            checks[command](arguments)

    @staticmethod
    def _check_make(arguments: list[str]) -> None:
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        variables = re.findall(r"\$\(([A-Z]+)\)", (ROOT / "Makefile").read_text())
        for each in arguments:
            name, equals, _ = each.partition("=")
            assert name in (variables if equals else targets), f"make knows no {each}"

    def _check_python(self, arguments: list[str]) -> None:
        assert arguments, "python alone shows nothing"
        if arguments[0] != "-m":
            here = (self.folder / arguments[0]).is_file() or (ROOT / arguments[0]).is_file()
            assert here, f"no file {arguments[0]}"
        elif arguments[1] == "pip":
            self._check_pip(arguments[2:])
        else:
            assert find_spec(arguments[1]) is not None, f"no module {arguments[1]}"

    @staticmethod
    def _check_ours(arguments: list[str]) -> None:
        try:
            cli._parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"ws-middleware takes no {shlex.join(arguments)}")

    @staticmethod
    def _check_pip(arguments: list[str]) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert arguments[0] == "install", f"pip {arguments[0]}"
        for each in arguments[1:]:
            name, _, extras = each.partition("[")
            assert name in {"-e", "."} | _PACKAGES, f"pip install {each}"
            if extras:
                for extra in extras.rstrip("]").split(","):
                    assert extra in project["optional-dependencies"], f"no extra {extra}"
