"""The other processes, while no loop of ours has a bus: one is started, or they are told from here.

A process that serves sockets gets its bus a moment early. Any other (a task queue's worker, a
script) waits for the broker in the calling thread, and leaves nothing behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import BrokerUnavailable
from .hub.questions import Answers
from .receipt import Receipt

if TYPE_CHECKING:
    from .front import Front
    from .fronts import Fronts
    from .hub.brokers.inquiry import Inquiry
    from .hub.brokers.post import Post
    from .hub.bus import Bus
    from .hub.envelope import Envelope, Question
    from .hub.hub import Hub
    from .hub.registry import Address

__all__ = ["Reach"]


class Reach:
    """See `hub.Outside`. For the fronts of one hub."""

    def __init__(self, hub: Hub, fronts: Fronts) -> None:
        self._hub = hub
        self._fronts = fronts
        self._post: Post | None = None
        self._inquiry: Inquiry | None = None
        #: For which version of the fronts it is known that no broker is heard elsewhere.
        self._alone_in: int | None = None

    def tell(self, address: Address, envelope: Envelope) -> Receipt[bool] | None:
        """Tell other processes; `None` where there are none.

        Raises:
            BrokerUnavailable: this process does not serve, and the broker has not taken it.
        """
        front = self._remote()
        if front is None:
            return None
        if self._fronts.serving is not None:
            bus = self.connect()
            return None if bus is None else bus.publish(address, envelope)
        if self._post is None:
            from .hub.brokers.post import Post  # noqa: PLC0415 - the extra "redis"

            settings = front.settings
            self._post = Post(settings.broker, settings.prefix, settings.broker_secret)
        self._post.send(address, envelope)
        return Receipt.ready(True)  # noqa: FBT003 - it has been taken

    def ask(self, question: Question, address: Address | None) -> Receipt[Answers]:
        """Ask other processes; nobody answers where there are none."""
        front = self._remote()
        if front is None:
            return Receipt.ready(Answers())
        if self._fronts.serving is not None:
            bus = self.connect()
            return Receipt.ready(Answers()) if bus is None else bus.ask(question, address)
        if self._inquiry is None:
            from .hub.brokers.inquiry import Inquiry  # noqa: PLC0415 - the extra "redis"

            settings = front.settings
            self._inquiry = Inquiry(settings.broker, settings.prefix, settings.broker_secret)
        try:
            return Receipt.ready(self._inquiry.ask(question, address))
        except BrokerUnavailable as error:
            return Receipt.failed(error)

    def connect(self) -> Bus | None:
        """Return the bus of a process that serves, begun if there should be one."""
        front = self._remote()
        if self._hub.bus is None and front is not None and self._fronts.serving is not None:
            front.open()[1].ensure()
        return self._hub.bus

    def _remote(self) -> Front | None:
        """Return a front whose broker other processes hear; one that serves, if there is one."""
        version = self._fronts.version
        if self._alone_in == version:  # asked for each send
            return None
        self._fronts.read_environ()
        found = [each for each in self._fronts if each.settings.is_remote]
        if not found:
            self._alone_in = version
        return min(found, key=lambda each: not each.is_called, default=None)
