"""Run an app on a server that has no command of its own: `serve.py NAME PORT MODULE`."""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    name, port, module = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    app = importlib.import_module(module).app
    if name == "waitress":
        from waitress import serve  # noqa: PLC0415 - each server is its own import

        serve(app, host="127.0.0.1", port=port, threads=4)
    else:
        from werkzeug.serving import run_simple  # noqa: PLC0415

        run_simple("127.0.0.1", port, app, threaded=True)


if __name__ == "__main__":
    main()
