import json

import torch

import dualrs
from dualrs.config import parse_section
from dualrs.training.config import TrainingConfig
from dualrs.training.pipeline import Pipeline

OPTIMIZATION = {"epochs": 6, "batch_size": 16, "learning_rate": 0.05, "crop_padding": 0}


def toy(output):
    expert = {"network": {"width": 4}, "optimization": OPTIMIZATION}
    content = {
        "name": "toy",
        "data": "bright",
        "sigmas": [0.25, 0.5],
        "sigma_e": 0.5,
        "output": output,
        "experts": [{**expert, "sigmas": [0.25]}, {**expert, "sigmas": [0.5], "start_from": 0.25}],
        "labels": {"n": 50},
        "estimator": {
            "network": {"width": 4},
            "start_from": 0.5,
            "optimization": {**OPTIMIZATION, "optimizer": "adamw", "learning_rate": 0.01},
            "consistency": 1.0,
        },
    }
    return parse_section(TrainingConfig, content, source="test")


def test_from_data_to_a_bundle_that_certifies(train_data, test_data, tmp_path):
    folder = Pipeline(toy(tmp_path), train_data, test_data).run()
    model = dualrs.load(folder)
    assert isinstance(model, dualrs.DualSmoothedClassifier)
    assert model.sigmas == (0.25, 0.5)
    assert model.classes == ("dark", "bright")
    assert model.info["expert-0.25"]["test_accuracy_one_noise_draw"]["0.25"] > 0.9
    shares = json.loads((tmp_path / "labels" / "summary.json").read_text())["best_sigma_shares"]
    assert abs(sum(shares.values()) - 1) < 1e-9

    certificates = model.certify_batch([test_data.image(i) for i in range(16)], n=500, alpha=0.01)
    right = [c.label == test_data.label(i) and c.radius > 0.2 for i, c in enumerate(certificates)]
    assert sum(right) >= 12


def test_running_again_repeats_nothing(train_data, test_data, tmp_path):
    first = Pipeline(toy(tmp_path), train_data, test_data).run()
    logs = {path: path.read_bytes() for path in tmp_path.glob("*/metrics.jsonl")}
    manifest = (first / "model.json").read_bytes()
    torch.manual_seed(12345)
    Pipeline(toy(tmp_path), train_data, test_data).run()
    assert {path: path.read_bytes() for path in tmp_path.glob("*/metrics.jsonl")} == logs
    assert (first / "model.json").read_bytes() == manifest
