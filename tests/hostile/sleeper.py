"""A client to be stopped with SIGSTOP: `python -m tests.hostile.sleeper ws://127.0.0.1:8001/push`.

Prints `open`, then the close code that it saw.
"""

from __future__ import annotations

import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def main() -> None:
    """Connect and wait for the end."""
    with connect(sys.argv[1], ping_interval=None, compression=None) as client:
        print("open", flush=True)
        try:
            while True:
                client.recv()
        except ConnectionClosed as closed:
            print(1006 if closed.rcvd is None else closed.rcvd.code, flush=True)


if __name__ == "__main__":
    main()
