"""One WSGI answer in the place of another (PEP 3333).

Which of the two goes out is known when the app says its status: before it returns, or, where it is
a generator, first when its answer is read. What it may do besides stays allowed: to call `write`,
to say another status after an exception, to be closed. An answer that is not replaced passes as the
object that it is, for a server looks whether it is its own `wsgi.file_wrapper`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Substitute"]

T = TypeVar("T")


class Substitute(Generic[T]):
    """A `start_response` that holds back what is to be replaced.

    Args:
        start_response: the server's.
        judge: called with status and headers; returns what replaces them, `None` to let them pass.
        give: carries that out: calls the server's `start_response` and returns the body.
    """

    def __init__(
        self,
        start_response: StartResponse,
        judge: Callable[[str, list[tuple[str, str]]], T | None],
        give: Callable[[T], Iterable[bytes]],
    ) -> None:
        self._start_response = start_response
        self._judge = judge
        self._give = give
        self._has_passed = False
        #: What replaces the app's answer, as far as it is known.
        self.verdict: T | None = None

    def __call__(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:  # noqa: ANN401
        """Take the app's status and headers; return PEP 3333's `write`."""
        if not self._has_passed:  # afterwards the server has to know what may be taken back
            self.verdict = self._judge(status, headers)
            if self.verdict is not None:
                return _ignore
            self._has_passed = True
        return self._start_response(status, headers, *exc_info)

    def call(self, app: WSGIApplication, environ: WSGIEnvironment) -> Iterable[bytes]:
        """Call the app and return what it returned, closed already if it is replaced."""
        chunks = app(environ, self)
        if self.verdict is not None:
            _close(chunks)
        return chunks

    def answer(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Return what the server gets for what the app has returned."""
        if self.verdict is not None:
            return self._give(self.verdict)
        return chunks if self._has_passed else _Late(self, chunks)

    def read(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the answer of an app that has not said its status yet."""
        for chunk in chunks:
            if self.verdict is not None:
                break
            yield chunk
        if self.verdict is not None:
            yield from self._give(self.verdict)


class _Late:
    """An answer whose status comes when it is read.

    No generator: one that was never begun does nothing when it is closed, and the app's has to be.
    """

    def __init__(self, substitute: Substitute[Any], chunks: Iterable[bytes]) -> None:
        self._substitute = substitute
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self._substitute.read(self._chunks)

    def close(self) -> None:
        _close(self._chunks)


def _ignore(data: bytes) -> None:
    """PEP 3333's `write`, for an answer that does not go out."""


def _close(chunks: Iterable[bytes]) -> None:
    close = getattr(chunks, "close", None)
    if close is not None:
        close()
