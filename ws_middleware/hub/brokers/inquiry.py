"""Asking every process in the calling thread, where no socket is served and no loop is ours."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Final

from ws_middleware.hub.envelope import Answer, Envelope, every_node_channel, node_channel
from ws_middleware.hub.questions import PATIENCE, Answers, Questions
from ws_middleware.hub.wire import Dropped, read

from .addresses import Servers
from .hearing import Hearing
from .post import Post

if TYPE_CHECKING:
    from ws_middleware.hub.envelope import Question
    from ws_middleware.hub.registry import Address

__all__ = ["Inquiry"]

#: Bytes that an answer may have.
_LARGEST: Final = 1024**2


class Inquiry:
    """Asks over Redis; with a connection for each question, for they are few."""

    def __init__(self, url: str, prefix: str, secret: bytes | None) -> None:
        self._servers = Servers(url)
        self._post = Post(url, prefix, secret)
        self._prefix = prefix
        self._secret = secret

    def ask(self, question: Question, address: Address | None = None) -> Answers:
        """Return what came back within `PATIENCE` seconds.

        Raises:
            BrokerUnavailable: nobody could be asked.
        """
        node = f"ask-{secrets.token_hex(4)}"
        own = node_channel(self._prefix, node)
        questions = Questions()
        ask, answers = questions.add(question, address)
        with Hearing(self._servers, [own]) as hearing:
            heard = self._post.publish(every_node_channel(self._prefix), Envelope(ask, node=node))
            if heard is not None:
                questions.expect(ask, heard)
            end = time.monotonic() + PATIENCE
            while not answers.done and (said := hearing.next(end)) is not None:
                self._take(questions, own, said.data)
        questions.give_up(ask)
        return answers.result(0)

    def _take(self, questions: Questions, own: str, data: bytes) -> None:
        now = time.time()
        envelope = read(data, channel=own, largest=_LARGEST, now=now, secret=self._secret)
        if not isinstance(envelope, Dropped) and isinstance(envelope.action, Answer):
            questions.take(envelope.action.id, envelope.action.value)
