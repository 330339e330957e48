from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from ws_middleware import receipt as receipt_module
from ws_middleware.receipt import Receipt, when_all

if TYPE_CHECKING:
    from collections.abc import Callable


def in_thread(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


class Fault(Exception):  # noqa: N818 - nobody's error
    pass


# --- without waiting -----------------------------------------------------------------------------


def test_a_ready_one_has_its_value_as_often_as_asked() -> None:
    receipt = Receipt.ready(5)
    assert receipt.done
    assert [receipt.result(), receipt.result(timeout=0)] == [5, 5]


def test_a_failed_one_raises_as_often_as_asked() -> None:
    fault = Fault("x")
    receipt: Receipt[int] = Receipt.failed(fault)
    assert receipt.done
    for _ in range(2):
        with pytest.raises(Fault) as caught:
            receipt.result()
        assert caught.value is fault


def test_none_is_a_value() -> None:
    receipt: Receipt[None] = Receipt()
    assert not receipt.done
    receipt.resolve(None)
    assert receipt.done
    receipt.result(timeout=0)


def test_only_the_first_outcome_counts() -> None:
    receipt: Receipt[int] = Receipt()
    receipt.resolve(1)
    receipt.resolve(2)
    receipt.fail(Fault())
    assert receipt.result() == 1
    failed: Receipt[int] = Receipt()
    failed.fail(Fault())
    failed.resolve(1)
    with pytest.raises(Fault):
        failed.result()


def test_several_are_done_when_the_last_one_is() -> None:
    receipts: list[Receipt[None]] = [Receipt(), Receipt.ready(None), Receipt()]
    joint = when_all(receipts)
    for receipt in (receipts[2], receipts[0]):
        assert not joint.done
        receipt.resolve(None)
    assert joint.done
    joint.result()
    assert when_all([]).done


def test_several_fail_as_the_first_of_them_that_failed() -> None:
    fault = Fault("x")
    joint = when_all([Receipt.ready(None), Receipt.failed(fault), Receipt.failed(Fault("y"))])
    with pytest.raises(Fault) as caught:
        joint.result()
    assert caught.value is fault


def test_its_repr_says_how_it_stands() -> None:
    receipt: Receipt[int] = Receipt()
    assert repr(receipt) == "<Receipt pending>"
    receipt.resolve(5)
    assert repr(receipt) == "<Receipt 5>"
    assert repr(Receipt.failed(Fault("x"))) == "<Receipt Fault('x')>"


# --- callbacks -----------------------------------------------------------------------------------


def test_callbacks_are_called_once_and_in_order() -> None:
    called: list[str] = []
    receipt: Receipt[int] = Receipt()
    receipt.add_done_callback(lambda: called.append("a"))
    receipt.add_done_callback(lambda: called.append("b"))
    assert called == []
    receipt.resolve(1)
    receipt.resolve(2)
    receipt.fail(Fault())
    assert called == ["a", "b"]


def test_a_callback_of_a_done_one_is_called_at_once() -> None:
    called: list[int] = []
    Receipt.ready(1).add_done_callback(lambda: called.append(1))
    Receipt.failed(Fault()).add_done_callback(lambda: called.append(2))
    assert called == [1, 2]


def test_a_callback_sees_the_outcome_and_may_add_another() -> None:
    seen: list[int] = []
    receipt: Receipt[int] = Receipt()
    receipt.add_done_callback(
        lambda: receipt.add_done_callback(lambda: seen.append(receipt.result()))
    )
    receipt.resolve(5)
    assert seen == [5]


def test_callbacks_are_called_once_whatever_threads_settle_and_add() -> None:
    for _ in range(50):
        receipt: Receipt[int] = Receipt()
        called: list[int] = []
        start = threading.Barrier(8)

        def settle(
            number: int,
            start: threading.Barrier = start,
            receipt: Receipt[int] = receipt,
            called: list[int] = called,
        ) -> None:
            start.wait()
            receipt.add_done_callback(lambda: called.append(number))
            receipt.resolve(number)

        threads = [in_thread(lambda n=n, settle=settle: settle(n)) for n in range(8)]  # type: ignore[misc]
        for thread in threads:
            thread.join(10)
        assert sorted(called) == list(range(8))
        assert receipt.result() in range(8)


# --- result() ------------------------------------------------------------------------------------


def test_result_waits_for_another_thread() -> None:
    receipt: Receipt[int] = Receipt()
    waiting = threading.Event()
    results: list[int] = []

    def wait() -> None:
        waiting.set()
        results.append(receipt.result(timeout=10))

    threads = [in_thread(wait) for _ in range(4)]
    assert waiting.wait(10)
    receipt.resolve(5)
    for thread in threads:
        thread.join(10)
    assert results == [5, 5, 5, 5]


def test_result_raises_what_another_thread_said() -> None:
    receipt: Receipt[int] = Receipt()
    thread = in_thread(lambda: receipt.fail(Fault("x")))
    with pytest.raises(Fault, match=r"^x$"):
        receipt.result(timeout=10)
    thread.join(10)


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_result_gives_up_after_its_timeout(timeout: float) -> None:
    receipt: Receipt[int] = Receipt()
    with pytest.raises(TimeoutError) as caught:
        receipt.result(timeout=timeout)
    assert str(caught.value) == f"no outcome after {timeout} s"
    receipt.resolve(5)
    assert receipt.result(timeout=timeout) == 5


def test_a_wait_that_is_given_up_leaves_nothing() -> None:
    receipt: Receipt[int] = Receipt()

    async def wait() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receipt, 0.001)

    seen: list[int] = []
    receipt.add_done_callback(lambda: seen.append(1))  # somebody else's, which stays
    for _ in range(10):
        with pytest.raises(TimeoutError):
            receipt.result(timeout=0)
        asyncio.run(wait())
    assert len(receipt._callbacks or ()) == 1
    receipt.resolve(5)
    assert seen == [1]


def test_a_finalizer_may_settle_one_while_another_is_settled() -> None:
    other: Receipt[int] = Receipt()

    class Value:
        def __del__(self) -> None:
            other.resolve(5)

    value = [Value()]
    with receipt_module._lock:
        value.clear()  # as the collector may, anywhere
    assert other.result(timeout=0) == 5


def test_result_would_block_a_running_loop() -> None:
    async def ask(receipt: Receipt[int]) -> int:
        return receipt.result(timeout=10)

    with pytest.raises(RuntimeError) as caught:
        asyncio.run(ask(Receipt()))
    assert str(caught.value) == (
        "result() would block this thread's event loop; await the receipt instead"
    )
    assert asyncio.run(ask(Receipt.ready(5))) == 5


def test_result_is_no_trouble_beside_a_loop_in_another_thread() -> None:
    receipt: Receipt[int] = Receipt()

    async def settle() -> None:
        receipt.resolve(5)

    thread = in_thread(lambda: asyncio.run(settle()))
    assert receipt.result(timeout=10) == 5
    thread.join(10)


# --- await ---------------------------------------------------------------------------------------


def test_await_returns_or_raises_at_once_what_is_known() -> None:
    async def wait(receipt: Receipt[int]) -> int:
        return await receipt

    assert asyncio.run(wait(Receipt.ready(5))) == 5
    with pytest.raises(Fault):
        asyncio.run(wait(Receipt.failed(Fault())))


def test_await_wakes_when_settled_on_its_own_loop() -> None:
    async def main() -> list[int]:
        receipt: Receipt[int] = Receipt()
        asyncio.get_running_loop().call_soon(receipt.resolve, 5)
        return list(await asyncio.gather(*(wait(receipt) for _ in range(3))))

    async def wait(receipt: Receipt[int]) -> int:
        return await receipt

    assert asyncio.run(main()) == [5, 5, 5]


def test_await_wakes_when_settled_in_another_thread() -> None:
    async def main() -> int:
        receipt: Receipt[int] = Receipt()
        asyncio.get_running_loop().call_soon(lambda: in_thread(lambda: receipt.resolve(5)).join(10))
        return await asyncio.wait_for(receipt, 10)

    assert asyncio.run(main()) == 5


def test_await_raises_what_went_wrong() -> None:
    async def main() -> None:
        receipt: Receipt[int] = Receipt()
        asyncio.get_running_loop().call_soon(receipt.fail, Fault("x"))
        with pytest.raises(Fault, match=r"^x$"):
            await receipt

    asyncio.run(main())


def test_a_wait_that_is_given_up_harms_no_other() -> None:
    async def main() -> int:
        receipt: Receipt[int] = Receipt()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receipt, 0.01)
        patient = asyncio.ensure_future(wait(receipt))
        await asyncio.sleep(0)
        receipt.resolve(5)
        return await patient

    async def wait(receipt: Receipt[int]) -> int:
        return await receipt

    assert asyncio.run(main()) == 5


def test_settling_after_the_loop_has_ended_is_nothing() -> None:
    receipt: Receipt[int] = Receipt()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receipt, 0.01)

    asyncio.run(give_up())
    receipt.resolve(5)
    assert receipt.result() == 5


def test_waiting_on_two_loops_and_in_a_thread_at_once() -> None:
    receipt: Receipt[int] = Receipt()
    ready = threading.Barrier(4)
    results: list[int] = []

    async def wait() -> None:
        asyncio.get_running_loop().call_soon(lambda: in_thread(lambda: ready.wait(10)))
        results.append(await receipt)

    def block() -> None:
        ready.wait(10)
        results.append(receipt.result(timeout=10))

    threads = [in_thread(lambda: asyncio.run(wait())) for _ in range(2)] + [in_thread(block)]
    ready.wait(10)
    receipt.resolve(5)
    for thread in threads:
        thread.join(10)
    assert results == [5, 5, 5]


def test_an_error_nobody_waits_for_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        Receipt[int]().fail(Fault())
        del_me: Receipt[int] = Receipt.failed(Fault())
        del del_me
        await asyncio.sleep(0)

    asyncio.run(main())
    assert capfd.readouterr() == ("", "")


def test_a_callback_that_raises_keeps_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    receipt: Receipt[int] = Receipt()
    heard: list[int] = []

    def fail() -> None:
        raise ZeroDivisionError

    receipt.add_done_callback(fail)
    receipt.add_done_callback(lambda: heard.append(receipt.result(0)))
    receipt.resolve(7)
    assert heard == [7]
    assert "a callback of a receipt failed" in caplog.text


def test_what_is_made_of_a_value_has_a_receipt_of_its_own() -> None:
    receipt: Receipt[int] = Receipt()
    doubled, failing = receipt.map(lambda value: value * 2), receipt.map(lambda value: value // 0)
    assert not doubled.done
    receipt.resolve(7)
    assert doubled.result(0) == 14
    with pytest.raises(ZeroDivisionError):
        failing.result(0)
    with pytest.raises(KeyError):
        Receipt[int].failed(KeyError("x")).map(str).result(0)
