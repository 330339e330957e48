"""Doors onto the stage: what serves an app there, in the place of what would on a server.

The engine is that of production. Only what is outside of it is replaced: the threads, the port, and
the loop that is somebody else's.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ws_middleware.net.asking import Asker
from ws_middleware.net.engine import Engine
from ws_middleware.net.hosted import Hosted
from ws_middleware.net.runtime import Runtime
from ws_middleware.net.sidecar import Sidecar
from ws_middleware.net.takeover import CannotTake, Taken

from .turns import Conversations, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from ws_middleware.front import Front
    from ws_middleware.hub.hub import Hub
    from ws_middleware.net.engine import Admission, EngineLink
    from ws_middleware.receipt import Receipt
    from ws_middleware.settings import Settings
    from ws_middleware.types import Refusal, UpgradeRequest

    from .stage import Stage

    _MakeContext = Callable[[], AbstractContextManager[object]]

__all__ = ["Door", "StageRuntime", "open_door"]


class Door(NamedTuple):
    """What serves an app here (`front.Serving`)."""

    engine: StageEngine
    sidecar: StageSidecar
    hosted: StageHosted


def open_door(stage: Stage, front: Front) -> Door:
    """Serve the sockets of an app on the stage.

    Raises:
        ConfigError: its settings as a whole are wrong.
    """

    def make(settings: Settings, hub: Hub, context: _MakeContext) -> StageEngine:
        return StageEngine(stage, settings, hub, context)

    engine = cast("StageEngine", front.make_engine(make))
    sidecar = StageSidecar(engine, stage)
    door = Door(engine, sidecar, StageHosted(engine, sidecar))
    front.stage(door)
    return door


class StageEngine(Engine):
    """The engine, with threads that take turns and nothing left to chance."""

    jitter = staticmethod(float)  # 0.0: the first ping comes after a whole interval

    def __init__(self, stage: Stage, settings: Settings, hub: Hub, context: _MakeContext) -> None:
        super().__init__(settings, hub, context, stage.clock)
        self._stage = stage
        kinds = {"events": Turns, "conversations": Conversations, "auth": Turns}
        self.threads = {name: kinds[name](stage, group) for name, group in self.threads.items()}
        self.asker = Asker(self._in_context, self.threads["auth"])

    def open(self, link: EngineLink, admission: Admission) -> None:
        self._stage.opened(link)
        super().open(link, admission)


class StageRuntime(Runtime):
    """The runtime of a loop whose thread is whichever has its turn."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.loop, stage.clock)
        self._stage = stage
        self.on_failure = stage.failed

    def is_current(self) -> bool:
        """Whether it is the calling thread's turn."""
        return threading.get_ident() == self._stage.turn

    def run(self, action: Callable[[], object]) -> bool:
        """Run `action` on the loop; False if it has ended."""
        if self.is_current():
            action()
            return True
        if not self.mailbox.post(action):
            return False
        self._stage.take_in(self.mailbox.turn)
        return True


class StageSidecar(Sidecar):
    """A sidecar without a thread: its connections are in memory."""

    def __init__(self, engine: Engine, stage: Stage) -> None:
        super().__init__(engine)
        self._stage = stage
        self.memory = StageRuntime(stage)
        engine.hub.attach(self.memory)

    @property
    def is_at_rest(self) -> bool:
        """Whether it is open, or it has come to its end."""
        return self._closed is None or self._closed.done

    @property
    def is_closed(self) -> bool:
        """Whether the app has closed it."""
        return self._closed is not None

    def ensure(self) -> Runtime:
        return self.memory

    def take(self, environ: Mapping[str, Any]) -> Taken:  # noqa: ARG002 - there is no server
        if self._stage.caller is None:
            server, reason = "a test client", "its requests have no connection"
            raise CannotTake(server, reason, "use ws_middleware.testing.connect(client, path)")
        nothing = cast("Any", None)
        return Taken(nothing, nothing, b"")

    def adopt(self, taken: Taken, request: UpgradeRequest, outcome: Refusal | Admission) -> None:  # noqa: ARG002
        link = self._make_link(self.memory, request, b"", outcome)
        self._stage.start(link)

    def listen(self, host: str, port: int, *, reuse_port: bool) -> tuple[str, int]:  # noqa: ARG002
        msg = "listen() has no place in a test that uses ws_middleware.testing: there is no port"
        raise RuntimeError(msg)

    def close(self, code: int, reason: str, *, over: float, timeout: float) -> Receipt[None]:
        if self._closed is None:
            self._closed = self.memory.submit(self._end(code, reason, over, timeout))
        return self._closed

    async def _end(self, code: int, reason: str, over: float, timeout: float) -> None:
        try:
            await self.memory.close(code, reason, over=over, timeout=timeout)
        finally:
            self._engine.hub.detach(self.memory)
            self._engine.close()


class StageHosted(Hosted):
    """The loop of an ASGI app: the stage's."""

    def __init__(self, engine: Engine, sidecar: StageSidecar) -> None:
        super().__init__(engine)
        self._sidecar = sidecar

    def here(self) -> Runtime | None:
        return None if self.is_closing or self._sidecar.is_closed else self._sidecar.memory
