"""CSRF guard: a random token in the session must come back with every changing request."""

from __future__ import annotations

import hmac
import secrets

from flask import abort, request, session

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def token() -> str:
    """The token of this session, made on first use; forms and pages embed it."""
    if "csrf_token" not in session:
        session["csrf_token"] = secrets.token_urlsafe(32)
    value: str = session["csrf_token"]
    return value


def check() -> None:
    """Refuse a changing request without the right token (form field or header)."""
    if request.method in SAFE_METHODS:
        return
    sent = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token", "")
    expected: str = session.get("csrf_token", "")
    if not sent or not expected:
        abort(400, "The CSRF token is missing. Reload the page and try again.")
    # Compared as bytes: compare_digest refuses text that is not ASCII.
    if not hmac.compare_digest(sent.encode(), expected.encode()):
        abort(400, "The CSRF token is wrong. Reload the page and try again.")
