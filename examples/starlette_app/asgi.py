"""For a server's command line: uvicorn examples.starlette_app.asgi:app."""

from __future__ import annotations

import logging

from . import create_app

logging.basicConfig(level=logging.INFO)
app = create_app()
