"""`ws-middleware`: what a terminal can do with the sockets of running processes, and `serve`.

Each command is a module with `add(commands)`, which says what it takes, and a function that returns
the exit code: 0, or 1 where what was asked for could not be had. A wrong call is a 2.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import ws_middleware
from ws_middleware.errors import WebSocketError

from . import ask, publish, serve, tail

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what `arguments` (default: the command line's) ask for; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:
        return 130  # as a shell has it: 128 and SIGINT
    except BrokenPipeError:  # what reads us, `head` for one, has enough
        sys.stderr.close()
        return 0
    except (WebSocketError, ValueError, TypeError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ws-middleware",
        description="Send to, watch and ask the processes that serve WebSockets; or be one.",
    )
    parser.add_argument("--version", action="version", version=ws_middleware.__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (publish, tail, ask, serve):
        module.add(commands)
    return parser
