import copy
from pathlib import Path

import pytest
import yaml

from dualrs.config import ConfigError
from dualrs.training.config import load_config

ROOT = Path(__file__).parents[2]
EXPERT = {"sigmas": [0.25, 0.5], "network": {"width": 4}, "optimization": {"epochs": 1}}
GOOD = {
    "name": "toy",
    "data": "cifar10",
    "sigmas": [0.25, 0.5],
    "sigma_e": 0.5,
    "output": "runs/toy",
    "experts": [EXPERT],
    "estimator": {"network": {"width": 4}, "optimization": {"epochs": 1}},
}


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(epochs=3), r"epochs: unknown field \(value 3\); known here: data, estimator, experts"),
        (
            changed(experts=[{**EXPERT, "optimization": {"epochs": 1, "lr": 2}}]),
            r"experts\.0\.optimization\.lr: unknown",
        ),
        (changed(sigma_e=-1.0), r"sigma_e: .*greater than 0 \(given: -1\.0\)"),
        (changed(sigmas=[0.5, 0.25]), "sigmas must ascend"),
        (changed(sigmas=[0.25, 0.5, 1.0]), r"every σ needs exactly one expert: .* experts serve \[0\.25, 0\.5\]"),
        (changed(experts=[{**EXPERT, "start_from": 0.5}]), "must belong to an expert listed before it"),
        (
            changed(experts=[{**EXPERT, "network": {"name": "vgg", "width": 1}}]),
            "unknown network 'vgg'; known: resnet9",
        ),
        (changed(estimator={**GOOD["estimator"], "start_from": 2.0}), "σ=2, which no expert serves"),
        ({key: value for key, value in GOOD.items() if key != "data"}, "data: must be given"),
        ([1, 2], "valid dictionary"),
    ],
)
def test_errors_name_the_field_the_value_and_the_remedy(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, content)


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(tmp_path / "bad.yaml")
