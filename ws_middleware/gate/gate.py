"""The gate: everything that is asked before a 101, in its order, and the caps.

`check` runs before the authenticator and `admit` after it; between the two lies whatever the
engine has to wait for. Both are plain functions, callable from any thread, under one lock that is
held for microseconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ws_middleware.native import Lock
from ws_middleware.types import Refusal

from .auth.anonymous import Anonymous
from .credentials import find_credential
from .origin import OriginRule
from .proxies import HostRule, TrustedProxies
from .routing import PathTable, PathTemplate
from .upgrade import find_problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ws_middleware.config import EffectivePolicy, ServerLimits
    from ws_middleware.types import Principal, UpgradeRequest

__all__ = ["Candidate", "Entry", "Gate", "Routed", "Slot"]


class Entry(Protocol):
    """What the gate needs to know of a route as it is served here."""

    @property
    def name(self) -> str:
        """What its sockets are counted under, for each user."""

    @property
    def policy(self) -> EffectivePolicy:
        """The whole policy."""


@dataclass(frozen=True)
class _Guarded:
    """A route with its origin rule, made once."""

    entry: Any
    origin: OriginRule
    host: HostRule

    @classmethod
    def of(cls, entry: Entry, *, ambient: bool, is_open: bool) -> _Guarded:
        policy = entry.policy
        host = HostRule(
            policy.allowed_hosts,
            is_open=is_open,
            origins_listed=policy.origins != "*" and "same-origin" not in policy.origins,
        )
        return cls(entry, OriginRule(policy.origins, ambient=ambient), host)


class Slot:
    """A place in the caps. `release` gives it back, once, however often it is called."""

    __slots__ = ("_gate", "_keys", "released", "undecided")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._keys: tuple[tuple[str, str] | None, ...] = ()
        self.undecided = True
        self.released = False

    def release(self) -> None:
        """Give the place back."""
        self._gate._release(self)  # noqa: SLF001 - the two are one thing


@dataclass(frozen=True)
class Routed:
    """A request whose path is one of ours: its parameters are known, its token is taken out."""

    request: UpgradeRequest
    guarded: _Guarded
    #: It is known by the path alone that it is not served.
    refusal: Refusal | None = None


@dataclass(frozen=True)
class Candidate:
    """A request that passed all checks before the authenticator."""

    request: UpgradeRequest
    entry: Any
    slot: Slot


class Gate:
    """All checks of one `WebSockets`."""

    def __init__(
        self,
        limits: ServerLimits,
        refuse_with: str = "http",
        trusted_proxies: Iterable[str] = (),
    ) -> None:
        self._limits = limits
        self._proxies = TrustedProxies(trusted_proxies)
        self._refuse_with = refuse_with
        self._table: PathTable[_Guarded] = PathTable()
        #: What the host app serves itself, the first that matches first.
        self._guards: list[tuple[PathTemplate, _Guarded]] = []
        self._rest: _Guarded | None = None
        #: Where any policy looks for a token.
        self._sources: dict[str, None] = {}
        self._lock = Lock()
        self._undecided = 0
        self._open = 0
        self._closed_with: Refusal | None = None
        self._per_user: Counter[tuple[str, str]] = Counter()

    def add(self, template: PathTemplate, entry: Entry) -> None:
        """Serve `entry` under `template`.

        Raises:
            ConfigError: the path is taken, or an origin in the policy is none.
        """
        self._table.add(template, self._with_rules(entry))

    def _with_rules(self, entry: Entry) -> _Guarded:
        self._sources.update(dict.fromkeys(getattr(entry.policy.auth, "sources", ())))
        is_open = isinstance(entry.policy.auth, Anonymous)
        return _Guarded.of(entry, ambient=entry.policy.is_ambient, is_open=is_open)

    def guard(self, template: PathTemplate | None, entry: Entry) -> None:
        """Let in by the policy of `entry` to what the host app serves under `template`.

        Without a template it is for what no other one matches.

        Raises:
            ConfigError: an origin in the policy is none.
        """
        if template is None:
            self._rest = self._with_rules(entry)
        else:
            self._guards.append((template, self._with_rules(entry)))

    def find_guarded(self, request: UpgradeRequest) -> Routed | None:
        """Return what guards a path that is none of ours; `None` if nothing does.

        A path that is like a guard's and none of any is refused: the app may read it as one of
        that guard's, and the policy for all the rest may ask for less.
        """
        for template, guarded in self._guards:
            parameters = template.match(request.path)
            if parameters is not None:
                return self._route(request, guarded, parameters)
        for template, guarded in self._guards:
            if template.is_like(request.path):
                return replace(self._route(request, guarded, {}), refusal=_nearly(template))
        return None if self._rest is None else self._route(request, self._rest, {})

    def shut(self, refusal: Refusal | None) -> None:
        """Answer every upgrade with `refusal` from now on; with `None`, let in again."""
        self._closed_with = refusal

    def find(self, request: UpgradeRequest) -> Routed | None:
        """Return what is known by the path alone; `None` if it is none of ours.

        For doors that pass on what is not ours, and that have to clean the host's own request of
        its token before anything is answered.
        """
        found = self._table.find(request.path)
        if found is None:
            return None
        return self._route(request, *found)

    @staticmethod
    def _route(request: UpgradeRequest, guarded: _Guarded, parameters: dict[str, Any]) -> Routed:
        policy: EffectivePolicy = guarded.entry.policy
        request = replace(request, path_params=parameters)
        return Routed(find_credential(request, getattr(policy.auth, "sources", ())), guarded)

    def check(self, request: UpgradeRequest, now: float) -> Refusal | Candidate:
        """Return a refusal, or a candidate that holds a place among the undecided."""
        routed = self.find(request)
        if routed is None:
            return self.refuse_unknown(request)
        return self.check_routed(routed, now)

    def forget_tokens(self, request: UpgradeRequest) -> UpgradeRequest:
        """Return a refused request without what would be a token on any path of this app.

        A page that asks for the wrong path brings its token along all the same.
        """
        return replace(find_credential(request, tuple(self._sources)), credential=None)

    def refuse_unknown(self, request: UpgradeRequest) -> Refusal:
        """Return the refusal of a path that nobody serves."""
        return self.dress_unrouted(_unknown(), request)

    def check_routed(self, routed: Routed, now: float) -> Refusal | Candidate:  # noqa: ARG002
        """Do the same for a request whose route has been found."""
        return self._check(routed.request, routed.guarded, routed.refusal)

    def check_view(
        self, request: UpgradeRequest, entry: Entry, *, needs_origin: bool = True
    ) -> Refusal | Candidate:
        """Do the same for a request whose path, and whose user, the host's own view knows.

        How the view knew them is not known here, so the origin is checked as for a cookie; without
        `needs_origin` a request that has none passes, for it comes from no browser.
        """
        return self._check(request, _Guarded.of(entry, ambient=needs_origin, is_open=False))

    def _check(
        self, request: UpgradeRequest, guarded: _Guarded, refusal: Refusal | None = None
    ) -> Refusal | Candidate:
        request = self._proxies.apply(request)
        problem = find_problem(request)
        if problem is not None:
            return problem  # always HTTP: this may be no WebSocket client at all
        refusal = (
            self._closed_with
            or refusal
            or guarded.host.check(request)
            or guarded.origin.check(request)
        )
        if refusal is None:
            slot = self._reserve()
            if isinstance(slot, Slot):
                return Candidate(request, guarded.entry, slot)
            refusal = slot
        return _dress(refusal, guarded.entry)

    def dress(self, refusal: Refusal, candidate: Candidate) -> Refusal:
        """Return a refusal that came after `check` in the form that the policy asks for."""
        return _dress(refusal, candidate.entry)

    def dress_unrouted(self, refusal: Refusal, request: UpgradeRequest) -> Refusal:
        """Return the refusal of a request that has no route in the form the app asks for."""
        as_close = self._refuse_with == "close" and find_problem(request) is None
        return replace(refusal, as_close=as_close)

    # --- caps --------------------------------------------------------------------------------

    def _reserve(self) -> Slot | Refusal:
        with self._lock:
            if self._limits.connections is not None and self._open >= self._limits.connections:
                return _full("connections", self._limits.connections)
            if self._limits.undecided is not None and self._undecided >= self._limits.undecided:
                return _full("undecided", self._limits.undecided)
            self._undecided += 1
        return Slot(self)

    def admit(self, candidate: Candidate, principal: Principal, now: float) -> Refusal | Slot:  # noqa: ARG002
        """Return the candidate's slot, now counted in every cap, or a refusal."""
        if self._closed_with is not None:  # since it was checked
            return self.dress(self._closed_with, candidate)
        policy: EffectivePolicy = candidate.entry.policy
        cap = policy.limits.connections_per_user
        key = (candidate.entry.name, principal.id)
        with self._lock:
            if self._limits.connections is not None and self._open >= self._limits.connections:
                return self.dress(_full("connections", self._limits.connections), candidate)
            counted = principal.is_authenticated
            if counted and cap is not None and self._per_user[key] >= cap:
                refusal = Refusal(
                    429,
                    "too_many_connections",
                    "you have too many open connections",
                    f"user {principal.id!r} has {cap} sockets here (connections_per_user)",
                    retry_after=60,
                )
                return self.dress(refusal, candidate)
            slot = candidate.slot
            if slot.released:  # the peer has gone: there is no place to count it in
                return slot
            slot.undecided = False
            self._undecided -= 1
            self._open += 1
            slot._keys = (key if counted else None,)  # noqa: SLF001 - the two are one thing
            if counted:
                self._per_user[key] += 1
        return slot

    def _release(self, slot: Slot) -> None:
        with self._lock:
            slot.released = True
            if slot.undecided:
                slot.undecided = False
                self._undecided -= 1
            elif slot._keys:  # noqa: SLF001
                self._open -= 1
                for key in slot._keys:  # noqa: SLF001
                    if key is not None:
                        self._per_user[key] -= 1
                        if not self._per_user[key]:
                            del self._per_user[key]
            slot._keys = ()  # noqa: SLF001

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many are undecided and open, and how many users have a socket."""
        with self._lock:
            return self._undecided, self._open, len(self._per_user)


def _dress(refusal: Refusal, entry: Entry) -> Refusal:
    """Put a refusal of a valid upgrade request into the form that the policy asks for."""
    return replace(refusal, as_close=entry.policy.refuse_with == "close")


def _unknown(why: str = "") -> Refusal:
    return Refusal(404, "route_unknown", "there is no WebSocket endpoint at this path", why)


def _nearly(template: PathTemplate) -> Refusal:
    return _unknown(
        f"It is nearly a path of guard {template.text}, and none: the app might read it as one, "
        "and the guard would not be asked. If it is another endpoint's, lay one over it: "
        "sockets.guard(path)"
    )


def _full(setting: str, value: int) -> Refusal:
    return Refusal(
        503,
        "server_full",
        "the server takes no more connections for now",
        f"{value} reached (ServerLimits.{setting})",
        retry_after=5,
    )
