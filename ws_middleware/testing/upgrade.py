"""The upgrade request of a test's client, and the answer to it."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .client import ClientSocket

__all__ = ["ANSWER", "SWITCHING", "Refused", "Request", "check_answer"]

#: What a browser would draw by lot.
_KEY: Final = base64.b64encode(b"sixteen is enough"[:16]).decode()
#: Virtual seconds that an answer may take; the session's own limit comes before.
ANSWER: Final = 3600.0
#: Switching Protocols.
SWITCHING: Final = 101


class Refused(Exception):  # noqa: N818 - it is an answer
    """The upgrade was refused.

    `status`, `headers` and `body` are those of the HTTP answer; `code` and `detail` those of its
    problem document, "" where the app sent a body of its own. With `refuse_with="close"` there is
    no HTTP answer: then `close_code` is what the client gets (4401), and `status` is that less
    4000.
    """

    def __init__(
        self,
        status: int,
        code: str = "",
        detail: str = "",
        *,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        close_code: int | None = None,
    ) -> None:
        super().__init__(" ".join(str(part) for part in (status, code, detail) if part))
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = tuple(headers)
        self.body = body
        self.close_code = close_code

    @classmethod
    def over_http(cls, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> Refused:
        """Read an HTTP answer."""
        code = detail = ""
        try:
            document = json.loads(body)
            code, detail = str(document["code"]), str(document["detail"])
        except (ValueError, KeyError, TypeError):
            pass  # an answer of the app's own
        return cls(status, code, detail, headers=headers, body=body)


class Request:
    """What a client asks for."""

    def __init__(
        self,
        path: str,
        headers: list[tuple[str, str]],
        origin: str | None,
        subprotocols: tuple[str, ...],
        base_url: str | None,
        address: tuple[str, int] | None,
    ) -> None:
        self.path = path
        self.base_url = base_url
        self.address = address
        self._headers = headers
        self._origin = origin
        self._subprotocols = subprotocols

    def fields(self, scheme: str, host: str) -> list[tuple[str, str]]:
        """Return the header fields of the upgrade request but for the Host."""
        fields = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": _KEY,
            "Sec-WebSocket-Version": "13",
        }
        if self._origin is not None:
            fields["Origin"] = f"{scheme}://{host}" if self._origin == "same" else self._origin
        if self._subprotocols:
            fields["Sec-WebSocket-Protocol"] = ", ".join(self._subprotocols)
        given = {name.lower() for name, _ in self._headers}
        own = [pair for pair in fields.items() if pair[0].lower() not in given]
        return [*own, *self._headers]


def check_answer(ws: ClientSocket) -> None:
    """Raise what the answer says, unless it is a yes.

    Raises:
        Refused: it is a no.
    """
    answer = ws.answer
    if answer.status != SWITCHING:
        raise Refused.over_http(answer.status or 0, answer.headers, answer.body)
    if not ws.was_let_in:
        code, reason = ws.close_code or 0, ws.close_reason
        raise Refused(code - 4000, reason, headers=answer.headers, close_code=code)
