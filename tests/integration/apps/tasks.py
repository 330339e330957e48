"""Celery's tasks that tell users something, each with its own way to send."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from celery import Celery  # type: ignore[import-untyped]
from redis import Redis

from tests.integration.apps.notified import sockets
from ws_middleware import BrokerUnavailable, Publisher

if TYPE_CHECKING:
    from ws_middleware.hub.audience import Audiences

celery = Celery("tasks", broker=os.environ["CELERY_BROKER"])
celery.conf.update(broker_connection_retry_on_startup=True, worker_hijack_root_logger=False)
publisher = Publisher(os.environ["WSM_BROKER"], prefix=os.environ["WSM_PREFIX"])

#: What was tried is noted where Celery's own messages are: it is there while the other is away.
notes = Redis.from_url(os.environ["CELERY_BROKER"])

retried: dict[str, Any] = {
    "bind": True,
    "autoretry_for": (BrokerUnavailable,),
    "default_retry_delay": 1,
    "max_retries": 60,
}


@celery.task(name="by_publisher", **retried)  # type: ignore[untyped-decorator]
def by_publisher(task: Any, user: str, text: str) -> None:
    attempt(task, publisher, user, text)


@celery.task(name="by_app", **retried)  # type: ignore[untyped-decorator]
def by_app(task: Any, user: str, text: str) -> None:
    attempt(task, sockets, user, text)


def attempt(task: Any, sender: Audiences[Any], user: str, text: str) -> None:
    """Send, and note how it went."""
    note = {"text": text, "retries": task.request.retries, "pid": os.getpid(), "error": ""}
    began = time.monotonic()
    try:
        sender.user(user).send(text)
    except Exception as error:
        note["error"] = type(error).__name__
        raise
    finally:
        note["took"] = time.monotonic() - began
        notes.rpush("notes", json.dumps(note))
