"""What a script found: printed as Markdown, and written as JSON where that is asked for."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Report", "arguments", "median", "percentile", "spread"]

#: Packages whose version says what was measured.
_PACKAGES: Final = (
    *("ws-middleware", "uvloop", "gunicorn", "flask", "waitress", "redis"),
    *("flask-sock", "flask-socketio", "python-socketio", "gevent"),
    *("uvicorn", "websockets", "wsproto"),
)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` of all values do not exceed (nearest rank)."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the median, or not-a-number where there is nothing."""
    return statistics.median(values) if values else math.nan


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median with the smallest and the largest: `1.02 (0.97-1.10)`."""
    low, high = (min(values), max(values)) if values else (math.nan, math.nan)
    return f"{median(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def arguments(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with what every script takes."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default {rounds}")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


@dataclass
class Report:
    """The tables of one script, under which load they were had, and the raw figures."""

    name: str
    title: str
    figures: dict[str, Any] = field(default_factory=dict)
    _load_before: float = field(default_factory=_load)
    _parts: list[str] = field(default_factory=list)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table."""
        lines = [columns, ["---"] * len(columns), *rows]
        self._parts.append("\n".join(f"| {' | '.join(map(str, line))} |" for line in lines))

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(text)

    def progress(self, text: str) -> None:
        """Tell whoever waits how far it is; no part of the report."""
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def publish(self, path: Path | None) -> None:
        """Print the report, and write the figures to `path`."""
        load = f"load average {self._load_before} before, {_load()} after"
        machine = f"{os.cpu_count()} cores, {load}"
        versions = ", ".join(f"{name} {each}" for name, each in _versions().items())
        print(f"## {self.title}\n")
        print("\n\n".join(self._parts))
        print(f"\n{machine}. {versions}.\n", flush=True)
        if path is not None:
            known = {"name": self.name, "machine": machine, "versions": _versions()}
            path.write_text(json.dumps({**known, **self.figures}, indent=1) + "\n")
