"""What those who run an app ask of its sockets: how they are, and to be switched off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from .codes import check_close
from .front import PAUSED
from .health import Health, HealthASGI, HealthWSGI
from .hub.envelope import Close, Envelope
from .hub.registry import Address
from .metrics import render
from .reach import Reach
from .stats import Everywhere, Readiness, Report

if TYPE_CHECKING:
    from .fronts import Fronts
    from .health import HealthAnswer
    from .hub.hub import Hub
    from .hub.questions import Answers
    from .receipt import Receipt
    from .stats import Stats

__all__ = ["Operations"]


class Operations:
    """A part of `WebSockets`, which says whose hub and fronts it is about."""

    _hub: Hub
    _fronts: Fronts

    def _observe(self) -> None:
        """Begin, once hub and fronts are there."""
        self._hub.outside = reach = Reach(self._hub, self._fronts)
        self._report = Report(self._hub, self._fronts, reach)
        self._hub.respond = self._report.respond
        self._health = Health(self._report)
        #: `livez`, `readyz` and `metrics` as a WSGI app, to be mounted or returned by a view.
        self.health_wsgi = HealthWSGI(self._health)
        #: The same as an ASGI app.
        self.health_asgi = HealthASGI(self._health)

    @overload
    def stats(self) -> Stats: ...
    @overload
    def stats(self, *, everywhere: Literal[True]) -> Receipt[Everywhere]: ...

    def stats(self, *, everywhere: bool = False) -> Stats | Receipt[Everywhere]:
        """Return the statistics of this process; or, as a receipt, those of all processes.

        docs/runbook.md lists what is in them. Those of the others come within 2 seconds; the
        receipt fails with `BrokerUnavailable` where nobody could be asked.

        Raises:
            BrokerRequired: there are other processes, and no broker between them.
        """
        own = self._report.stats()
        if not everywhere:
            return own
        return self._hub.ask("stats").map(lambda answers: _everywhere(own, answers))

    @overload
    def metrics(self) -> str: ...
    @overload
    def metrics(self, *, everywhere: Literal[True]) -> Receipt[str]: ...

    def metrics(self, *, everywhere: bool = False) -> str | Receipt[str]:
        """Return the statistics as Prometheus reads them: of this process, or of all as a receipt.

        Raises:
            BrokerRequired: there are other processes, and no broker between them.
        """
        if not everywhere:
            return render([self._report.stats()])
        return self.stats(everywhere=True).map(lambda found: render(found.processes))

    def ready(self) -> Readiness:
        """Return whether new traffic should come to this process, and if not, why.

        It should not while the broker is not heard, while the process ends or is paused, and while
        a handler stops the event loop.
        """
        return Readiness(tuple(self._report.reasons()))

    def health(self, path: str) -> HealthAnswer:
        """Return the answer to a GET of `/livez`, `/readyz` or `/metrics`, for any framework."""
        return self._health.answer(path)

    def pause(self, *, code: int = 1013, reason: str = "paused", over: float = 0.0) -> Receipt[int]:
        """Refuse every upgrade in this process with 503, and close its sockets; HTTP goes on.

        The receipt has the number of sockets. `WSM_DISABLED=1` does the same from the start.

        Raises:
            ValueError: the code or the reason may not be sent (RFC 6455 section 7.4).
        """
        check_close(code, reason)
        self._fronts.pause(PAUSED)
        return self._hub.deliver(Address("everyone"), Envelope(Close(code, reason, over)))

    def resume(self) -> None:
        """Let in again after `pause`."""
        self._fronts.pause(None)


def _everywhere(own: Stats, answers: Answers) -> Everywhere:
    """Return the statistics of all; what another process answers is nothing to rely on."""
    others = tuple(each for each in answers.values if isinstance(each, dict))
    return Everywhere((own, *others), answers.missing)
