"""Processes that do jobs: one that fails, dies or hangs takes no other along, and the process stays for the next where it can."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Thread

import pytest
from gpu_jobs import asleep, job, prepare, steps, unable
from gpu_workers import ANEW, DIED, NOT_BEGUN, TOO_LONG, Workers


@pytest.fixture(scope="module")
def alone() -> Iterator[Workers]:
    with Workers(1, prepare) as workers:
        list(workers.each(job, [1], 60, time.monotonic() + 60))  # it is up by then
        yield workers


@pytest.fixture(scope="module")
def together() -> Iterator[Workers]:
    with Workers(3, prepare) as workers:
        yield workers


def soon(seconds: float = 30) -> float:
    return time.monotonic() + seconds


def test_answers_come_in_order_from_one_process_that_stays(alone: Workers) -> None:
    assert list(alone.each(job, [1, "prepared", 2], 30, soon())) == [(1, 2, ""), ("prepared", "yes", ""), (2, 4, "")]
    first, second = (found for _ in range(2) for _, found, _ in alone.each(job, ["process"], 30, soon()))
    assert first == second


def test_what_fails_dies_or_hangs_takes_no_other_along(alone: Workers) -> None:
    before, *_, after = found = list(alone.each(job, ["process", "fail", 1, "die", 2, "hang", 3, "process"], 2, soon()))
    told = {what: (result, reason) for what, result, reason in found[1:-1]}
    assert told == {"fail": (None, "ValueError: it fell"), 1: (2, ""), "die": (None, DIED), 2: (4, ""), "hang": (None, TOO_LONG),
                    3: (6, "")}
    assert before[1] != after[1]
    assert {found for _ in range(2) for _, found, _ in alone.each(job, ["process"], 30, soon())} == {after[1]}


def test_side_by_side_others_go_on(together: Workers) -> None:
    """The one that hangs has a process to itself until its patience is over; all others have their answers long before."""
    jobs = ["hang", "die", *range(20), "fail"]
    found = list(together.each(job, jobs, 2.0, soon()))
    assert [what for what, _, _ in found] == jobs
    assert [(result, reason) for _, result, reason in found[2:-1]] == [(2 * number, "") for number in range(20)]
    assert [reason for _, _, reason in (found[0], found[1], found[-1])] == [TOO_LONG, DIED, "ValueError: it fell"]


@pytest.mark.parametrize(("last", "reason"), [("fail", "ValueError: it fell"), ("die", DIED), ("hang", TOO_LONG), (0, "")])
def test_what_was_found_so_far_stays(alone: Workers, last: str, reason: str) -> None:
    heard: list[int] = []
    assert list(alone.each(steps, [last], 2, soon(), heard=heard.append)) == [(last, 2 if reason else 3, reason)]
    assert heard == ([1, 2] if reason else [1, 2, 3])


def test_the_end_leaves_out_what_is_not_done(alone: Workers) -> None:
    """A job that it cuts off tells nothing: it did not take too long."""
    begin = time.monotonic()
    assert list(alone.each(job, [1, "hang", 2], 30, begin + 3)) == [(1, 2, "")]
    assert time.monotonic() - begin < 10
    assert list(alone.each(job, [1], 30, begin)) == []
    assert list(alone.each(job, [3], 30, soon())) == [(3, 6, "")]


def test_the_lower_rank_comes_first(alone: Workers) -> None:
    """Though it was asked last; only what is being done is not interrupted."""
    late = alone.each(asleep, [1.5, 0.01], 30, soon(), rank=2)
    begin = time.monotonic()
    times: dict[str, list[float]] = {}
    threads = [Thread(target=lambda name=name, answers=answers: times.update({name: [found for _, found, _ in answers]}))
               for name, answers in (("late", late), ("early", alone.each(asleep, [0.02, 0.03], 30, soon(), rank=1)))]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert begin < times["late"][0] < times["early"][0] < times["early"][1] < times["late"][1]


def test_who_stops_listening_leaves_nothing_to_do(alone: Workers) -> None:
    answers = alone.each(asleep, [0.01, *[1.0] * 9], 30, soon())
    assert next(answers)[2] == ""
    answers.close()
    begin = time.monotonic()
    assert list(alone.each(job, [1], 30, soon())) == [(1, 2, "")]
    assert time.monotonic() - begin < 5  # one of the nine may have begun


def test_the_end_of_all_waits_for_nobody() -> None:
    found: list[object] = []
    with Workers(2, prepare) as workers:
        list(workers.each(job, [1, 2], 60, soon(60)))
        thread = Thread(target=lambda: found.extend(workers.each(job, ["hang"] * 4, 60, soon(60))))
        thread.start()
        time.sleep(0.5)
        begin = time.monotonic()
    thread.join(5)
    assert not thread.is_alive() and found == [] and time.monotonic() - begin < 5


def test_a_job_that_no_process_can_be_told_is_an_error(alone: Workers) -> None:
    with pytest.raises(Exception, match="pickle"):
        list(alone.each(lambda what: what, [1], 30, soon()))
    assert list(alone.each(job, [1], 30, soon())) == [(1, 2, "")]


def test_processes_that_can_not_begin_say_why() -> None:
    with Workers(1, unable) as workers:
        assert list(workers.each(job, [1, 2], 30, soon())) == [
            (number, None, f"{NOT_BEGUN}: RuntimeError: no GPU") for number in (1, 2)]


def test_processes_may_begin_by_themselves() -> None:
    with Workers(1, prepare, ANEW) as workers:
        assert list(workers.each(job, ["prepared", 1], 60, soon(60))) == [("prepared", "yes", ""), (1, 2, "")]


def test_who_falls_while_listening_gets_no_answer_of_an_earlier_job(alone: Workers) -> None:
    with pytest.raises(ZeroDivisionError):
        list(alone.each(steps, [0], 30, soon(), heard=lambda found: 1 // 0))
    assert list(alone.each(job, [4], 30, soon())) == [(4, 8, "")]
