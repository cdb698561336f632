import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualrs.certificates import VoteRequest, certify, run_procedure
from dualrs.serving.ticket import Asked, Ending, Ticket, sliced


def ticket(seconds=60.0, **asked):
    options = {"n0": 100, "n": 1000, "alpha": 0.001}
    return Ticket(torch.zeros(1), Asked(("cohen",), options, False, **asked), 0, time.monotonic() + seconds)


class Voters:
    """Votes in one fixed order, however many are asked for at a time."""

    def __init__(self, seed):
        self._votes = np.random.default_rng(seed).choice(3, p=(0.1, 0.8, 0.1), size=5000)
        self._given = 0
        self.asked = []

    def __call__(self, request):
        assert isinstance(request, VoteRequest)
        self.asked.append(request.count)
        votes = self._votes[self._given : self._given + request.count]
        self._given += request.count
        return np.bincount(votes, minlength=3)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 1500), seed=st.integers(0, 5))
def test_a_sliced_procedure_has_the_same_certificate(rows, seed):
    voters, asking = Voters(seed), ticket()
    certificate = run_procedure(sliced(certify(0.5, n=1000), asking, "cohen", rows), voters)
    assert certificate == run_procedure(certify(0.5, n=1000), Voters(seed))
    assert max(voters.asked) <= rows
    assert asking.answer("cohen") == certificate
    (counts,) = asking.votes.values()
    assert counts.sum() == 1100


@pytest.mark.parametrize("why", [Ending.CLIENT, Ending.SHUTDOWN])
def test_who_ends_gets_what_is_proved_by_then_for_one_slice_more(why):
    voters, asking = Voters(0), ticket()

    def answer(request):
        if len(voters.asked) == 4:
            asking.end(why)
        return voters(request)

    certificate = run_procedure(sliced(certify(0.5, n=1000), asking, "cohen", 50), answer)
    assert certificate.abstained
    assert certificate.stages == ()
    assert certificate.alpha == 0.001
    assert voters.asked == [50] * 5
    assert asking.ending is why


def test_a_deadline_ends_and_the_first_reason_counts():
    asking = ticket(seconds=0.0)
    assert asking.stopped
    asking.end(Ending.CLIENT)
    assert asking.ending is Ending.DEADLINE
