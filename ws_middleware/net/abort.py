"""Ending a connection that a server holds and does not let go of.

By the server's own hand where it gives us one. Else, on Linux and unless the app forbids it, by the
descriptor whose two ends are those of the scope: shut down, the server sees an error and cleans up
by itself. To find it among thousands takes a while, and where one peer is lost many may be: so a
thread looks for all of them at once.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.native import Lock, start_thread

from .control import control_of
from .logs import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, MutableMapping

    _Address = tuple[str, int]
    _Ends = tuple[_Address, _Address]

__all__ = ["abort_connection", "warn_uncut"]

_log: Final = Logger("ws_middleware.asgi")

#: Why it could not, where that is the app's own wish, and what would help.
_OFF: Final = (
    " (abort_by_descriptor is False)",
    "Leave abort_by_descriptor at True, which cuts it on Linux. Or have it cut by the server: ",
)

_DESCRIPTORS: Final = Path("/proc/self/fd")


def abort_connection(
    scope: MutableMapping[str, Any], told: Callable[[bool], object], *, by_descriptor: bool
) -> None:
    """Cut the connection, and tell whether it has been; from whatever thread.

    `by_descriptor` says whether that may be done by one which the server has opened.
    """
    control, ends = control_of(scope), _ends_of(scope)
    if control is not None:
        control.abort()
        told(True)  # noqa: FBT003 - it is said right above
    elif by_descriptor and ends is not None:
        _cutter.cut(ends, told)
    else:
        told(False)  # noqa: FBT003 - as above


@cache
def warn_uncut(*, by_descriptor: bool) -> None:
    """Say that a connection could not be cut; once, for then it can be for no peer."""
    why, remedy = ("", "") if by_descriptor else _OFF
    _log.warning(
        "a peer is gone and its connection cannot be cut here%s: it stays until the server's own "
        "limits end it. %suvicorn's can be, with --ws ws_middleware.uvicorn:WebSocketProtocol",
        why,
        remedy,
    )


def _ends_of(scope: MutableMapping[str, Any]) -> _Ends | None:
    """Return what a descriptor can be known by; `None` if it cannot, or must not be cut."""
    # Over HTTP/2 it is shared with other streams, whose peer may well be there.
    is_alone = str(scope.get("http_version") or "1.1").startswith("1")
    peer, own = _address(scope.get("client")), _address(scope.get("server"))
    # A port 0 is a proxy's word, and no socket's.
    if sys.platform != "linux" or not is_alone or peer is None or own is None or not peer[1]:
        return None
    return peer, own


def _address(given: Any) -> _Address | None:  # noqa: ANN401 - as servers write it
    with contextlib.suppress(IndexError, KeyError, TypeError, ValueError):
        return str(given[0]), int(given[1])
    return None


class _Cutter:
    """Looks for descriptors and shuts them down, in a thread that lasts while some are wanted."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._wanted: dict[_Ends, list[Callable[[bool], object]]] = {}
        self._is_at_work = False

    def cut(self, ends: _Ends, told: Callable[[bool], object]) -> None:
        """Have one cut."""
        with self._lock:
            self._wanted.setdefault(ends, []).append(told)
            begins, self._is_at_work = not self._is_at_work, True
        if begins:
            try:
                start_thread(self._work, "ws-abort")
            except OSError:  # no thread is left
                self._work()

    def _work(self) -> None:
        while wanted := self._take():
            found = _shut_down(wanted.keys())
            for ends, waiting in wanted.items():
                for told in waiting:
                    told(ends in found)

    def _take(self) -> dict[_Ends, list[Callable[[bool], object]]]:
        with self._lock:
            wanted, self._wanted = self._wanted, {}
            self._is_at_work = bool(wanted)
        return wanted


def _shut_down(wanted: Collection[_Ends]) -> set[_Ends]:
    """Shut down the connections with these ends, and return which there were."""
    found: set[_Ends] = set()
    for entry in list(_DESCRIPTORS.iterdir()):
        with contextlib.suppress(OSError):  # gone meanwhile, or not a socket's
            if entry.readlink().name.startswith("socket:"):
                with _copy(int(entry.name)) as sock:
                    ends = sock.getpeername()[:2], sock.getsockname()[:2]
                    if ends in wanted and sock.type is socket.SOCK_STREAM:
                        found.add(ends)
                        sock.shutdown(socket.SHUT_RDWR)
    return found


def _copy(fileno: int) -> socket.socket:
    """Return a socket of its own: the number may be somebody else's a moment later."""
    copy = os.dup(fileno)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


_cutter = _Cutter()


def _reset() -> None:
    """A child has none of the threads."""
    global _cutter  # noqa: PLW0603 - one for all is the point of it
    _cutter = _Cutter()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)
