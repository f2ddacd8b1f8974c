"""The table of open questions: one reply each, from whom was asked, in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zapd.agent.questions import REMEMBERED, Dropped, Question, QuestionTable


def ask(table: QuestionTable, now: float = 0.0, number: int = 0, link: int = 0) -> Question:
    question = table.add([b"peer", b""], [b"1.0", b"1"], b"1", "CURVE", now)
    assert question is not None
    question.asked[number] = link
    return question


def test_one_reply_from_who_was_asked() -> None:
    """The first reply from the asked zapd matches; after it the same id is double."""
    table = QuestionTable(10, 2.0)
    question = ask(table)
    assert table.match(question.id, 0, 0, 1.0) is question
    table.close(question, Dropped.DOUBLE)
    assert table.match(question.id, 0, 0, 1.0) is Dropped.DOUBLE


def test_unknown_and_foreign_ids() -> None:
    """An id nobody asked, a zapd nobody asked, a socket made later: foreign."""
    table = QuestionTable(10, 2.0)
    question = ask(table, number=0, link=3)
    assert table.match(b"?" * 16, 0, 0, 1.0) is Dropped.FOREIGN
    assert table.match(question.id, 1, 0, 1.0) is Dropped.FOREIGN
    assert table.match(question.id, 0, 4, 1.0) is Dropped.FOREIGN
    assert table.match(question.id, 0, 2, 1.0) is question


def test_after_the_deadline_nothing_counts() -> None:
    """A reply at the deadline is late, before and after the table has swept the question out (R13)."""
    table = QuestionTable(10, 2.0)
    question = ask(table)
    assert table.match(question.id, 0, 0, 2.0) is Dropped.LATE
    assert table.expired(2.0) == [question]
    table.close(question, Dropped.LATE)
    assert table.match(question.id, 0, 0, 2.0) is Dropped.LATE


def test_full_table_takes_nothing() -> None:
    """At its limit the table refuses, and has room again when one is closed."""
    table = QuestionTable(2, 2.0)
    first = ask(table)
    ask(table)
    assert table.add([b""], [], b"1", "NULL", 0.0) is None
    table.close(first, Dropped.DOUBLE)
    assert table.add([b""], [], b"1", "NULL", 0.0) is not None


def test_memory_of_finished_ids_is_bounded() -> None:
    """Only the last few thousand finished ids are remembered; older ones become foreign."""
    table = QuestionTable(10, 2.0)
    first = ask(table)
    table.close(first, Dropped.DOUBLE)
    for _ in range(REMEMBERED):
        table.close(ask(table), Dropped.LATE)
    assert table.match(first.id, 0, 0, 0.0) is Dropped.FOREIGN
    assert len(table._done) == REMEMBERED


def test_closing_twice_keeps_the_first_verdict() -> None:
    """A question closed at its deadline stays late whatever comes later."""
    table = QuestionTable(10, 2.0)
    question = ask(table)
    table.close(question, Dropped.LATE)
    table.close(question, Dropped.DOUBLE)
    assert table.match(question.id, 0, 0, 0.0) is Dropped.LATE


def test_repr_hides_credentials() -> None:
    """A question printed by accident shows no credential."""
    table = QuestionTable(1, 1.0)
    question = table.add([b"p", b""], [b"1.0", b"hunter2"], b"1", "PLAIN", 0.0)
    assert "hunter2" not in repr(question)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.floats(0, 15))
def test_expired_are_exactly_the_overdue(times: list[float], now: float) -> None:
    """Whatever the times of asking, the sweep finds exactly what is overdue, oldest first."""
    table = QuestionTable(100, 2.0)
    questions = [ask(table, at) for at in sorted(times)]
    assert table.expired(now) == [each for each in questions if each.deadline <= now]
