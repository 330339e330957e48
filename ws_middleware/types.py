"""The values that the parts hand to one another. No behaviour beyond reading what they hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, unquote_to_bytes

from .names import as_name

if TYPE_CHECKING:
    from .receipt import Receipt

__all__ = [
    "Authenticator",
    "Authorizer",
    "Connection",
    "Credential",
    "EncodedMessage",
    "Granted",
    "Link",
    "MultiDict",
    "Principal",
    "Refusal",
    "UpgradeRequest",
    "split_tokens",
]


class MultiDict(Mapping[str, str]):
    """Pairs in the order they came, names with several values included.

    As a mapping it shows the first value of each name; `get_all` gives them all.
    """

    __slots__ = ("_pairs",)

    def __init__(self, pairs: tuple[tuple[str, str], ...]) -> None:
        self._pairs = pairs

    def __getitem__(self, name: str) -> str:
        for key, value in self._pairs:
            if key == name:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._pairs))

    def __len__(self) -> int:
        return len(dict(self._pairs))

    def get_all(self, name: str) -> list[str]:
        """Return every value of `name`, in order; empty if there is none."""
        return [value for key, value in self._pairs if key == name]

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return all pairs, in the order they came."""
        return self._pairs

    def __repr__(self) -> str:
        # Values may be secrets (cookies, tokens), and a repr ends in logs.
        return f"<{type(self).__name__} {', '.join(self)}>"


class Headers(MultiDict):
    """Header fields: names in any case, values as latin-1 text (RFC 9110 section 5.5)."""

    __slots__ = ()

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def get_all(self, name: str) -> list[str]:
        """Return the values of all lines of `name`, in order."""
        return super().get_all(name.lower())

    def tokens(self, name: str) -> list[str]:
        """Return the comma-separated elements of all lines of `name` (RFC 9110 section 5.6.1)."""
        return [token for value in self.get_all(name) for token in split_tokens(value)]


def split_tokens(value: str) -> list[str]:
    """Split a comma-separated list; empty elements don't count (RFC 9110 section 5.6.1.2)."""
    return [token for part in value.split(",") if (token := part.strip(" \t"))]


@dataclass(frozen=True, slots=True)
class Credential:
    """What the client showed, and where: `source` is "header", "subprotocol" or "query:NAME"."""

    token: str = field(repr=False)
    source: str


@dataclass(frozen=True)
class UpgradeRequest:
    """The HTTP request that asks for a WebSocket, whoever read it from the wire.

    The head is kept as one `bytes` and decoded on access, for most sockets never look at it again.
    """

    method: str
    #: The request target as sent, latin-1; a token in its query is `-` once the gate has seen it.
    target: str
    http_version: str
    #: Field lines as `name:value`, names in lower case, joined by line feeds.
    head: bytes = field(repr=False)
    #: Address and port of the peer; `None` where there is none (a unix socket).
    client: tuple[str, int] | None = None
    scheme: str = "http"
    #: Wall time, seconds since the epoch: the only moment at which wall time enters.
    received_at: float = 0.0
    #: The parameters of the route's path, once it is known.
    path_params: Mapping[str, Any] = field(default_factory=dict)
    #: Only between the gate and the verdict.
    credential: Credential | None = field(default=None, repr=False)
    #: The host's own request (WSGI environ, ASGI scope), or `None`; dropped at the verdict.
    native: object = field(default=None, repr=False)
    #: Whether the host's server has done the handshake: then it is not asked whether this is one.
    is_checked: bool = False

    @property
    def raw_path(self) -> str:
        """The path as sent, percent-escapes and all, without the query."""
        path = self.target.partition("?")[0]
        if not path.startswith("/"):  # absolute-form, RFC 9112 section 3.2.2
            _, _, path = path.partition("://")
            _, slash, path = path.partition("/")
            path = slash + path or "/"
        return path

    @property
    def path(self) -> str:
        """The path, percent-decoded as UTF-8; bytes that are not UTF-8 become lone surrogates."""
        return unquote_to_bytes(self.raw_path.encode("latin-1")).decode("utf-8", "surrogateescape")

    @property
    def query_string(self) -> str:
        """What follows the first question mark, as sent."""
        return self.target.partition("?")[2]

    @property
    def query(self) -> MultiDict:
        """The query's parameters, decoded; blank values are kept."""
        pairs = parse_qsl(self.query_string, keep_blank_values=True, errors="replace")
        return MultiDict(tuple(pairs))

    @property
    def headers(self) -> Headers:
        """The header fields, duplicates and all."""
        lines = self.head.decode("latin-1").split("\n") if self.head else []
        pairs = (line.partition(":") for line in lines)
        return Headers(tuple((name, value) for name, _, value in pairs))

    @property
    def host(self) -> str:
        """The `Host` field as sent, or the empty string."""
        return self.headers.get("host", "")

    @property
    def origin(self) -> str | None:
        """The `Origin` field as sent, or `None`: not every client is a browser."""
        return self.headers.get("origin")

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies, undecoded; of two with one name the first (the more specific one) counts."""
        cookies: dict[str, str] = {}
        for line in self.headers.get_all("cookie"):
            for part in line.split(";"):
                name, equals, value = part.strip(" \t").partition("=")
                if equals:
                    cookies.setdefault(name, value.strip('"'))
        return cookies

    @property
    def subprotocols(self) -> list[str]:
        """The subprotocols the client offers, in its order of preference."""
        return self.headers.tokens("sec-websocket-protocol")

    @property
    def extensions(self) -> list[str]:
        """The extension offers, each with its parameters, as sent."""
        return self.headers.tokens("sec-websocket-extensions")

    def __repr__(self) -> str:
        # Not the query and not the head: both may hold secrets.
        return f"<UpgradeRequest {self.method} {self.raw_path!r}>"


@dataclass(frozen=True)
class Principal:
    """Who a credential proved the client to be.

    `id` may be given as `int` or `UUID` and is text from then on. The empty id is the anonymous
    one: it is in no user audience.
    """

    id: str
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    #: Wall time, seconds since the epoch, at which the socket closes with 4401; `None` for never.
    expires_at: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.id != "":
            object.__setattr__(self, "id", as_name(self.id, "user id"))

    @property
    def is_authenticated(self) -> bool:
        """Whether this is somebody: false for the anonymous principal."""
        return self.id != ""

    @property
    def display_name(self) -> str:
        """The name to show: the one given, else the `name` claim, else the id."""
        claimed = self.claims.get("name")
        return self.name or (claimed if isinstance(claimed, str) else "") or self.id


def as_principal(user: Principal | str | int | None) -> Principal | None:
    """Return who `user` is; nobody (`None`, "") stays nobody."""
    if user is None or user == "":
        return None
    return user if isinstance(user, Principal) else Principal(str(user))


@dataclass(frozen=True)
class Granted:
    """An authenticator's yes with headers (such as Set-Cookie) to send on the 101."""

    principal: Principal | str | int
    headers: tuple[tuple[str, str], ...] = ()
    #: What the app's own URL rule made of the path's parameters, in place of ours.
    path_params: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer in place of a served socket.

    `code` and `detail` go to the peer, `why` only to the log. `as_close` asks for a 101 and an
    immediate close frame with 4000 + status, the only refusal that a browser's script can see.
    """

    status: int
    code: str
    detail: str
    why: str = ""
    retry_after: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    as_close: bool = False


class EncodedMessage:
    """One message, checked and encoded once, for however many sockets it goes to.

    Raises, at construction, what is the sender's own fault:
        TypeError: it is neither `str` nor bytes.
        ValueError: the text holds a lone surrogate, which UTF-8 cannot carry.
    """

    __slots__ = ("frames", "is_text", "payload")

    def __init__(self, message: str | bytes | bytearray | memoryview) -> None:
        if isinstance(message, str):
            self.payload = message.encode()
            self.is_text = True
        elif isinstance(message, (bytes, bytearray, memoryview)):
            self.payload = bytes(message)
            self.is_text = False
        else:
            msg = f"a message is str or bytes, not {type(message).__name__}; see send_json"
            raise TypeError(msg)
        #: Wire bytes by kind of framing, filled in by the first session that needs one.
        self.frames: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self.payload)


class Link(Protocol):
    """The end of one connection that faces the network, as the hub sees it.

    All three are called on the link's own loop only, and none of them waits or raises.
    """

    def deliver(self, message: EncodedMessage) -> None:
        """Queue one message."""

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake."""

    def abort(self) -> None:
        """Drop the connection without one."""


class Connection(Link, Protocol):
    """What a websocket asks of its link; all on the link's loop, unless said otherwise."""

    def is_current(self) -> bool:
        """Whether the calling thread is the loop's. From any thread."""

    def run(self, action: Callable[[], None]) -> bool:
        """Run `action` on the loop: now if this is its thread, else soon. From any thread."""

    def send(self, message: str | bytes | EncodedMessage) -> Receipt[None] | None:
        """Queue a message; a receipt if more than 64 KiB wait for the peer, else `None`."""

    @property
    def messages(self) -> dict[str, int]:
        """How many messages there have been: "in", "out" and "dropped". From any thread."""

    @property
    def may_drop(self) -> bool:
        """Whether a message too many is dropped, and the peer not closed. From any thread."""

    def too_slow(self) -> None:
        """More waits for the peer than may: close it with 1013, or drop, as its route has it."""

    def ping(self, receipt: Receipt[float]) -> None:
        """Send a ping whose pong resolves `receipt`."""

    def resume(self) -> None:
        """There is room in the inbox again."""

    def join(self, room: str) -> None:
        """Put the socket into a room."""

    def leave(self, room: str) -> None:
        """Take it out."""

    def when_gone(self, receipt: Receipt[None]) -> None:
        """Resolve `receipt` when the connection is gone."""


#: What an authenticator may say; `None` and "" mean "nobody": 401.
Verdict = Principal | Granted | str | int | None

#: Who is it? Any callable, sync or async; raise `Refused` to answer in your own words.
Authenticator = Callable[[UpgradeRequest], Verdict | Awaitable[Verdict]]

#: May they? Only `True` lets in. Sync or async.
Authorizer = Callable[[Principal, UpgradeRequest], bool | Awaitable[bool]]
