"""Whether the ASGI server that we run in has other worker processes, for ASGI does not say.

Every server that has several keeps the number in an object of its own, which is on our stack.
"""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Final

from .stack import find_objects

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["has_siblings"]

#: Packages of servers that start their workers by `multiprocessing`: in another process their
#: number is a wish, such as WEB_CONCURRENCY, that nobody has fulfilled.
_BY_MULTIPROCESSING: Final = frozenset({"uvicorn", "hypercorn", "granian"})
#: That one forks by itself.
_BY_FORK: Final = "gunicorn"

#: What these objects call the number.
_NUMBERS: Final = ("workers", "num_workers")


def has_siblings() -> bool:
    """Whether a server on the stack of the caller has started more workers than one."""
    return max(_numbers(), default=1) > 1


def _numbers() -> Iterator[int]:
    """Yield every number of workers that a server's object on the stack says."""
    is_child = multiprocessing.parent_process() is not None
    servers = {_BY_FORK, *(_BY_MULTIPROCESSING if is_child else ())}
    for found in find_objects(servers):
        for name in _NUMBERS:
            number = getattr(found.value, name, None)
            if isinstance(number, int):
                yield number
