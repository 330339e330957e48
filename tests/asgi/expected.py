"""What is known not to hold on some server, why, and what to do instead."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["AT_START", "EXPECTED", "Expected"]

#: What the warnings begin with that a server's start brings, for what it does not do; see
#: `test_start.py` for what the rest of them says.
AT_START: Final[dict[str, tuple[str, ...]]] = {
    "hypercorn": ("hypercorn does not find clients that vanish",),
    "daphne": ("Limits(outbound_bytes=2097152, write_timeout=0.5)",),
    "granian": ("granian does not find clients that vanish",),
    "gunicorn asgi": ("gunicorn asgi does not find clients that vanish",),
}


class Expected(NamedTuple):
    """A cell that is no. In the words of the page."""

    reason: str
    remedy: str
    #: Whether it is so on every version of Python: then a yes breaks the run.
    is_certain: bool = True


_NO_DENIAL = Expected(
    "The server cannot answer an upgrade with HTTP (no `websocket.http.response`): every refusal "
    "is a bare 403. The code word is in our log.",
    'With `refuse_with="close"` a client is told 4401 and the like.',
)
_CODES = Expected(
    "It sends no code from 1001 to 2999: it raises, and the socket would stay open. We add 3000: "
    "4009, 4011, 4012.",
    "Have clients take 4009 for 1009 and so on; or codes of your own, from 4000 on.",
)
_NO_REASON_OUT = Expected("It sends no reason with a close.", "Tell it by the code.")
_NO_REASON_IN = Expected(
    "It does not pass on the reason of a client's close.", "Tell it by a code, or by a message."
)
_NO_HEADERS = Expected(
    "It drops what `websocket.accept` says of headers: no cookie can be set on a 101.",
    "Set cookies in answers to HTTP.",
)
_NO_BOUND = Expected(
    "Its `send()` never waits: whatever an app sends to a client that reads nothing is kept in "
    "memory, without a bound, and nothing hangs that could be seen.",
    "Its own `--ping-interval` and `--ping-timeout` end such a client after 50 s. Do not stream to "
    "clients that you don't trust.",
)
_NO_GOODBYE = Expected(
    "At SIGTERM it closes connections without a close frame, or leaves them to the end of the "
    "process.",
    "[`drain_on_sigterm=True`](#the-end-of-a-process) on an ASGI server. Else have clients come "
    "back after a 1006 as after a 1012; where something runs before the signal (a deployment's "
    "hook), let that call `sockets.close(code=1012)`.",
)
_ERROR_AFTER_DENIAL = Expected(
    "After an HTTP answer in place of a WebSocket, whoever gives it, uvicorn's sansio protocol "
    "writes `ASGI callable returned without completing handshake.` as an ERROR. It is not one: the "
    "answer is out.",
    "Filter that line of `uvicorn.error`, or use `--ws ws_middleware.uvicorn:WebSocketProtocol`.",
)


def _cells(
    servers: tuple[str, ...], expected: Expected, *questions: str
) -> dict[tuple[str, str], Expected]:
    return {(question, server): expected for question in questions for server in servers}


EXPECTED: Final[dict[tuple[str, str], Expected]] = {
    **_cells(
        ("daphne", "gunicorn asgi"),
        _NO_DENIAL,
        "refuse_400",
        "refuse_401",
        "refuse_origin",
        "refuse_authorize",
        "refuse_429",
        "refuse_503",
        "refuse_in_own_words",
        "native_refuse_401",
        "native_deny",
        "native_fails_early",
    ),
    **_cells(("daphne", "granian"), _NO_HEADERS, "accept_headers"),
    **_cells(
        ("werkzeug",),
        Expected(
            "Its log has the request line as it came, read before an app sees it.",
            "Send the token in a header or as a subprotocol; in production it is not the server.",
        ),
        "no_token_in_the_log",
    ),
    **_cells(
        ("daphne",),
        Expected("It drops empty messages.", "Send none: `{}` is as short as it gets."),
        "empty",
    ),
    **_cells(
        ("daphne",),
        Expected(
            "Its own bound is 1 MiB, too, and resets the connection.",
            "Raise it above `message_size`: `--websocket-max-message-size` and "
            "`--websocket-max-frame-size`.",
        ),
        "too_large",
    ),
    **_cells(
        ("daphne",),
        _CODES,
        "handler_raises",
        "handler_closes_with_a_code_of_the_protocol",
        "native_raises",
        "native_closes",
        "native_too_large",
        "close",
    ),
    **_cells(("daphne",), _NO_REASON_OUT, "handler_closes_with_a_reason"),
    **_cells(
        ("hypercorn",),
        Expected(
            "It reports every close of a client as 1006.", "Have the client say it in a message."
        ),
        "client_closes",
        "native_client_closes",
    ),
    **_cells(
        ("hypercorn", "daphne", "granian", "gunicorn asgi"),
        _NO_REASON_IN,
        "client_closes_with_a_reason",
    ),
    **_cells(("uvicorn sansio", "gunicorn uvicorn"), _ERROR_AFTER_DENIAL, "log"),
    **_cells(
        ("daphne",),
        _NO_BOUND,
        "a_handler_is_freed",
        "an_app_is_freed",
        "an_app_is_freed_of_a_client_that_is_stopped",
    ),
    **_cells(("werkzeug", "daphne", "granian", "gunicorn asgi"), _NO_GOODBYE, "sigterm_code"),
    **_cells(
        ("hypercorn",),
        Expected(
            "It cancels its connections, which asyncio's streams of Python 3.11 write down as an "
            "ERROR, `Exception in callback StreamReaderProtocol.connection_made`.",
            "None is needed.",
            is_certain=False,
        ),
        "sigterm_log",
    ),
}
