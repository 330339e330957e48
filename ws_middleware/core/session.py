"""One connection, from its first byte to its last, without any I/O.

How to drive it, whatever the I/O is:

1. give it what happened: `receive_data`, `receive_eof`, `handle_timeout`, or a command;
2. pull `next_event` until it is `None` or there is no room for more;
3. write `data_to_send`;
4. obey `wants`; call `handle_timeout` at `next_deadline`.

Nearly every read brings messages and nothing else. Then `has_news` is false, and steps 3 and 4 have
nothing to say that they have not said before.

Rules: only `_move` assigns the state, and only by the table in `states`. Nothing reads a clock,
nothing waits, and no byte from a peer makes any call raise. `now` is monotonic, in seconds. What is
stored is bounded: the head by its limits, early bytes by `_EARLY` and one read, unread frames by
one read (the caller pulls, and pauses while it has no room), unsent pongs by those of one read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ws_middleware.codes import check_close
from ws_middleware.types import Refusal, UpgradeRequest

from .encoding import encode, encode_close
from .events import Closed, Event, PongReceived, RefusedBySession
from .framing import Failed, PeerClosed, PeerPinged, PeerPonged
from .handshake import HeadReader, accept_bytes, refusal_bytes
from .heartbeat import HeartbeatClock, Pulse
from .inbound import Inbound
from .pings import Pings
from .states import TABLE, Did, SessionStateError, State, Wants

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ws_middleware.config import EffectivePolicy, Heartbeat, ServerLimits
    from ws_middleware.types import EncodedMessage

    from .framing import Frame

__all__ = ["Session", "SessionStateError", "State", "Wants"]

#: Bytes after the head that are read before the verdict; then reading waits.
_EARLY: Final = 16 * 1024
#: Bytes that are read and thrown away at the end: as many as a client may have under way when it is
#: told that its message is too big. A reset before it has read that would take the reason away.
_DISCARD: Final = 16 * 1024**2
#: How long a refused peer may take to hang up, where no route's policy says it.
_LINGER: Final = 5.0


class Session:
    """One connection.

    `wall` is the wall time at `now`, in seconds; `ping_payload` and `jitter` (0 to 1) are the
    randomness that the session itself may not draw.
    """

    def __init__(
        self,
        limits: ServerLimits,
        *,
        now: float,
        ping_payload: bytes,
        wall: float = 0.0,
        jitter: float = 0.0,
        client: tuple[str, int] | None = None,
        scheme: str = "http",
    ) -> None:
        self._limits = limits
        self._wall_offset = wall - now
        self._jitter = jitter
        self._client = client
        self._scheme = scheme
        self._state = State.HEAD
        self._wants = Wants.READ
        self._deadline: float | None = now + limits.head_timeout
        self._head: HeadReader | None = HeadReader(limits)
        self._request: UpgradeRequest | None = None
        self._early = bytearray()
        self._inbound: Inbound | None = None
        self._heartbeat: HeartbeatClock | None = None
        self._linger = _LINGER
        self._paused = False
        self._eof = False
        self._discarded = 0
        self._events: list[Event] = []
        self._out: list[bytes] = []
        self._pings = Pings(ping_payload)
        #: Whether anything but messages has happened; for the transport's side to forget when it
        #: has looked at `wants`, `next_deadline`, `has_backlog` and what there is to send.
        self.has_news = True
        #: Whether `next_event` is known to have no more for now.
        self.is_drained = False

    @classmethod
    def from_request(
        cls,
        request: UpgradeRequest,
        early: bytes,
        limits: ServerLimits,
        *,
        now: float,
        ping_payload: bytes,
        jitter: float = 0.0,
    ) -> Session:
        """Start in DECIDING with a head that somebody else has read, and what came after it."""
        session = cls(
            limits,
            now=now,
            ping_payload=ping_payload,
            wall=request.received_at,
            jitter=jitter,
            client=request.client,
            scheme=request.scheme,
        )
        session._head = None
        session._begin(request, early, now)
        return session

    # --- what it is --------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the connection is in its life."""
        return self._state

    @property
    def wants(self) -> Wants:
        """What the transport is to do: the only thing it obeys."""
        if self._state is State.DECIDING and len(self._early) >= _EARLY:
            return Wants.HOLD
        if self._state is State.OPEN and self._paused:
            return Wants.HOLD
        return self._wants

    def next_deadline(self) -> float | None:
        """Return the `now` at which `handle_timeout` is due, or `None`."""
        if self._state is not State.OPEN:
            return self._deadline
        if self._inbound is not None and self._inbound.held_until is not None:
            return self._inbound.held_until
        return self._heartbeat.next_deadline() if self._heartbeat else None

    @property
    def parsed(self) -> int:
        """How many frames have taken a parser; one such takes as long as ten others."""
        return 0 if self._inbound is None else self._inbound.framing.parsed

    @property
    def has_output(self) -> bool:
        """Whether there is something to be written."""
        return bool(self._out) or self._pings.are_unsent

    def data_to_send(self) -> bytes:
        """Return what is to be written, whole frames only, and forget it."""
        if self._pings.are_unsent:
            self._out += self._pings.take_ping()
            self._out += self._pings.take_pongs()
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return data

    # --- what happens to it ------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> None:
        """Store bytes from the peer; `next_event` parses them."""
        if self._state is State.HEAD:
            self._receive_head(data, now)
        elif self._state is State.DECIDING:
            self._early += data
            self.has_news = True  # it may be enough for now
        elif self._state is State.OPEN:
            if self._heartbeat is not None:
                self._heartbeat.received()
            # Of the pings of one read all are answered; of those that could not be answered by the
            # next read only the newest, as RFC 6455 section 5.5.3 allows.
            if self._pings.are_unsent:
                self._pings.keep_newest()
            if self._inbound is not None:
                self._inbound.framing.receive_data(data)
        elif self._state is State.CLOSING:
            self._receive_rest(data, now)

    def _receive_head(self, data: bytes, now: float) -> None:
        assert self._head is not None
        result = self._head.receive_data(data)
        if isinstance(result, Refusal):
            self._refuse_by_itself(result, now)
        elif result is not None:
            request = UpgradeRequest(
                method=result.method,
                target=result.target,
                http_version=result.http_version,
                head=result.head,
                client=self._client,
                scheme=self._scheme,
                received_at=now + self._wall_offset,
            )
            early = self._head.trailing
            self._begin(request, early, now)

    def _begin(self, request: UpgradeRequest, early: bytes, now: float) -> None:
        self._head = None  # h11's state is worth kilobytes, and its work is done
        self._request = request
        self._early += early
        self._move(Did.COMPLETE_HEAD)
        self._deadline = now + self._limits.upgrade_timeout
        self._events.append(request)

    def _receive_rest(self, data: bytes, now: float) -> None:
        if self._wants is Wants.READ and self._inbound is not None:
            self._inbound.framing.receive_data(data)
            self._find_close(now)
            return
        self._discarded += len(data)
        if self._discarded > _DISCARD:
            self._lose()

    def receive_eof(self, now: float) -> None:  # noqa: ARG002 - every input takes the time
        """The peer has ended its half, or the connection is gone.

        What it sent before is still there to be pulled; the end comes after that.
        """
        if self._state is State.OPEN:
            self._eof = True
        elif self._state is not State.CLOSED:
            self._out.clear()
            self._lose()

    def handle_timeout(self, now: float) -> None:
        """Do what is due at `now`; harmless when nothing is."""
        if self._state is State.OPEN:
            self._beat(now)
        elif self._deadline is not None and now >= self._deadline:
            self._overdue(now)

    def _beat(self, now: float) -> None:
        if self.holds_end:
            return
        pulse = self._heartbeat.pulse(now) if self._heartbeat else None
        if pulse is Pulse.PING:
            self.ping(now)
        elif pulse is Pulse.DEAD:
            self._events.append(Closed(1011, "no_pong", "us", "no_pong"))
            self._lose()
            self._out.append(encode_close(1011, "no_pong"))  # it may only have been asleep

    def _overdue(self, now: float) -> None:
        if self._state is State.HEAD:
            self._refuse_by_itself(
                Refusal(408, "head_timeout", f"no whole head in {self._limits.head_timeout:g} s"),
                now,
            )
        elif self._state is State.DECIDING:
            self._refuse_by_itself(
                Refusal(
                    503,
                    "upgrade_timeout",
                    "the verdict took too long",
                    f"no verdict in {self._limits.upgrade_timeout:g} s (upgrade_timeout)",
                ),
                now,
            )
        else:
            self._out.clear()
            self._lose()

    def next_event(self, now: float, *, handled: bool = True) -> Event | None:
        """Parse until there is one event, or return `None`.

        `handled` says whether all messages before have been dealt with. While they have not, the
        peer's close frame or its error is held back, so that answers can still go out before ours;
        but only for a moment, and not a byte behind it counts.
        """
        self.is_drained = True
        if self._state is State.CLOSING and self.has_backlog:
            self._find_close(now)
        while not self._events:
            if self._state is not State.OPEN or self._inbound is None:
                return None
            frame = self._inbound.next_frame(now, handled=handled)
            if isinstance(frame, (str, bytes)):
                self.is_drained = self._inbound.framing.is_drained and not self._eof
                return frame
            if frame is not None:
                self._react(frame, now)
            elif self.holds_end:
                self.has_news = True
                return None
            elif not self._eof:
                return None
            else:
                self._events.append(Closed(1006, "", "peer", "connection_lost"))
                self._lose()
        self.is_drained = False
        return self._events.pop(0)

    @property
    def holds_end(self) -> bool:
        """Whether the peer's end waits for its messages to be handled."""
        return self._inbound is not None and self._inbound.held_until is not None

    def _react(self, frame: Frame, now: float) -> None:
        self.has_news = True
        if isinstance(frame, PeerPinged):
            self._pings.pinged(frame.payload)
        elif isinstance(frame, PeerPonged):
            for payload, latency in self._pings.ponged(frame.payload, now):
                self._events.append(PongReceived(payload, latency))
        elif isinstance(frame, PeerClosed):
            self._answer_close(frame)
            self._end_with(Closed(frame.code, frame.reason, "peer", "closed"), now)
            self._move(Did.RECEIVE_CLOSE)
            self._linger_for_nobody()
        elif isinstance(frame, Failed):
            self._pings.drop()
            self._out.append(encode_close(frame.code))
            self._end_with(Closed(frame.code, "", "us", frame.why), now)
            self._move(Did.FAIL)
            self._linger_for_nobody()

    def _answer_close(self, frame: PeerClosed) -> None:
        # "Typically echoes the status code it received", RFC 6455 section 5.5.1.
        self._pings.drop()
        self._out.append(encode_close(None if frame.code == 1005 else frame.code))  # noqa: PLR2004

    def _find_close(self, now: float) -> None:
        """Look for the peer's answer to our close frame; its messages come too late."""
        assert self._inbound is not None
        self.has_news = True
        end = self._inbound.find_end()
        if end is not None:
            self._deadline = now + self._linger
            self._move(Did.FAIL if isinstance(end, Failed) else Did.RECEIVE_CLOSE)

    @property
    def has_backlog(self) -> bool:
        """Whether `next_event` should be asked again soon, though it returned `None`."""
        return self._inbound is not None and self._inbound.is_seeking

    # --- what it is told to do ---------------------------------------------------------------

    def accept(
        self,
        policy: EffectivePolicy,
        *,
        subprotocol: str | None,
        headers: Iterable[tuple[str, str]] = (),
        now: float,
    ) -> None:
        """Answer 101 and become a WebSocket with the limits and the heartbeat of `policy`.

        Raises:
            SessionStateError: there is no request that waits for a verdict.
            ValueError: a header is not allowed in HTTP; the verdict is still out.
        """
        self._expect(State.DECIDING, "accept")
        assert self._request is not None
        self._out.append(accept_bytes(self._request, subprotocol=subprotocol, headers=headers))
        self._request = None
        self._inbound = Inbound(policy.limits, bytes(self._early))
        self._early = bytearray()
        self._linger = policy.limits.close_timeout
        if policy.heartbeat is not None:
            self._heartbeat = HeartbeatClock(policy.heartbeat, now=now, jitter=self._jitter)
        self._move(Did.ACCEPT)

    def refuse(self, refusal: Refusal, now: float) -> None:
        """Answer with `refusal` and end.

        Raises:
            SessionStateError: there is no request that waits for a verdict.
            ValueError: a header is not allowed in HTTP; the verdict is still out.
        """
        self._expect(State.DECIDING, "refuse")
        assert self._request is not None
        if refusal.as_close:
            self._out.append(self._accept_to_close(self._request, refusal))
        else:
            self._out.append(refusal_bytes(refusal, now + self._wall_offset))
        self._end(now)
        self._move(Did.REFUSE)

    @staticmethod
    def _accept_to_close(request: UpgradeRequest, refusal: Refusal) -> bytes:
        """Return a 101 and a close frame at once: what a browser's script gets to see."""
        # A browser that offered subprotocols fails the connection if none is chosen.
        offered = request.subprotocols
        head = accept_bytes(
            request, subprotocol=offered[0] if offered else None, headers=refusal.headers
        )
        return head + encode_close(4000 + refusal.status, refusal.code)

    def _refuse_by_itself(self, refusal: Refusal, now: float) -> None:
        self._out.append(refusal_bytes(refusal, now + self._wall_offset))
        self._events.append(RefusedBySession(refusal, self._request))
        self._end(now)
        self._move(Did.REFUSE)

    def send(self, message: str | bytes | EncodedMessage) -> int:
        """Queue one message and return the size of its frame.

        Raises:
            SessionStateError: the WebSocket is not open.
            ValueError: a text holds a lone surrogate.
        """
        if self._state is not State.OPEN:
            self._expect(State.OPEN, "send")
        frame = encode(message)
        if self._pings.are_unsent:
            self._out += self._pings.take_pongs()  # asked for before this message was sent
        self._out.append(frame)
        return len(frame)

    def ping(self, now: float) -> bytes:
        """Queue a ping and return its payload; while one waits unsent, that one's.

        Raises:
            SessionStateError: the WebSocket is not open.
        """
        self._expect(State.OPEN, "ping")
        self.has_news = True
        return self._pings.ping(now)

    def close(self, code: int, reason: str, now: float) -> None:
        """Queue a close frame; the peer has `close_timeout` to answer. Closing twice is nothing.

        Raises:
            SessionStateError: there is no WebSocket yet.
            ValueError: the code or the reason must not be sent.
        """
        check_close(code, reason)
        if self._state in {State.CLOSING, State.CLOSED}:
            return
        self._expect(State.OPEN, "close")
        self._pings.drop()
        self._out.append(encode_close(code, reason))
        self._events.append(Closed(code, reason, "us", "closed"))
        self._deadline = now + self._linger
        self._move(Did.SEND_CLOSE)
        self._find_close(now)
        self._linger_for_nobody()

    def set_heartbeat(self, heartbeat: Heartbeat | None, now: float) -> None:
        """Ping by this from now on, in the place of the policy's; `None`: not at all.

        Raises:
            SessionStateError: the WebSocket is not open.
        """
        self._expect(State.OPEN, "set_heartbeat")
        self.has_news = True
        self._heartbeat = None
        if heartbeat is not None:
            self._heartbeat = HeartbeatClock(heartbeat, now=now, jitter=self._jitter)
            if self._paused:
                self._heartbeat.pause(now)

    def pause(self, now: float) -> None:
        """There is no room for messages: don't read. Pings go on."""
        self._paused = self.has_news = True
        if self._heartbeat is not None:
            self._heartbeat.pause(now)

    def resume(self, now: float) -> None:
        """There is room again."""
        self._paused, self.has_news = False, True
        if self._heartbeat is not None:
            self._heartbeat.resume(now)

    def loop_stood_still(self, seconds: float) -> None:
        """Our own loop did not turn for `seconds`: that silence was ours."""
        if self._heartbeat is not None:
            self._heartbeat.stood_still(seconds)

    # --- the table ---------------------------------------------------------------------------

    def _expect(self, state: State, command: str) -> None:
        if self._state is not state:
            msg = f"{command} needs {state.name}, the session is {self._state.name}"
            raise SessionStateError(msg)

    def _move(self, did: Did) -> None:
        self._state, self._wants = TABLE[self._state, did]
        self.has_news = True

    def _end_with(self, closed: Closed, now: float) -> None:
        self._events.append(closed)
        self._end(now)

    def _end(self, now: float) -> None:
        """Nothing is parsed from here on; the peer has a while to read what we wrote."""
        self._head = None
        self._request = None
        self._early = bytearray()
        self._deadline = now + self._linger
        if self._inbound is not None:
            self._inbound.stop()

    def _lose(self) -> None:
        """The connection is gone, or is to go, without another word."""
        self._end(0.0)
        self._deadline = None
        self._pings.drop()
        self._move(Did.LOSE)

    def _linger_for_nobody(self) -> None:
        """A peer that has ended its half sends no answer, so none is waited for."""
        if self._eof:
            self._lose()
