"""CSRF guard: a random token in the session must come back with every changing request."""

from __future__ import annotations

import hmac
import secrets

from starlette.exceptions import HTTPException
from starlette.requests import Request


def token(request: Request) -> str:
    """The token of this session, made on first use; forms and pages embed it."""
    if "csrf_token" not in request.session:
        request.session["csrf_token"] = secrets.token_urlsafe(32)
    value: str = request.session["csrf_token"]
    return value


async def check(request: Request) -> None:
    """Refuse a request without the right token (form field or header)."""
    sent = request.headers.get("X-CSRF-Token") or (await request.form()).get("csrf_token")
    expected: str = request.session.get("csrf_token", "")
    if not isinstance(sent, str) or not sent or not expected:
        raise HTTPException(400, "The CSRF token is missing. Reload the page and try again.")
    # Compared as bytes: compare_digest refuses text that is not ASCII.
    if not hmac.compare_digest(sent.encode(), expected.encode()):
        raise HTTPException(400, "The CSRF token is wrong. Reload the page and try again.")
