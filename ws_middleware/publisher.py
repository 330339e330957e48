"""The audiences of an app, for processes that serve no socket: task queues, scripts, cron.

No app, no loop, no thread: each call publishes in the calling thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .checks import DEFAULT_PREFIX
from .errors import ConfigError
from .hub.audience import Audiences, RouteAudiences
from .hub.envelope import Close, Envelope
from .hub.hub import Sent
from .hub.questions import total_of
from .names import as_name
from .receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .hub.audience import Sender
    from .hub.registry import Address, Member
    from .types import EncodedMessage

__all__ = ["Publisher"]


class Publisher(Audiences[Any]):
    """Sends to the sockets that other processes serve.

    Every send, close and count waits until the broker has taken it, at most two seconds, or raises
    `BrokerUnavailable`; nothing is kept to be sent later. From any thread; a forked child may use
    its parent's.

    Args:
        url: of the broker, as the app has it in `WebSockets(broker=...)`.
        prefix: as the app has it in `WebSockets(prefix=...)`.
        secret: as the app has it in `WebSockets(broker_secret=...)`.

    Raises:
        ConfigError: the URL is no broker's.
    """

    def __init__(
        self, url: str, *, prefix: str = DEFAULT_PREFIX, secret: str | bytes | None = None
    ) -> None:
        self._hub = _Sender(url, prefix, secret.encode() if isinstance(secret, str) else secret)

    def __repr__(self) -> str:
        return f"<Publisher {self._hub}>"

    def route(self, name: str) -> PublisherRoute:
        """Return the audiences of one route, by its name: its path, parameters written as `*`.

        Raises:
            ValueError: it is no name.
        """
        return PublisherRoute(self._hub, as_name(name, "route name"))


class PublisherRoute(RouteAudiences[Any]):
    """The audiences of one route."""

    def __init__(self, sender: Sender, name: str) -> None:
        self._hub = sender
        self.name = self._route_name = name

    def __repr__(self) -> str:
        return f"<PublisherRoute {self.name}>"


class _Sender:
    """What an audience sends by, where there is no hub."""

    def __init__(self, url: str, prefix: str, secret: bytes | None) -> None:
        scheme = url.partition(":")[0]
        if not scheme.startswith("redis"):
            msg = f"Publisher needs what other processes hear, a redis:// URL; got {scheme}://"
            raise ConfigError(msg)
        from .hub.brokers.inquiry import Inquiry  # noqa: PLC0415 - the extra "redis"
        from .hub.brokers.post import Post  # noqa: PLC0415

        self._post = Post(url, prefix, secret)
        self._inquiry = Inquiry(url, prefix, secret)

    def __repr__(self) -> str:
        return repr(self._post)

    def send(
        self, address: Address, message: EncodedMessage, exclude: frozenset[str]
    ) -> Receipt[Sent]:
        return self._tell(address, Envelope(message, exclude))

    def close(self, address: Address, code: int, reason: str, over: float) -> Receipt[Sent]:
        return self._tell(address, Envelope(Close(code, reason, over)))

    def _tell(self, address: Address, envelope: Envelope) -> Receipt[Sent]:
        self._post.send(address, envelope)
        return Receipt.ready(Sent(0, published=True))

    def count(self, address: Address) -> int:  # noqa: ARG002 - none is of this process
        return 0

    def count_everywhere(self, address: Address) -> Receipt[int]:
        return Receipt.ready(total_of(self._inquiry.ask("count", address)))

    def local(self, address: Address) -> Iterator[Member]:  # noqa: ARG002
        return iter(())
