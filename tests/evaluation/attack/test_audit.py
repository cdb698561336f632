"""Audits in worlds whose true radii are known: honest certificates hold, and radii that are too large are caught."""

from io import StringIO

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from rich.console import Console
from torch import nn

from dualrs.data import ArrayDataset
from dualrs.evaluation.attack import AIMS, ATTEMPTS, Ball, Plan, audit, render_audit
from dualrs.evaluation.attack._aims import Adversary
from dualrs.evaluation.attack._victim import victim_of
from dualrs.sampling import Job
from dualrs.smoothing import DualSmoothedClassifier, SmoothedClassifier

from .worlds import WORLDS, HalfSpace, World, experts_agree, experts_contradict, make_dataset, one_expert

EFFORT = {"steps": 6, "draws": 8, "starts": 1, "directions": 3, "keep": 1, "votes": 40, "n": 1500}


def examine(world, factor=1.0, images=None, seed=1, **settings):
    plan = Plan(**{**EFFORT, **settings})
    return audit(world.model, world.dataset, world.table(factor), plan, method=world.method, images=images, seed=seed)


def test_honest_certificates_are_not_broken(world):
    found = examine(world)
    assert found.complete
    assert not found.wrong
    assert found.summary["broken"] == []
    assert found.summary["p_value"] == 1
    assert found.summary["expected_broken"] == pytest.approx(6 * (1e-4 + 1e-3))
    assert found.table.schema == ATTEMPTS
    tried = found.table.filter(pl.col("aim") != "none")
    assert (tried["norm"] < tried["radius"]).all()
    assert (tried["norm"] > 0).all()
    assert found.table["certified"].all()
    # Directions of nothing in particular lead nowhere; others lead to the rim, and up to the border.
    aimed = tried.filter(aim="transfer")
    assert (aimed["norm"] > aimed["radius"] * 0.999).all()
    assert aimed["estimate"].max() > -0.15


@pytest.mark.parametrize(
    ("name", "aim", "caught"),
    [
        ("one_expert", "label", True),
        ("one_expert", "choice", False),
        ("one_expert", "transfer", True),
        ("experts_agree", "label", True),
        ("experts_agree", "choice", False),
        ("experts_agree", "both", True),
        ("experts_contradict", "label", False),
        ("experts_contradict", "choice", True),
        ("experts_contradict", "both", True),
        ("without_gradients", "label", False),
        ("without_gradients", "transfer", True),
    ],
)
def test_a_radius_half_as_large_again_is_caught_by_whoever_aims_at_what_limits_it(name, aim, caught):
    world = WORLDS[name]()
    found = examine(world, 1.5, aims=(aim,))
    assert found.wrong is caught
    assert len(found.summary["broken"]) >= 3 or not caught
    broken = found.table.filter("broken")
    assert all(row["norm"] > world.radius(row["idx"]) * 0.999 for row in broken.iter_rows(named=True))
    assert (broken["decided"] == 1 - broken["label"]).all()
    assert ("THE CERTIFICATES ARE WRONG" in found.summary["verdict"]) is caught


def test_a_wrong_label_is_caught_at_the_input_itself():
    world = one_expert()
    table = world.table().with_columns(predicted=1 - pl.col("predicted"))
    found = audit(world.model, world.dataset, table, Plan(**EFFORT, aims=("random",)), method=world.method, seed=1)
    assert found.wrong
    assert found.summary["aims"]["none"]["broken"] == 6


def test_random_directions_find_nothing_where_there_are_many():
    found = examine(one_expert(side=24), 1.5, aims=("random",))
    assert found.summary["aims"]["random"]["attempts"] == 6
    assert found.summary["broken"] == []
    assert found.summary["aims"]["random"]["beyond"] < -0.1


def test_what_is_found_depends_on_the_input_and_the_seed_alone():
    world = experts_agree()
    whole, part = examine(world, aims=("label", "random")), examine(world, aims=("label", "random"), images=2)
    assert part.table["idx"].unique().to_list() == [0, 30]
    columns = pl.exclude("seconds")
    of_part = whole.table.filter(pl.col("idx").is_in([0, 30]))
    assert_frame_equal(part.table.select(columns), of_part.select(columns))
    other = examine(world, aims=("label", "random"), images=2, seed=2)
    assert not other.table["votes"].equals(part.table["votes"])


def test_a_seed_is_drawn_in_secret_and_recorded():
    world = one_expert()
    seeds = set()
    for _ in range(2):
        plan = Plan(aims=("random",), **EFFORT)
        found = audit(world.model, world.dataset, world.table(), plan, method=world.method, images=1)
        seeds.add(found.summary["metadata"]["audit"]["seed"])
    assert len(seeds) == 2


def test_accuracy_under_attack_lies_between_what_is_certified_and_what_is_right():
    world, budgets = one_expert(), (0.1, 0.36, 0.6)
    found = examine(world, aims=("label",), budgets=budgets, draws=32)
    true = {b: np.mean([world.radius(int(idx)) > b for idx in world.dataset.indices]) for b in (0.0, *budgets)}
    assert list(found.summary["accuracy"]) == ["0.00", "0.10", "0.36", "0.60"]
    for (budget, share), at in zip(true.items(), found.summary["accuracy"].values(), strict=True):
        assert at["certified"] <= share <= at["empirical"]
        if budget in (0.0, 0.1, 0.6):  # no true radius is near
            assert at["empirical"] == share
    assert found.summary["accuracy"]["0.36"]["empirical"] < 1
    assert found.summary["broken"] == []
    beyond = found.table.filter(~pl.col("certified"))
    assert set(beyond["radius"]) <= {0.36, 0.6}  # 0.1 is within what is certified
    # Where a smaller budget was enough, the larger one is not tried.
    changed = beyond.filter(pl.col("decided") != pl.col("truth"))
    assert len(changed) == 6
    assert changed["idx"].n_unique() == 6


def test_abstentions_and_wrong_labels_are_audited_for_what_they_claim():
    honest = make_dataset(0)
    images = honest.images.copy()
    images[0, 0, 0] = 127  # next to the border: it abstains
    truth = honest.labels.copy()
    truth[1] = 1 - truth[1]
    dataset = ArrayDataset("toy", "test", images, truth, honest.classes, honest.indices)
    world = World(one_expert().model, dataset, 0, "global-0.25")
    assert world.table().filter(idx=50)["abstained"].item()
    found = examine(world, aims=("label",), budgets=(0.05,))
    assert (found.summary["inputs"], found.summary["certified"]) == (6, 5)
    abstained = found.table.filter(idx=50)
    assert not abstained["certified"].any()
    assert not abstained["broken"].any()
    assert abstained["radius"].to_list() == [0.0, 0.05]
    assert (abstained["label"] == truth[0]).all()
    wrong = found.table.filter(idx=40)
    assert (wrong["label"] == 1 - truth[1]).all()
    assert wrong["certified"].all()  # what is wrong already needs no attack beyond its certificate
    assert found.summary["accuracy"]["0.00"] == {"certified": 4 / 6, "empirical": 5 / 6, "attempts": 1}


def test_one_expert_of_a_dual_model_is_audited_as_such():
    world = experts_contradict()
    table = world.table(1.5).with_columns(method=pl.lit("global-0.5"), rule=pl.lit("cohen"), predicted=1, label=1)
    dataset = world.dataset
    truth = np.ones(6, dtype=np.int64)
    dataset = ArrayDataset("toy", "test", dataset.images, truth, dataset.classes, dataset.indices)
    found = audit(world.model, dataset, table, Plan(**EFFORT), method="global-0.5", seed=1)
    assert found.summary["broken"] == []  # the second expert never answers anything else
    assert list(found.summary["metadata"]["engine"]) == ["expert-0.5"]
    assert "There is one expert, so there is no choice to attack." in found.summary["remarks"]


def test_functions_without_gradients_are_remarked_on():
    found = examine(WORLDS["without_gradients"](), images=1)
    assert set(found.summary["aims"]) == {"none", "random", "transfer"}
    (remark,) = found.summary["remarks"]
    assert remark.startswith("No gradients go through estimator, expert-0.25, expert-0.5;")


def test_exact_arithmetic_is_attacked_on_its_grid():
    world = one_expert(arithmetic="exact")
    for factor, wrong in ((1.0, False), (1.5, True)):
        found = examine(world, factor, images=4, aims=("label", "random"))
        assert found.wrong is wrong
        steps = (255 * found.table["norm"].to_numpy()) ** 2
        assert steps == pytest.approx(np.round(steps), abs=1e-6)
    assert found.summary["remarks"][-1].startswith("Exact arithmetic: every point is on the grid of multiples of 1/255")


@pytest.mark.parametrize("aim", AIMS)
@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
def test_candidates_lie_in_the_ball_and_in_the_box(aim, box):
    world = experts_agree()
    victim = victim_of(world.model, "dual", "routed")
    images, labels = world.dataset.tensors()
    adversary = Adversary(victim, Plan(**{**EFFORT, "starts": 3}), images, labels)
    ball = Ball(images[1], 2.0, box)
    points = adversary.candidates(aim, ball, 1, 0, torch.Generator().manual_seed(0))
    assert points
    assert all(0 < ball.distance(point) < 2.0 for point in points)
    inside = [bool(((point >= 0) & (point <= 1)).all()) for point in points]
    assert all(inside) if box else not all(inside)
    assert len({point.numpy().tobytes() for point in points}) == len(points)


def test_the_worst_point_on_the_way_is_kept_also_where_it_is_not_at_the_rim():
    class Slab(nn.Module):
        """Class 1 where the first pixel lies within 0.1 of 0.7."""

        def forward(self, x):
            near = 40 * (0.1 - (x.flatten(1)[:, 0] - 0.7).abs())
            return torch.stack([-near, near], dim=1)

    model = SmoothedClassifier(Slab(), 0.05, 2, backend="torch")
    centre = torch.full((1, 2, 2), 0.5)
    adversary = Adversary(victim_of(model, "global-0.05", "adaptive"), Plan(), centre.unsqueeze(0), torch.tensor([0]))
    (first, *_) = adversary.candidates("label", Ball(centre, 1.0), 0, 0, torch.Generator().manual_seed(0))
    assert abs(first[0, 0, 0].item() - 0.7) < 0.07


def test_an_estimate_is_a_length():
    """Of both margins on the way to another answer the smaller, and of all ways the best."""
    model = DualSmoothedClassifier(HalfSpace(1), 0.5, {0.25: HalfSpace(0), 0.5: HalfSpace(0)}, 2, backend="torch")
    victim = victim_of(model, "dual", "routed")
    engine = model.engine()

    def beyond(first, second, label):
        x = torch.tensor([first, second]).reshape(1, 1, 2)
        (result,) = engine.run([Job(0, x, {"votes": victim.votes(20_000)}, 5)])
        return victim.beyond(result.outcomes["votes"].certificate.stages, label)

    assert beyond(0.75, 0.1, 1) == pytest.approx(-0.25, abs=0.02)
    assert beyond(0.75, 0.1, 0) == pytest.approx(0.25, abs=0.02)
    # The chosen expert would have to change by 0.25 in either case; in this one the choice is as near the other way.
    assert beyond(0.75, 0.4, 0) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "dual-min"}, "no certificate of method 'dual-min' to audit; methods in the table: dual"),
        ({"images": 0}, "images must be at least 1"),
        ({"seed": -1}, "seed at least 0"),
        ({"significance": 1.0}, r"significance in \(0, 1\)"),
        ({"plan": Plan(n=5)}, "even a unanimous vote of n = 5"),
        (
            {"dataset": make_dataset(0).subset([1, 0, 2])},
            "the table is not about these images: it has one of class 1 at 0, and toy has none there",
        ),
        ({"model": one_expert().model}, "of this model these are global-0.25"),
    ],
)
def test_what_cannot_be_audited_is_refused(change, message):
    world = experts_agree()
    arguments = {"model": world.model, "dataset": world.dataset, "table": world.table(), "plan": Plan(**EFFORT)}
    with pytest.raises(ValueError, match=message):
        audit(**{**arguments, **change})


def test_an_interrupt_keeps_what_was_finished(monkeypatch):
    world = one_expert()
    honest, calls = Adversary.candidates, []

    def interrupted(*arguments, **options):
        calls.append(None)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return honest(*arguments, **options)

    monkeypatch.setattr(Adversary, "candidates", interrupted)
    found = examine(world, aims=("label",))
    assert not found.complete
    assert (found.summary["inputs"], found.summary["requested"]) == (2, 6)
    assert found.table["idx"].n_unique() == 2


def test_an_audit_is_shown_within_a_hundred_columns():
    console = Console(width=100, file=StringIO())
    console.print(render_audit(examine(experts_agree(), 1.5, aims=("label",), budgets=(0.1, 0.5)).summary))
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= 100
    for expected in ("THE CERTIFICATES ARE WRONG", "attempts on certificates", "empirical", "beyond"):
        assert expected in shown
