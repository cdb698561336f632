import heapq
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dualrs.distributed import Dispatcher
from dualrs.sampling import Item

X = torch.zeros(1)


def items(count):
    return [Item(key, X) for key in range(count)]


def keys(given):
    return [item.key for item in given]


def test_items_are_read_as_they_are_wanted():
    read = []
    dispatcher = Dispatcher(item for item in items(100) if not read.append(item.key))
    assert keys(dispatcher.share("a", 3)) == [0, 1, 2]
    assert keys(dispatcher.share("b", 2)) == [3, 4]
    assert read == [0, 1, 2, 3, 4]
    assert dispatcher.share("a", 0) == []
    assert not dispatcher.finished


def test_what_a_lost_worker_was_at_goes_to_another():
    dispatcher = Dispatcher(items(4))
    dispatcher.share("a", 2)
    assert dispatcher.done("a", 0)
    assert dispatcher.lose("a", "it died") == []
    assert keys(dispatcher.share("b", 9)) == [1, 2, 3]


def test_idle_workers_get_copies_of_what_others_are_at_and_the_first_result_counts():
    dispatcher = Dispatcher(items(3))
    dispatcher.share("slow", 2)
    dispatcher.share("fast", 1)
    assert dispatcher.share("fast", 5) == []  # it has something to do
    assert dispatcher.done("fast", 2)
    assert keys(dispatcher.share("fast", 1)) == [0]
    assert keys(dispatcher.share("third", 5)) == [1]  # one copy of each is enough
    assert dispatcher.done("fast", 0)
    assert not dispatcher.done("slow", 0)
    assert not dispatcher.finished
    assert dispatcher.lose("third", "it died") == []
    assert dispatcher.done("slow", 1)
    assert dispatcher.finished


def test_a_result_that_was_not_asked_for_is_ignored():
    dispatcher = Dispatcher(items(2))
    assert not dispatcher.done("stranger", 0)
    assert keys(dispatcher.share("a", 1)) == [0]
    assert not dispatcher.done("a", 1)
    assert keys(dispatcher.share("b", 1)) == [1]


def test_an_item_that_workers_are_lost_by_is_given_up_and_takes_no_other_with_it():
    dispatcher = Dispatcher(items(40), most_losses=3)
    finished, given_up = set(), {}
    for attempt in range(60):
        held = keys(dispatcher.share(attempt, 4))
        if not held:
            break
        if 7 in held:
            assert len(held) == 1 or attempt < 3
            given_up |= {each.key: each for each in dispatcher.lose(attempt, "killed")}
        else:
            finished |= {key for key in held if dispatcher.done(attempt, key)}
    assert dispatcher.finished
    assert finished == set(range(40)) - {7}
    assert list(given_up) == [7]
    assert given_up[7].error == "3 workers were lost that were at it, the last one alone: killed"


@given(
    count=st.integers(0, 60),
    workers=st.integers(1, 6),
    seed=st.integers(0, 2**32),
    deaths=st.floats(0, 0.5),
)
def test_every_item_has_exactly_one_outcome_whatever_happens(count, workers, seed, deaths):
    chance, dispatcher, outcomes = random.Random(seed), Dispatcher(items(count)), []
    held = {worker: [] for worker in range(workers)}
    for _ in range(10_000):
        if dispatcher.finished:
            break
        worker = chance.randrange(workers)
        held[worker] += keys(dispatcher.share(worker, chance.randrange(5)))
        if chance.random() < deaths:
            outcomes += [failed.key for failed in dispatcher.lose(worker, "died")]
            held[worker] = []
        while held[worker] and chance.random() < 0.7:
            key = held[worker].pop(chance.randrange(len(held[worker])))
            outcomes += [key] if dispatcher.done(worker, key) else []
    assert dispatcher.finished
    assert sorted(outcomes) == list(range(count))
    for worker in held:
        assert dispatcher.share(worker, 9) == []


@pytest.mark.parametrize("ahead", [1, 4])
def test_slow_and_fast_workers_finish_together(ahead):
    """A tenth of the workers takes ten times as long; none of them is waited for."""
    chance, dispatcher, now = random.Random(0), Dispatcher(items(2_000)), 0.0
    pace = {worker: 10.0 if worker % 10 == 0 else 1.0 for worker in range(50)}
    events = [(0.0, worker, None) for worker in pace]
    queues = {worker: [] for worker in pace}
    ended = 0.0
    while events:
        now, worker, key = heapq.heappop(events)
        if key is not None and dispatcher.done(worker, key):
            ended = now
        queue = queues[worker]
        queue += keys(dispatcher.share(worker, 1 + ahead - len(queue)))
        if queue:
            heapq.heappush(events, (now + pace[worker] * chance.uniform(0.5, 1.5), worker, queue.pop(0)))
        elif not dispatcher.finished:
            heapq.heappush(events, (now + 0.1, worker, None))
    capacity = sum(1 / seconds for seconds in pace.values())
    assert dispatcher.finished
    assert ended < 1.1 * 2_000 / capacity
