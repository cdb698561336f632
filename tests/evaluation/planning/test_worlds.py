import numpy as np
import pytest

from dualrs.certificates import certify, routed_certify
from dualrs.evaluation.planning._worlds import MASSES, VoteStream, World, imagine, likely_masses

P = np.array([0.7, 0.2, 0.1])  # the last for no class


def stream(seed=0, p=P):
    return VoteStream(p, np.random.default_rng(seed))


def test_votes_have_one_order_whoever_asks_for_which_first():
    votes = stream()
    whole, middle = votes.counts(0, 1000), votes.counts(300, 400)
    assert whole.tolist() == (votes.counts(0, 300) + middle + votes.counts(400, 1000)).tolist()
    assert middle.tolist() == votes.counts(300, 400).tolist()
    assert votes.counts(1000, 1200).sum() <= 200


@pytest.mark.parametrize("before", [[], [10_000], [37, 5000, 400]])
def test_counts_are_distributed_as_votes_are(before):
    found = []
    for seed in range(2000):
        votes = stream(seed)
        for number in before:
            votes.counts(0, number)
        found.append(votes.counts(20, 120))
    mean, variance = np.mean(found, axis=0), np.var(found, axis=0)
    assert mean == pytest.approx([70, 20], abs=0.6)
    assert variance == pytest.approx([21, 16], rel=0.15)


def test_a_million_votes_cost_no_more_than_a_few():
    votes = stream()
    votes.counts(0, 10**9 // 2)
    assert votes.counts(0, 7).sum() <= 7


def test_procedures_share_votes_and_the_largest_reader_is_charged():
    world = World(0, {name: stream(i) for i, name in enumerate(["a", "b"])})
    alone = World(0, {"a": stream(0)})
    found = world.read({"one": lambda: certify(0.5, n=500, model="a"), "two": lambda: certify(0.5, n=900, model="a")})
    assert found.votes == {"a": 1000}
    assert found.certificates["one"] == alone.read({"one": lambda: certify(0.5, n=500, model="a")}).certificates["one"]
    assert found.seconds > 0


def test_no_candidate_is_left_over_when_one_is_left_out():
    p = np.array([0.5, 0.3, 0.2, 0.0])
    world = World(0, {"estimator": stream(0, p), "a": stream(1), "b": stream(2)})
    rest = world.without(0, "estimator")
    assert rest.streams["estimator"].probabilities == pytest.approx([0.6, 0.4, 0.0])
    assert rest.streams["a"] is world.streams["a"]
    found = rest.read({"dual": lambda: routed_certify(1.0, (0.5, 1.0), n=200, experts=("a", "b"))})
    assert found.certificates["dual"].samples > 0
    sure = World(0, {"estimator": stream(0, np.array([1.0, 0.0, 0.0, 0.0]))}).without(0, "estimator")
    assert sure.streams["estimator"].probabilities == pytest.approx([0.5, 0.5, 0.0])


@pytest.mark.parametrize("mass", [0.05, 0.5, 5.0])
def test_the_prior_is_learned_from_all_inputs(mass):
    rng = np.random.default_rng(2)
    seen = [rng.multinomial(200, rng.dirichlet(np.full(10, mass / 10))) for _ in range(300)]
    weights = likely_masses(np.c_[seen, np.zeros(300, dtype=int)])
    assert weights.sum(axis=1) == pytest.approx(1)
    assert np.exp((weights * np.log(MASSES)).sum(axis=1).mean()) == pytest.approx(mass, rel=0.25)


def test_inputs_of_two_kinds_are_told_apart():
    rng = np.random.default_rng(3)
    seen = [rng.multinomial(200, rng.dirichlet(np.full(10, mass / 10))) for mass in [0.1] * 100 + [10.0] * 100]
    weights = likely_masses(np.c_[seen, np.zeros(200, dtype=int)]) * (MASSES < 1)
    assert weights[:100].sum() > 95
    assert weights[100:].sum() < 5


def test_imagined_probabilities_are_around_the_shares_and_surer_where_all_inputs_are():
    sure = np.tile([200, 0, 0, 0], (30, 1))
    split = np.tile([90, 90, 0, 20], (30, 1))
    worlds = imagine({"sure": sure, "split": split}, [0] * 30, draws=3)
    assert [len(drawn) for drawn in worlds] == [3] * 30
    p = np.array([world.streams["sure"].probabilities for drawn in worlds for world in drawn])
    assert p[:, 0].mean() > 0.999  # half a vote for each class would say 0.993
    p = np.array([world.streams["split"].probabilities for drawn in worlds for world in drawn])
    assert p.mean(axis=0) == pytest.approx([0.45, 0.45, 0.0, 0.1], abs=0.02)
    again = imagine({"sure": sure, "split": split}, [0] * 30, draws=3)
    assert (again[7][2].streams["split"].probabilities == worlds[7][2].streams["split"].probabilities).all()
