"""Run Autobahn|Testsuite against a WebSocket echo server on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .errors import HarnessError
from .grading import Report, grade
from .python27 import clean_environment, ready_wstest, tail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]

PROTOCOL = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
BIG_MESSAGES = ("9.*",)

#: Compression is 216 cases and most of the time of a full run. From each group a tiny message, a
#: middling one (12.* only) and one that is sent in fragments.
COMPRESSION_SAMPLE = (
    *(f"12.{group}.{case}" for group in range(1, 6) for case in (1, 5, 11)),
    *(f"13.{group}.{case}" for group in range(1, 8) for case in (1, 11)),
)

SETS = {
    "core": (*PROTOCOL, *BIG_MESSAGES),
    "fast": (*PROTOCOL, *BIG_MESSAGES, *COMPRESSION_SAMPLE),
    "full": (*PROTOCOL, *BIG_MESSAGES, "12.*", "13.*"),
}

#: How many cases each set has in the pinned suite. The suite stops without a word when it cannot
#: connect any more, and what it has not run would otherwise pass.
SET_SIZES = {"core": 301, "fast": 330, "full": 517}

#: A full run takes about ten minutes; a suite that hangs must not hang its caller.
RUN_TIMEOUT = 3600.0

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def suite_directory(argument: Path | None, env: Mapping[str, str]) -> Path:
    """Return where the suite lives: the argument, else $AUTOBAHN_DIR, else below the repository."""
    chosen = argument or env.get("AUTOBAHN_DIR") or ROOT / ".cache" / "autobahn"
    return Path(chosen).resolve()


def select_cases(name: str) -> tuple[str, ...]:
    """Return the case patterns of a named set, or of a list such as `1.*,7.3.1`."""
    if name in SETS:
        return SETS[name]
    cases = tuple(case.strip() for case in name.split(",") if case.strip())
    if not cases or not all(_is_pattern(case) for case in cases):
        msg = f"{name!r} is neither a set ({', '.join(SETS)}) nor a list of cases like '1.*,7.3.1'"
        raise HarnessError(msg)
    return cases


def _is_pattern(case: str) -> bool:
    return all(part == "*" or part.isdecimal() for part in case.split("."))


def check_url(url: str) -> str:
    """Return `url` if it is a WebSocket on this machine: the suite is an attack on all others."""
    parts = urlsplit(url)
    if parts.scheme != "ws" or parts.hostname not in LOOPBACK:
        msg = f"{url!r} is not a ws:// address on this machine"
        raise HarnessError(msg)
    return url


def build_spec(agent: str, url: str, cases: Sequence[str], outdir: Path) -> dict[str, object]:
    """Build what wstest reads: whom to test, with what, and where the reports go."""
    return {
        "outdir": str(outdir),
        "servers": [{"agent": agent, "url": url}],
        "cases": list(cases),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }


class Suite:
    """The suite, set up in a directory that is kept and used again."""

    def __init__(self, directory: Path, env: Mapping[str, str] = os.environ) -> None:
        """Set the suite up, unless `directory` has it already."""
        self._directory = directory
        self._env = env
        self._wstest = ready_wstest(directory, env)

    def run(self, agent: str, url: str, case_set: str, refusals: Sequence[str] = ()) -> Report:
        """Run a set of cases against the echo server at `url` and grade them.

        `agent` names the server in the suite's own HTML reports, below `reports/`.
        """
        outdir = self._directory / "reports" / agent
        spec = build_spec(agent, check_url(url), select_cases(case_set), outdir)
        seconds = self._wstest_run(agent, spec, outdir)
        index = read_index(outdir / "index.json", agent, SET_SIZES.get(case_set, 1))
        return grade(index, refusals, partial=case_set not in SETS, seconds=seconds)

    def _wstest_run(self, agent: str, spec: Mapping[str, object], outdir: Path) -> float:
        """Run wstest and return how many seconds it took."""
        shutil.rmtree(outdir, ignore_errors=True)  # no old result may stand for a new one
        outdir.mkdir(parents=True)
        spec_file = self._directory / f"{agent}.json"
        spec_file.write_text(json.dumps(spec, indent=1))
        started = time.monotonic()
        self._logged(self._directory / f"{agent}.log", spec_file)
        return time.monotonic() - started

    def _logged(self, log: Path, spec_file: Path) -> None:
        command = [str(self._wstest), "-m", "fuzzingclient", "-s", str(spec_file)]
        try:
            with log.open("wb") as out:
                subprocess.run(
                    command,
                    check=True,
                    env=clean_environment(self._env),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    timeout=RUN_TIMEOUT,
                )
        except (OSError, subprocess.SubprocessError) as error:
            msg = f"wstest failed: {error}\n{tail(log)}\n(all of it: {log})"
            raise HarnessError(msg) from error


def read_index(path: Path, agent: str, at_least: int) -> dict[str, object]:
    """Read an agent's part of `index.json`, which must have all the cases that were asked for."""
    index = json.loads(path.read_text()) if path.exists() else {}
    cases: dict[str, object] = index.get(agent, {})
    if len(cases) < at_least:
        msg = f"{len(cases)} cases ran, not {at_least}: is the server up, and did it stay up?"
        raise HarnessError(msg)
    return cases
