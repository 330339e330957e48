from __future__ import annotations

import pytest

from ws_middleware.errors import BrokerUnavailable
from ws_middleware.hub.questions import Answers, Questions, total_of
from ws_middleware.hub.registry import Address

ROOM = Address("room", "7")


def test_a_question_is_settled_when_all_who_have_heard_it_have_answered() -> None:
    questions = Questions()
    ask, receipt = questions.add("count", ROOM)
    assert (ask.question, ask.address) == ("count", ROOM)
    questions.expect(ask, 2)
    questions.take(ask.id, 3)
    assert not receipt.done
    questions.take(ask.id, 4)
    assert receipt.result(0) == Answers((3, 4), missing=0)


def test_answers_may_come_before_it_is_known_how_many_there_will_be() -> None:
    questions = Questions()
    ask, receipt = questions.add("count", ROOM)
    questions.take(ask.id, 3)
    assert not receipt.done
    questions.expect(ask, 1)
    assert receipt.result(0) == Answers((3,), missing=0)


def test_nobody_has_heard_it() -> None:
    questions = Questions()
    ask, receipt = questions.add("stats", None)
    questions.expect(ask, 0)
    assert receipt.result(0) == Answers((), missing=0)


def test_those_who_do_not_answer_in_time_are_missing() -> None:
    questions = Questions()
    ask, receipt = questions.add("count", ROOM)
    questions.expect(ask, 3)
    questions.take(ask.id, 1)
    questions.give_up(ask)
    assert receipt.result(0) == Answers((1,), missing=2)
    questions.take(ask.id, 1)  # too late
    questions.give_up(ask)
    assert receipt.result(0) == Answers((1,), missing=2)


def test_where_nobody_knows_how_many_there_are_nobody_knows_how_many_are_missing() -> None:
    questions = Questions()
    ask, receipt = questions.add("count", ROOM)
    questions.take(ask.id, 5)
    questions.give_up(ask)
    assert receipt.result(0) == Answers((5,), missing=None)


def test_each_question_has_its_own_answers() -> None:
    questions = Questions()
    one, first = questions.add("count", ROOM)
    two, second = questions.add("count", ROOM)
    for ask in (one, two):
        questions.expect(ask, 1)
    questions.take(two.id, 2)
    questions.take("unknown", 9)
    questions.take(one.id, 1)
    assert (first.result(0).values, second.result(0).values) == ((1,), (2,))


def test_a_question_that_could_not_be_asked() -> None:
    questions = Questions()
    ask, receipt = questions.add("count", ROOM)
    questions.fail(ask, BrokerUnavailable("away"))
    with pytest.raises(BrokerUnavailable):
        receipt.result(0)
    questions.expect(ask, 1)
    questions.give_up(ask)


def test_a_total_is_of_what_all_have_counted() -> None:
    assert total_of(Answers((1, 2), missing=0)) == 3
    assert total_of(Answers((), missing=0)) == 0
    assert total_of(Answers((4,), missing=None)) == 4
    # What others answer is nothing to rely on.
    assert total_of(Answers((1, "2", True, -5, None, {"a": 1}), missing=0)) == 1


def test_a_total_without_all_of_them_is_none() -> None:
    with pytest.raises(BrokerUnavailable, match="1 of 3 other processes did not answer"):
        total_of(Answers((1, 2), missing=1))
