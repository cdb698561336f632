import json
import time

import numpy as np
import pytest
import torch

from dualrs.data import ArrayDataset, open_dataset
from dualrs.evaluation import evaluate, forecast, procedures
from dualrs.evaluation.planning._bill import total
from dualrs.evaluation.planning._changes import Settings, changes
from dualrs.evaluation.planning._sample import spread_out
from dualrs.evaluation.run import DEFAULTS
from dualrs.evaluation.selection import evenly_spaced
from dualrs.smoothing import SmoothedClassifier, load


def voted(evaluation):
    """The votes of each base classifier that a run has recorded."""
    return {name: engine["votes"] for name, engine in evaluation.summary["metadata"]["engine"].items()}


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"global_sigmas": False},
        {"global_sigmas": False, "tolerance": 0.02},
        {"global_sigmas": False, "target": 0.2},
        {"global_sigmas": False, "rules": ["routed", "min"], "target": 0.2},
        {"global_sigmas": False, "rules": ["multiscale-honest"]},
    ],
    ids=str,
)
def test_votes_are_those_of_the_run_within_a_tenth(world, how):
    plan = forecast(world.dual, world.dataset, votes=500, alternatives=False, **how, **world.options)
    run = evaluate(world.dual, world.dataset, **how, **world.options)
    found = voted(run)
    assert plan.votes.expected == pytest.approx(sum(found.values()), rel=0.1)
    assert (
        0.97 * plan.votes.low <= sum(found.values()) <= 1.03 * plan.votes.high
    )  # which are for 95 %, and there are six
    assert sum(model.votes for model in plan.models) == pytest.approx(plan.votes.expected)
    assert plan.planned.average_radius == pytest.approx(run.summary["average_certified_radius"][plan.method], abs=0.02)
    for radius, share in plan.planned.certified_accuracy.items():
        real = run.summary["certified_accuracy"][plan.method].get(radius)
        assert real is None or share == pytest.approx(real, abs=0.1)
    assert plan.planned.abstained == pytest.approx(run.summary["abstention_rate"][plan.method], abs=0.08)


def test_one_sigma_is_planned_too(world):
    plan = forecast(world.single, world.dataset, votes=500, tolerance=0.02, **world.options)
    found = voted(evaluate(world.single, world.dataset, tolerance=0.02, **world.options))
    assert plan.votes.expected == pytest.approx(found["classifier"], rel=0.1)
    assert plan.further_sigma_seconds is None
    assert [option.change for option in plan.options] == [
        "as planned", "tolerance 0.05", "target 0.5", "n = 200", "15 images", "n = 20,000",
    ]  # fmt: skip


def test_a_part_of_the_inputs_tells_of_all_with_wider_ends(world):
    how = {"global_sigmas": False, "target": 0.2, "votes": 500, "alternatives": False, **world.options}
    whole, part = forecast(world.dual, world.dataset, **how), forecast(world.dual, world.dataset, sample=15, **how)
    assert (whole.sample, part.sample) == (60, 15)
    assert part.votes.low < whole.votes.expected < part.votes.high
    assert part.votes.high - part.votes.low > 1.5 * (whole.votes.high - whole.votes.low)


def test_what_fixed_procedures_take_is_known(world):
    plan = forecast(world.single, world.dataset, rules=["cohen"], sample=12, **world.options)
    votes = 60 * (world.options["n0"] + world.options["n"])
    assert (plan.votes.low, plan.votes.expected, plan.votes.high) == (votes, votes, votes)
    assert [option.change for option in plan.options][:2] == ["as planned", "n = 200"]  # it has no goals


def test_votes_that_several_methods_read_are_charged_once(world):
    how = {"rules": ["routed", "min"], "sample": 12, "alternatives": False}
    plan = forecast(world.dual, world.dataset, **how, **world.options)
    assert [option.change for option in plan.options] == ["as planned"]
    most = world.options["n0"] + world.options["n"]
    assert [model.votes_per_input for model in plan.models] == [pytest.approx(most, rel=0.2), most, most, most]


def test_images_n_and_devices_scale(world):
    plan = forecast(world.dual, world.dataset, sample=12, price=3.0, devices=[1, 4, 1000], **world.options)
    by_change = {option.change: option for option in plan.options}
    assert by_change["15 images"].votes == pytest.approx(plan.votes.expected / 4)
    assert by_change["15 images"].margin > 1.5 * plan.planned.margin
    assert by_change["n = 200"].votes < 0.2 * plan.votes.expected
    assert by_change["n = 20,000"].votes > 7 * plan.votes.expected
    assert 0.5 < by_change["without σ = 0.25"].share_of_votes < 0.8
    one, four, many = plan.devices
    assert one.wall_seconds.expected == plan.seconds.expected == plan.planned.seconds
    assert one.wall_seconds.expected / 4 < four.wall_seconds.expected < one.wall_seconds.expected
    assert many.wall_seconds.expected >= plan.longest_seconds + plan.startup_seconds
    assert many.device_hours.expected == pytest.approx(1000 * many.wall_seconds.expected / 3600)
    assert one.cost.expected == pytest.approx(3 * one.device_hours.expected)
    parts = sum(model.seconds for model in plan.models) + plan.other_seconds + plan.startup_seconds
    assert plan.seconds.expected == pytest.approx(parts)
    assert plan.memory.peak >= plan.memory.measured > 10 * plan.memory.results > 0


def test_speed_is_that_of_steady_batches(world):
    calls = []

    def slow(batch):
        calls.append(len(batch))
        time.sleep(0.3 if len(calls) == 1 else 0.01)
        return world.single.base(batch)

    model = SmoothedClassifier(slow, 0.25, 3, batch_size=100)
    plan = forecast(model, world.dataset, sample=12, alternatives=False, **world.options)
    (work,) = plan.models
    assert 100 / work.votes_per_second == pytest.approx(0.01, rel=0.5)
    assert plan.startup_seconds == pytest.approx(0.3, abs=0.1)


def test_the_run_meets_other_noise_than_the_sample(world):
    seen = []

    def recording(batch):
        seen.append(batch.clone())
        return world.single.base(batch)

    model = SmoothedClassifier(recording, 0.25, 3, batch_size=50)
    forecast(model, world.dataset, indices=[3], sample=1, votes=50, alternatives=False, **world.options)
    known = {row.numpy().tobytes() for batch in seen for row in batch}
    seen.clear()
    evaluate(model, world.dataset, indices=[3], n0=50, n=50, alpha=0.001)
    assert not known & {row.numpy().tobytes() for batch in seen for row in batch}


def test_slow_inputs_end_the_sample_early_and_it_is_spread_all_the_same(world):
    def slow(batch):
        time.sleep(0.02)
        return world.single.base(batch)

    plan = forecast(SmoothedClassifier(slow, 0.25, 3), world.dataset, seconds=0.01, **world.options)
    assert plan.sample < 20
    assert spread_out(8) == [0, 4, 2, 6, 1, 5, 3, 7]
    assert sorted(spread_out(11)) == list(range(11))


def test_one_image_is_enough(world):
    plan = forecast(world.dual, world.dataset, indices=[7], **world.options)
    assert (plan.images, plan.sample) == (1, 1)
    assert plan.votes.low <= plan.votes.expected <= plan.votes.high
    assert all("images" not in option.change for option in plan.options)


def test_it_becomes_json(world):
    plan = forecast(world.pair, world.dataset, sample=8, shard=(1, 2), **world.options)
    content = json.loads(json.dumps(plan.to_dict(), allow_nan=False))
    assert content.keys() == vars(plan).keys()
    assert content["options"][0]["change"] == "as planned"
    assert content["images"] == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": []}, "there is nothing to plan"),
        ({"indices": [3, 4, 3]}, "an input is asked for twice"),
        ({"shard": (4, 3)}, "there is no shard 4/3"),
        ({"sample": 0}, "sample, votes and devices must be at least 1"),
        ({"devices": [0]}, "sample, votes and devices must be at least 1"),
        ({"seconds": 0.0}, "seconds positive"),
        ({"price": -1.0}, "price and radii must be at least 0"),
        ({"radii": [-0.5]}, "price and radii must be at least 0"),
        ({"time_budget": 1.0}, "depends on the clock"),
        ({"n": 5}, "even a unanimous vote of n = 5"),
        ({"rules": ["cohen", "unheard"]}, "unheard"),
    ],
)
def test_impossible_arguments_are_refused_before_any_work(world, arguments, message):
    with pytest.raises(ValueError, match=message):
        forecast(world.single, world.dataset, **{**world.options, **arguments})


def test_positions_and_images_that_do_not_fit_are_named(world):
    with pytest.raises(IndexError, match=r"\[0, 60\); got 60"):
        forecast(world.single, world.dataset, indices=[60])
    empty = ArrayDataset("empty", "test", np.zeros((0, 1, 2, 1), np.uint8), np.zeros(0, np.int64), ("a",))
    with pytest.raises(ValueError, match="there is nothing to plan"):
        forecast(world.single, empty)

    class Broken(ArrayDataset):
        def image(self, i):
            return torch.full((1, 2, 1), torch.nan)

    broken = Broken("broken", "test", world.dataset.images, world.dataset.labels, world.dataset.classes)
    with pytest.raises(ValueError, match="image 0 of broken: the input has NaN"):
        forecast(world.single, broken)


def words(model, **how):
    options = {**DEFAULTS, **{name: how.pop(name) for name in ("n", "tolerance", "target") if name in how}}
    settings = {"rules": None, "global_sigmas": True, "images": 100, **how}
    return {change.words: change for change in changes(Settings(model, options=options, **settings))}


def test_only_what_can_be_changed_is_offered(world):
    found = words(world.dual)
    assert list(found) == [
        "as planned", "tolerance 0.01", "tolerance 0.05", "target 0.5", "dual model alone", "  tolerance 0.05",
        "  target 0.5", "n = 1,000", "25 images", "without σ = 0.12", "without σ = 0.25", "without σ = 0.5",
        "n = 100,000",
    ]  # fmt: skip
    assert list(found["dual model alone"].methods) == ["dual"]
    assert list(found["without σ = 0.12"].methods) == ["dual", "global-0.25", "global-0.5"]
    assert "dual model alone" not in words(world.dual, global_sigmas=False)
    assert not [change for change in words(world.dual, target=0.0) if "t" in change and "target" in change]
    assert "tolerance 0.01" not in words(world.dual, tolerance=0.02)
    assert "n = 5" not in words(world.dual, n=50)
    assert not [change for change in words(world.dual, rules=("min",)) if "tolerance" in change]
    assert list(words(world.pair)["without σ = 0.5"].methods) == ["global-0.25"]


def test_procedures_of_changes_run_in_worlds_of_the_whole_model(world):
    plan = forecast(world.pair, world.dataset, sample=8, **world.options)
    by_change = {option.change: option for option in plan.options}
    assert "one σ is left" in by_change["without σ = 0.25"].remark
    assert by_change["without σ = 0.25"].votes == 60 * (world.options["n0"] + world.options["n"])
    assert list(procedures(world.pair)) == list(plan.methods)


def test_the_ends_cover_the_total():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        each = rng.gamma(1.0, 100.0, 200)  # the mean votes of each input
        real = rng.poisson(each).sum()
        estimate = total(rng.poisson(np.repeat(each[:40, None], 2, axis=1)), 200)
        covered += estimate.low <= real <= estimate.high
    assert 0.9 <= covered / 300 <= 0.985
    assert total(np.full((5, 2), 7.0), 10) == total(np.full((5, 2), 7.0), 10).times(1.0)
    assert total(np.full((5, 2), 7.0), 10).low == 70.0


@pytest.mark.slow
def test_votes_of_real_runs_within_a_quarter():
    model, dataset = load("fashion-mnist"), open_dataset("fashion-mnist-sample", "test")
    indices = evenly_spaced(40, len(dataset))
    for how in ({}, {"global_sigmas": False, "tolerance": 0.05}, {"global_sigmas": False, "target": 0.5}):
        plan = forecast(model, dataset, indices=indices, n=1000, alternatives=False, **how)
        found = sum(voted(evaluate(model, dataset, indices=indices, n=1000, **how)).values())
        assert 0.75 < plan.votes.expected / found < 1.25, how
