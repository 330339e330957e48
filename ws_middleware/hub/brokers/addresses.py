"""From a URL to the servers that may be tried: one Redis, those of a cluster, or sentinels."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

from redis import connection as blocking
from redis.asyncio import connection as waiting
from redis.exceptions import RedisError

from ws_middleware.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Servers", "Target"]

_FORMS: Final = (
    "redis://host:6379/0, rediss://host:6379/0 (TLS), redis+unix:///path/to/socket, "
    "redis+cluster://host1:6379,host2:6379, redis+sentinel://host1:26379,host2:26379/service"
)
_KINDS: Final = {
    "redis": ("", "unix", "cluster", "sentinel"),
    "rediss": ("", "cluster", "sentinel"),
}

#: What is ours to say, whatever the URL's query has: answers are read as RESP2, as bytes, and for
#: as long as we say; and nothing is tried again behind our back.
_OURS: Final[dict[str, Any]] = {
    "protocol": 2,
    "decode_responses": False,
    "encoding": "utf-8",
    "health_check_interval": 0,
    "retry_on_timeout": False,
    "retry_on_error": [],
    "socket_timeout": None,
}
#: Options of redis-py's for a pool of connections, which we have none of.
_OF_POOLS: Final = ("connection_class", "max_connections", "timeout")
#: What the server's list of clients calls us, unless the URL has a name.
_NAME: Final = "ws_middleware"

_SENTINEL_PORT: Final = 26379


class Target(NamedTuple):
    """One server that may be tried."""

    #: As the log has it: without a password.
    name: str
    #: Of redis-py's connections.
    options: dict[str, Any]


class Servers:
    """Where Redis is. Its text form has no password in it.

    Args:
        url: `redis://`, `rediss://` (TLS), `redis+unix://`, `redis+cluster://` with several hosts,
            or `redis+sentinel://` with those of the sentinels and the service's name as path; the
            last two are `rediss+...` where TLS is spoken. User and password come before the hosts,
            redis-py's options as the query; with them `sentinel_username` and `sentinel_password`.

    Raises:
        ConfigError: it is no such URL.
    """

    def __init__(self, url: str) -> None:
        try:
            scheme, _, rest = url.partition("://")
            self._scheme, _, self.kind = scheme.partition("+")
            self._authority, self._path, self._query = _divide(rest)
            self._user, at, self._hosts = self._authority.rpartition("@")
            self._user += at
            self._check()
            self._targets = list(self._read())
            for each in self._targets:
                self.blocking(each.options)
        except (ValueError, TypeError, RedisError) as error:
            msg = f"broker {_without_password(url)!r} is none ({error}); write {_FORMS}"
            raise ConfigError(msg) from None
        # The processes of an app begin with different nodes.
        self._next = random.randrange(len(self._targets))  # noqa: S311 - guards nothing
        #: How many connections go to each target, by its name.
        self.in_use: Counter[str] = Counter()

    def __str__(self) -> str:
        kind = f"+{self.kind}" if self.kind else ""
        return f"{self._scheme}{kind}://{self._hosts}{self._path}"

    def _check(self) -> None:
        if self._scheme not in _KINDS:
            msg = f"there is no scheme {self._scheme!r}"
            raise ValueError(msg)
        if self.kind not in _KINDS[self._scheme]:
            msg = f"there is no kind {self.kind!r} of {self._scheme}"
            raise ValueError(msg)
        # A slash in a password would end the part that is never shown.
        misplaced = "@" in self._query or ("@" in self._path and self.kind != "unix")
        if misplaced or (self.kind == "unix" and self._hosts):
            msg = "what user and password have of /, ?, # and @ has to be percent-encoded"
            raise ValueError(msg)
        if self.kind == "sentinel" and not self.service:
            msg = "the service's name is missing"
            raise ValueError(msg)

    def _read(self) -> Iterator[Target]:
        fields = dict(parse_qsl(self._query, keep_blank_values=True))
        own = {
            name: fields.pop(f"sentinel_{name}")
            for name in ("username", "password")
            if self.kind == "sentinel" and f"sentinel_{name}" in fields
        }
        self.client_name = fields.pop("client_name", _NAME)
        self._sentinels = own
        query = f"?{urlencode(fields)}" if fields else ""
        if self.kind == "unix":
            yield Target(self._path, _options(f"unix://{self._user}{self._path}{query}"))
            return
        path = "" if self.kind else self._path
        for host in self._hosts.split(",") if self.kind else [self._hosts]:
            if self.kind and not host:
                msg = "between two commas there is no host"
                raise ValueError(msg)
            yield Target(host, _options(f"{self._scheme}://{self._user}{host}{path}{query}"))

    @property
    def service(self) -> str:
        """The name that sentinels have for what we look for."""
        return unquote(self._path.strip("/"))

    def candidates(self) -> list[Target]:
        """Return all in the order to try them: first those that we have no connection to.

        What is published on one node of a cluster is heard on all of them, so any will do. Where
        we publish on one and listen on another, we hear whether the nodes hear each other.
        """
        start, self._next = self._next, (self._next + 1) % len(self._targets)
        turned = self._targets[start:] + self._targets[:start]
        return sorted(turned, key=lambda each: self.in_use[each.name])

    def as_sentinel(self, target: Target) -> dict[str, Any]:
        """Return the options for the sentinel itself: it has users of its own."""
        ours = {"username", "password", "db", "credential_provider"}
        kept = {name: value for name, value in target.options.items() if name not in ours}
        return {"port": _SENTINEL_PORT, **kept, **self._sentinels}

    @property
    def is_cluster(self) -> bool:
        """Whether what is published on one is heard on all of them."""
        return self.kind == "cluster"

    def blocking(self, options: dict[str, Any]) -> blocking.Connection:
        """Return a connection for threads, not connected yet."""
        made: blocking.Connection = self._class(blocking)(**options)
        return made

    def waiting(self, options: dict[str, Any]) -> waiting.AbstractConnection:
        """Return a connection for event loops, not connected yet."""
        made: waiting.AbstractConnection = self._class(waiting)(**options)
        return made

    def _class(self, module: Any) -> Any:  # noqa: ANN401 - two modules with the same names
        if self.kind == "unix":
            return module.UnixDomainSocketConnection
        return module.SSLConnection if self._scheme == "rediss" else module.Connection


def _divide(rest: str) -> tuple[str, str, str]:
    """Return authority, path and query; `urlsplit` has its own mind about several hosts in one."""
    if "#" in rest:
        msg = "a # has to be percent-encoded"
        raise ValueError(msg)
    before, _, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    return authority, slash + path, query


def _options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = {**blocking.parse_url(url), **_OURS}  # type: ignore[no-untyped-call]
    for name in _OF_POOLS:
        options.pop(name, None)
    return options


def _without_password(url: str) -> str:
    """Return what may be shown of a URL that could not be taken apart."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
