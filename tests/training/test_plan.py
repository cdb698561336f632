import json

import numpy as np
import pytest

from dualrs.config import parse_section
from dualrs.training import plan as plans
from dualrs.training.checkpoint import Checkpoint
from dualrs.training.config import TrainingConfig
from dualrs.training.pipeline import Pipeline
from dualrs.training.plan import Plan, Step, duration, make_plan, render_plan
from dualrs.training.probes import Probes

OPTIMIZATION = {"epochs": 4, "batch_size": 16, "learning_rate": 0.01, "crop_padding": 0, "precision": "fp32"}
NETWORK = {"width": 4}
EXPERT = {"network": NETWORK, "optimization": OPTIMIZATION}
DENOISER = {"network": {"width": 4, "depth": 1}, "stages": [{"mse": 1, "optimization": OPTIMIZATION}]}


def config(output, **changes):
    content = {
        "name": "toy",
        "data": "bright",
        "sigmas": [0.25, 0.5],
        "sigma_e": 0.5,
        "output": output,
        "experts": [{**EXPERT, "sigmas": [0.25]}, {**EXPERT, "sigmas": [0.5]}],
        "labels": {"n": 20},
        "estimator": {"network": NETWORK, "optimization": OPTIMIZATION, "start_from": 0.5},
        **changes,
    }
    return parse_section(TrainingConfig, content, source="test")


class Recorded:
    """Measures nothing: a second for every image of a training, ten for one that votes."""

    def __init__(self, monkeypatch):
        self.asked = []
        for name in ("expert", "denoiser", "diffusion", "estimator", "fine_tuning"):
            self._replace(monkeypatch, name, 1.0)
        for name in ("votes", "choices", "selection"):
            self._replace(monkeypatch, name, 10.0)

    def _replace(self, monkeypatch, name, seconds):
        def probe(_, *arguments):
            self.asked.append(name)
            return seconds

        monkeypatch.setattr(Probes, name, probe)


@pytest.fixture
def probes(monkeypatch):
    return Recorded(monkeypatch)


def by_title(plan):
    return {step.title: step for step in plan.steps}


def log(folder, config, *, epochs, seconds, made_with):
    """Leaves behind what a training of so many epochs does."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps({"epoch": i + 1, "seconds": seconds}) + "\n" for i in range(epochs))
    )

    class Nothing:
        def state_dict(self):
            return {}

    Checkpoint(folder, Nothing(), Nothing(), Nothing(), made_with).save(epochs)


def test_nothing_is_done_at_first_and_like_steps_are_probed_once(train_data, tmp_path, probes):
    plan = make_plan(config(tmp_path / "none"), train_data)
    assert [step.title for step in plan.steps] == [
        "expert for σ=0.25",
        "expert for σ=0.5",
        "labels by expert-0.25",
        "labels by expert-0.5",
        "variance estimator",
    ]
    assert {step.state for step in plan.steps} == {"to do"}
    assert {step.basis for step in plan.steps} == {"a probe"}
    assert [step.seconds_left for step in plan.steps] == [4 * 96, 4 * 96, 960, 960, 4 * 96]
    assert plan.seconds_left == 3 * 4 * 96 + 2 * 960
    assert probes.asked == ["expert", "votes", "estimator"]
    assert not (tmp_path / "none").exists()


def test_steps_that_have_begun_are_judged_by_their_own_pace_and_others_by_theirs(train_data, tmp_path, probes):
    plan = config(tmp_path, labels={"n": 20, "images": 40})
    from dualrs.training.experts import expert_settings

    settings = {**expert_settings(plan.experts[0]), "data": train_data.digest, "seed": 0}
    log(tmp_path / "expert-0.25", plan, epochs=4, seconds=48.0, made_with=settings)
    settings = {**expert_settings(plan.experts[1]), "data": train_data.digest, "seed": 1}
    log(tmp_path / "expert-0.5", plan, epochs=1, seconds=30.0, made_with=settings)
    (tmp_path / "labels").mkdir()
    drawn = np.array([20] * 10 + [0] * 30)
    np.savez(
        tmp_path / "labels/expert-0.25.npz",
        counts=drawn[:, None],
        drawn=drawn,
        key="k n=20 tolerance=0.3 float32 seed=0",
        seconds=5.0,
    )
    steps = by_title(make_plan(plan, train_data))
    assert steps["expert for σ=0.25"].state == "done"
    assert steps["expert for σ=0.25"].seconds_left == 0
    assert steps["expert for σ=0.5"].state == "1 of 4 epochs"
    assert (steps["expert for σ=0.5"].seconds_left, steps["expert for σ=0.5"].basis) == (90.0, "its own pace")
    assert steps["labels by expert-0.25"].state == "10 of 40 images"
    assert steps["labels by expert-0.25"].seconds_left == pytest.approx(15.0)
    assert (steps["labels by expert-0.5"].seconds_left, steps["labels by expert-0.5"].basis) == (20.0, "a similar step")
    assert probes.asked == ["estimator"]


def test_what_was_made_with_other_settings_is_named(train_data, tmp_path, probes):
    log(tmp_path / "expert-0.25", config(tmp_path), epochs=4, seconds=1.0, made_with={"expert": {"epochs": 3}})
    (tmp_path / "labels").mkdir()
    drawn = np.full(96, 30)
    path = tmp_path / "labels/expert-0.25.npz"
    np.savez(path, counts=drawn[:, None], drawn=drawn, key="k n=30 tolerance=0.3 float32 seed=0")
    steps = by_title(make_plan(config(tmp_path), train_data))
    votes = steps["labels by expert-0.25"]
    assert (votes.state, votes.remark) == (
        "to do",
        f"made with other settings: restore them, or remove {path} to begin anew",
    )
    step = steps["expert for σ=0.25"]
    assert step.state == "to do"
    assert step.remark == (
        f"made with other settings: restore them, or remove {tmp_path / 'expert-0.25'} to begin anew"
    )


def test_every_kind_of_step_has_its_place(train_data, tmp_path, probes):
    ready = {"sigmas": [0.25], "classifier": "weights.pt"}
    one_shot = {"diffusion": {"width": 8, "optimization": OPTIMIZATION}}
    full = config(
        tmp_path,
        experts=[
            {**EXPERT, "sigmas": [0.25]},
            {**EXPERT, "sigmas": [0.5]},
            {**ready, "name": "a", "denoiser": DENOISER},
            {**ready, "name": "b", "denoiser": one_shot},
        ],
        validation=16,
        selection={},
        fine_tuning={"rounds": 2, "optimization": OPTIMIZATION},
        dial={},
        estimator={"network": NETWORK, "optimization": OPTIMIZATION, "start_from": 0.5, "denoiser": DENOISER},
    )
    titles = [step.title for step in make_plan(full, train_data.subset(range(80))).steps]
    names = ("expert-0.25", "a", "b", "expert-0.5")
    assert titles[:4] == ["diffusion model", "expert for σ=0.25", "expert for σ=0.5", "denoiser a, stage 1 of 1"]
    assert titles[4:8] == [f"labels by {name}" for name in names]
    assert titles[8:12] == [f"validation labels by {name}" for name in names]
    assert titles[12:15] == ["choice of the pool", "denoiser of the estimator, stage 1 of 1", "variance estimator"]
    tuned = [f"fine-tuning of {name}" for name in ("expert-0.25", "expert-0.5", "a", "b")]
    labels = [f"labels by {name}" for name in names]
    judging = [f"validation labels by {name}" for name in names]  # after the last round, for the dial
    estimator = ["denoiser of the estimator, stage 1 of 1", "variance estimator"]
    assert titles[15:-1] == [
        *(f"round 1: {title}" for title in ("choices of the estimator", *tuned, *labels, *estimator)),
        *(f"round 2: {title}" for title in ("choices of the estimator", *tuned, *labels, *judging, *estimator)),
    ]
    assert titles[-1] == "votes for the dial"


def test_a_finished_training_has_nothing_left(train_data, test_data, tmp_path, monkeypatch):
    from dualrs.smoothing import base

    make = base.make_backend
    monkeypatch.setattr(base, "make_backend", lambda *args, **options: make(*args, **{**options, "backend": "torch"}))
    short = {**OPTIMIZATION, "epochs": 1}
    done = config(
        tmp_path,
        experts=[{"network": NETWORK, "optimization": short, "sigmas": [sigma]} for sigma in (0.25, 0.5)],
        estimator={"network": NETWORK, "optimization": short, "start_from": 0.5},
        selection={"copies": 2},
        fine_tuning={"optimization": short, "votes": 10},
        dial={"votes": 10},
    )
    pipeline = Pipeline(done, train_data, test_data)
    pipeline.run()
    plan = pipeline.plan()
    assert {step.state for step in plan.steps} == {"done"}
    assert plan.seconds_left == 0
    assert plan.complete


def test_probes_measure_every_kind_of_step(train_data, tmp_path, capsys):
    full = config(
        tmp_path,
        experts=[
            {**EXPERT, "sigmas": [0.25]},
            {"network": {**NETWORK, "conditional": True}, "optimization": OPTIMIZATION, "sigmas": [0.5]},
        ],
        selection={"copies": 2},
        fine_tuning={"optimization": OPTIMIZATION},
        estimator={
            "network": NETWORK,
            "optimization": OPTIMIZATION,
            "start_from": 0.25,
            "frozen": True,
            "denoiser": {"diffusion": {"width": 8, "steps": 20, "optimization": OPTIMIZATION}},
        },
        dial={},
    )
    plan = make_plan(full, train_data)
    assert {step.basis for step in plan.steps} == {"a probe"}, plan
    assert all(step.seconds_left > 0 for step in plan.steps)
    assert plan.complete
    assert not tmp_path.joinpath("estimator").exists()
    assert "chooses one σ" not in capsys.readouterr().err


def test_without_its_weights_a_plan_says_what_is_missing(train_data, tmp_path):
    ready = {"sigmas": [0.5], "classifier": str(tmp_path / "weights.pt")}
    plan = make_plan(config(tmp_path, experts=[{**EXPERT, "sigmas": [0.25]}, ready], estimator={
        "network": NETWORK, "optimization": OPTIMIZATION}), train_data)  # fmt: skip
    step = by_title(plan)["labels by expert-0.5"]
    assert (step.seconds_left, step.basis) == (None, "unknown")
    assert "there is no file" in step.remark
    assert not plan.complete


def test_a_plan_is_a_table_and_json(capsys):
    steps = (
        Step("experts", "epochs", 4, 4, 0.0, ""),
        Step("labels", "images", 5_000, 1_500, 200.0, "its own pace"),
        Step("estimator", "epochs", 4, 0, None, "unknown", "there is no file"),
    )
    plan = Plan(steps)
    from rich.console import Console

    console = Console(width=100)
    with console.capture() as capture:
        console.print(render_plan(plan))
    lines = [line.split() for line in capture.get().splitlines()]
    assert lines[1] == ["experts", "done"]
    assert lines[2] == ["labels", "1,500", "of", "5,000", "images", "3", "min", "its", "own", "pace"]
    assert lines[3] == ["estimator", "to", "do", "?", "unknown"]
    assert lines[4] == ["all", ">", "3", "min"]
    assert lines[5] == ["there", "is", "no", "file"]
    content = json.loads(json.dumps(plan.to_dict()))
    assert content["seconds_left"] == 200.0
    assert content["complete"] is False
    assert content["steps"][1]["state"] == "1,500 of 5,000 images"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89, "89 s"), (100, "2 min"), (3600, "60 min"), (7500, "2 h 05 min"), (4 * 86400, "4 d 0 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_probes_are_quiet_about_failures_that_training_may_not_have():
    def broken():
        raise OSError

    assert plans._measured(broken) == "OSError"
