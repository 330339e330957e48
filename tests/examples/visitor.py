"""A visitor of the demo, who uses its pages the way a browser does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

__all__ = ["Browser", "body"]


class Browser:
    """One cookie jar that reads the CSRF token out of the pages it is given."""

    def __init__(self, app: Flask) -> None:
        self.client: FlaskClient = app.test_client()

    def get(self, path: str) -> TestResponse:
        # Buffered, or the file behind a static answer stays open.
        return self.client.get(path, buffered=True)

    def csrf_token(self) -> str:
        page = self.client.get("/", follow_redirects=True).text
        found = re.search(r'name="csrf_token" value="([^"]+)"', page)
        assert found is not None
        return found[1]

    def post(self, path: str, **fields: str) -> TestResponse:
        return self.client.post(path, data={"csrf_token": self.csrf_token(), **fields})

    def post_json(self, path: str, body: object) -> TestResponse:
        headers = {"X-CSRF-Token": self.csrf_token()}
        return self.client.post(path, json=body, headers=headers)

    @property
    def cookie(self) -> dict[str, str]:
        """The header that a browser sends with every request, an upgrade included."""
        found = self.client.get_cookie("flask_demo_session")
        return {} if found is None else {"Cookie": f"{found.key}={found.value}"}

    def login(self, name: str) -> Browser:
        answer = self.post("/login", username=name, password=f"{name}-demo")
        assert (answer.status_code, answer.location) == (302, "/")
        return self


def body(answer: TestResponse) -> dict[str, Any]:
    """The JSON object of an answer; a page has none, which is an error here."""
    found = answer.json
    assert isinstance(found, dict)
    return found
