"""How long an app's own code may outlive its peer, or its server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

    from .runtime import Runtime

__all__ = ["GRACE", "Grace"]

#: Seconds for a handler of ours, and for a wrapped app.
GRACE: Final = 5.0


class Grace:
    """Cancels one task when it has had time to end by itself. On its runtime's loop."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._has_begun = False

    def begin(self, task: asyncio.Task[None] | None) -> None:
        """Give it so long, counted from the first call; nothing is given where there is no task."""
        if task is not None and not self._has_begun:
            self._has_begun = True
            self._runtime.later(GRACE, task.cancel)
