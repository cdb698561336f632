"""Sets of inputs: what sets are, in a byte a position."""

import sys
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualrs.evaluation.indices import Indices

members = st.frozensets(st.integers(0, 40))


@given(members, members)
def test_it_is_a_set(one, other):
    found, beside = Indices(one), Indices(other)
    assert (found == beside, found <= beside, len(found), bool(found)) == (
        one == other,
        one <= other,
        len(one),
        one != set(),
    )
    assert [i for i in range(-1, 45) if i in found] == list(found) == sorted(one)
    for second in (beside, other):
        assert found | second == one | other
        assert found - second == one - other
        assert found & second == one & other
        assert isinstance(found | second, Indices)
    assert one | beside == one | other
    assert one - beside == one - other


@given(members, st.lists(st.tuples(st.booleans(), st.integers(0, 60))))
def test_it_grows_and_shrinks_as_a_set_does(before, steps):
    found, model = Indices(before), set(before)
    for adds, index in steps:
        (found.add if adds else found.discard)(index)
        (model.add if adds else model.discard)(index)
        assert (index in found, len(found)) == (index in model, len(model))
    assert found == model


@given(members)
def test_runs_are_its_members_in_as_few_ranges_as_there_can_be(wanted):
    runs = list(Indices(wanted).runs())
    assert [index for run in runs for index in run] == sorted(wanted)
    assert all(before.stop < after.start for before, after in pairwise(runs))


def test_members_may_come_from_arrays_and_columns():
    assert Indices(np.array([3, 1])) == Indices(pl.Series([1, 3, 3])) == {1, 3}
    assert np.int64(3) in Indices([3])
    assert "3" not in Indices([3])


def test_what_is_no_position_is_refused():
    with pytest.raises(ValueError, match="at least 0; got -1"):
        Indices([2, -1])


def test_a_million_take_about_a_megabyte():
    assert sys.getsizeof(Indices(range(10**6))._held) < 1.3e6
