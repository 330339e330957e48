from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Any

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]
from gunicorn.workers.sync import SyncWorker  # type: ignore[import-untyped]

from ws_middleware.net.worker import Worker, drain_time, find_worker, longest_drain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def gunicorn() -> Iterator[Callable[..., SyncWorker]]:
    """Make this process a worker of gunicorn, as far as its signals go."""
    before = signal.getsignal(signal.SIGTERM)
    made: list[SyncWorker] = []

    def become(**settings: Any) -> SyncWorker:
        cfg = Config()
        for name, value in settings.items():
            cfg.set(name, value)
        log = logging.getLogger("gunicorn")
        worker = SyncWorker(1, 0, [], None, cfg.timeout, cfg, log)
        made.append(worker)
        signal.signal(signal.SIGTERM, worker.handle_exit)
        return worker

    yield become
    signal.signal(signal.SIGTERM, before)
    for worker in made:
        worker.tmp.close()


@pytest.mark.parametrize(
    ("settings", "grace"),
    [
        ({}, 30.0),
        ({"graceful_timeout": 12}, 12.0),
        ({"timeout": 9}, 9.0),
        ({"timeout": 0, "graceful_timeout": 40}, 40.0),
    ],
)
def test_a_worker_has_so_long_to_end(
    gunicorn: Callable[..., SyncWorker], settings: dict[str, int], grace: float
) -> None:
    gunicorn(**settings)
    assert find_worker() == Worker(grace, None)


def test_a_worker_that_has_served_its_requests_is_recycled(
    gunicorn: Callable[..., SyncWorker],
) -> None:
    worker = gunicorn(max_requests=5, max_requests_jitter=2)
    worker.nr = 4
    assert find_worker() == Worker(30.0, None)
    worker.nr = worker.max_requests
    assert find_worker() == Worker(30.0, 5)


def test_without_max_requests_none_is_recycled(gunicorn: Callable[..., SyncWorker]) -> None:
    gunicorn().nr = 10**9
    assert find_worker() == Worker(30.0, None)


class Handler:
    """Somebody else's."""

    nr = max_requests = 0

    def handle(self, *args: object) -> None: ...


@pytest.mark.parametrize(
    "handler", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None, Handler().handle]
)
def test_a_process_that_is_no_worker(gunicorn: Callable[..., SyncWorker], handler: Any) -> None:
    gunicorn()
    signal.signal(signal.SIGTERM, handler)
    assert find_worker() is None


GRACE_30, GRACE_6 = Worker(30.0, None), Worker(6.0, None)


@pytest.mark.parametrize(
    ("wanted", "sockets", "worker", "expected"),
    [
        pytest.param(None, 0, None, 0.0, id="none"),
        pytest.param(None, 50, None, 1.0, id="few"),
        pytest.param(None, 5000, None, 10.0, id="many"),
        pytest.param(None, 5000, GRACE_30, 10.0, id="gunicorn-by-default"),
        pytest.param(None, 5000, GRACE_6, 2.0, id="a-short-grace"),
        pytest.param(60, 1, GRACE_6, 60, id="as-somebody-says"),
        pytest.param(0, 5000, None, 0, id="at-once"),
        pytest.param(60, 0, None, 0.0, id="nobody-to-wait-for"),
    ],
)
def test_how_long_closes_are_spread(
    wanted: float | None, sockets: int, worker: Worker | None, expected: float
) -> None:
    assert drain_time(wanted, sockets, worker) == expected


def test_the_longest_that_fits() -> None:
    assert longest_drain(GRACE_30) == 20.0
