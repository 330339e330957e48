"""`python -m bench`: all scripts, one after the other; `python -m bench NAME ...`: that one."""

from __future__ import annotations

import signal
import sys

from . import (
    echo,
    hub_send,
    wsgi_connect,
    wsgi_events,
    wsgi_idle,
    wsgi_passthrough,
    wsgi_workers,
)

SCRIPTS = {
    "wsgi_passthrough": wsgi_passthrough.main,
    "wsgi_workers": wsgi_workers.main,
    "wsgi_connect": wsgi_connect.main,
    "wsgi_idle": wsgi_idle.main,
    "wsgi_events": wsgi_events.main,
    "hub_send": hub_send.main,
    "echo": echo.main,
}


def main() -> None:
    # An exception ends what was started; the default action would leave it behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if len(sys.argv) > 1:
        name = sys.argv[1]
        if name not in SCRIPTS:
            sys.exit(f"no script is called {name!r}; there are: {', '.join(SCRIPTS)}")
        SCRIPTS[name](sys.argv[2:])
        return
    for script in SCRIPTS.values():
        script([])


if __name__ == "__main__":
    main()
