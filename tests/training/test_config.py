import copy
import re
from pathlib import Path

import pytest
import yaml

from dualrs.config import ConfigError, parse_section
from dualrs.training.config import Optimization, TrainingConfig, load_config, member_names
from dualrs.training.loop import _rate

ROOT = Path(__file__).parents[2]
PLAN = {"epochs": 1}
EXPERT = {"sigmas": [0.25, 0.5], "network": {"width": 4}, "optimization": PLAN}
READY = {"sigmas": [0.25], "classifier": "weights.pt"}
GOOD = {
    "name": "toy",
    "data": "cifar10",
    "sigmas": [0.25, 0.5],
    "sigma_e": 0.5,
    "output": "runs/toy",
    "experts": [EXPERT],
    "estimator": {"network": {"width": 4}, "optimization": PLAN},
}
ESTIMATOR = GOOD["estimator"]


def load(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_config(path)


def changed(**changes):
    return {**copy.deepcopy(GOOD), **changes}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_committed_configurations_are_valid(path):
    assert load_config(path).name == path.stem


def test_defaults(tmp_path):
    config = load(tmp_path, GOOD)
    assert config.labels.mapped_n == 10_000
    assert config.estimator.temperature == 1.0
    assert config.selection is config.fine_tuning is config.dial is None


def test_a_full_configuration(tmp_path):
    denoiser = {"network": {"width": 4, "depth": 1}, "stages": [{"mse": 1, "optimization": PLAN}]}
    small = {"diffusion": {"width": 8, "optimization": PLAN}}
    config = load(
        tmp_path,
        changed(
            experts=[
                EXPERT,
                {**READY, "name": "a", "denoiser": denoiser},
                {**READY, "sigmas": [0.25, 0.5], "name": "b", "denoiser": {"diffusion": "some/where"}},
            ],
            estimator={**ESTIMATOR, "start_from": 0.5, "frozen": True, "denoiser": small},
            selection={},
            fine_tuning={"rounds": 2, "optimization": PLAN, "assignment": "possible"},
            dial={},
        ),
    )
    assert [name for expert in config.experts for name in member_names(expert)] == [
        "expert-0.25", "expert-0.5", "a", "b-0.25", "b-0.5",
    ]  # fmt: skip
    assert config.experts[2].denoiser.diffusion == "some/where"
    assert config.estimator.denoiser.diffusion.noise_schedule.steps == 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(epochs=3), r"epochs: unknown field \(value 3\); known here: data, dial, estimator, experts"),
        (
            changed(experts=[{**EXPERT, "optimization": {"epochs": 1, "lr": 2}}]),
            r"experts\.0\.optimization\.lr: unknown field \(value 2\); known here: batch_size, crop_padding",
        ),
        (
            changed(experts=[EXPERT, {**READY, "weights": 1}]),
            r"experts\.1\.weights: unknown field \(value 1\); known here: classifier, denoiser, name, options, sigmas",
        ),
        (
            changed(experts=[EXPERT, {**READY, "denoiser": {"network": {"width": 4, "deep": 1}, "stages": []}}]),
            r"experts\.1\.denoiser\.network\.deep: unknown field \(value 1\); known here: depth, name",
        ),
        (
            changed(estimator={**ESTIMATOR, "denoiser": {"diffusion": {"width": 8, "layers": 2}}}),
            r"estimator\.denoiser\.diffusion\.layers: unknown field \(value 2\); known here: depth, optimization",
        ),
        (changed(estimator={**ESTIMATOR, "denoiser": {"diffusion": {"width": 8}}}), r"diffusion\.optimization: must"),
        (changed(sigma_e=-1.0), r"sigma_e: .*greater than 0 \(given: -1\.0\)"),
        (changed(sigmas=[0.5, 0.25]), "sigmas must ascend"),
        (changed(sigmas=[0.25, 0.5, 1.0]), r"every σ needs an expert: .* experts serve \[0\.25, 0\.5\]"),
        (changed(experts=[EXPERT, EXPERT]), r"experts that share a σ need names .*; expert-0\.25, expert-0\.5 appears"),
        (changed(experts=[EXPERT, {**READY, "name": "estimator"}]), "an expert cannot be called estimator"),
        (changed(experts=["mine"]), r"experts\.0: .*\(given: 'mine'\)"),
        (changed(experts=[{**EXPERT, "start_from": 0.5}]), "must belong to an expert trained before it"),
        (
            changed(experts=[{**EXPERT, "network": {"name": "vgg", "width": 1}}]),
            "unknown network 'vgg'; known: ",
        ),
        (changed(estimator={**ESTIMATOR, "start_from": 2.0}), "σ=2, for which no expert is trained"),
        (
            changed(estimator={**ESTIMATOR, "network": {"width": 4, "conditional": True}}),
            "one noise level only, so its network cannot be conditional",
        ),
        (changed(selection={}), "give the estimator a start_from"),
        (changed(dial={"bias": [1.0]}), r"one number for each of 2 experts; got \(1\.0,\)"),
        (
            changed(dial={"bias": [1.0, 0.0]}, selection={}, estimator={**ESTIMATOR, "start_from": 0.5}),
            "leave the others out instead of a selection",
        ),
        (changed(image_size=32), "those of cifar10 have one size already"),
        ({key: value for key, value in GOOD.items() if key != "data"}, "data: must be given"),
        ([1, 2], "valid dictionary"),
    ],
)
def test_errors_name_the_field_the_value_and_the_remedy(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, content)


@pytest.mark.parametrize(
    "fields", [{"schedule": "step"}, {"milestones": [3]}, {"schedule": "linear", "milestones": [3]}]
)
def test_milestones_go_with_steps(fields):
    with pytest.raises(ValueError, match="schedule: step goes with milestones"):
        Optimization(epochs=9, **fields)


def test_optimizations_from_before_there_were_schedules_are_written_as_they_were():
    assert "schedule" not in Optimization(epochs=1).model_dump()
    steps = Optimization(epochs=90, schedule="step", milestones=(30, 60)).model_dump(mode="json")
    assert steps.items() >= {"schedule": "step", "milestones": [30, 60], "factor": 0.5}.items()
    assert Optimization.model_validate(steps).milestones == (30, 60)


def test_the_learning_rate_follows_its_schedule():
    steps = Optimization(epochs=90, warmup=0, schedule="step", milestones=(30, 60))
    done = [step / (90 * 370) for step in (0, 30 * 370 - 1, 30 * 370, 60 * 370 - 1, 60 * 370, 90 * 370 - 1)]
    assert [_rate(share, steps) for share in done] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    line = Optimization(epochs=10, warmup=0.2, schedule="linear")
    assert [_rate(share, line) for share in (0.2, 0.6, 1.0)] == pytest.approx([1.0, 0.5, 0.0])
    assert _rate(0.1, line) == pytest.approx(0.5, abs=0.01)


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(tmp_path / "bad.yaml")


def test_the_configurations_of_the_training_guide_are_valid():
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "training.md").read_text(encoding="utf-8"), re.DOTALL)
    names = [parse_section(TrainingConfig, yaml.safe_load(block), source="docs/training.md").name for block in blocks]
    assert names == ["from-scratch", "from-a-classifier", "from-a-pool"]
