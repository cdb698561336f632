import json

import numpy as np
import pytest
from PIL import Image


def test_predict_abstains_or_answers_and_can_be_reproduced(run, bundle, tmp_path):
    image = tmp_path / "image.png"
    Image.fromarray(np.full((28, 28), 90, dtype=np.uint8)).save(image)
    code, out, _ = run("predict", bundle, image, "--n", 200, "--json")
    assert code == 0
    answer = json.loads(out)
    assert answer["rule"] == "routed"
    assert isinstance(answer["seed"], str)  # as a number, other programs would round it
    again = json.loads(run("predict", bundle, image, "--n", 200, "--seed", answer["seed"], "--json")[1])
    assert again == answer
    assert json.loads(run("predict", bundle, image, "--n", 200, "--json")[1])["seed"] != answer["seed"]
    certified = json.loads(run("predict", bundle, image, "--n", 200, "--radius", "--json")[1])
    assert sum(stage["trials"] for stage in certified["stages"]) >= 200


def test_predict_refuses_an_image_of_another_shape(run, bundle, tmp_path):
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(image)
    code, _, err = run("predict", bundle, image)
    assert code == 2
    assert "image.png: the input has shape (3, 32, 32); this model takes (1, 28, 28)" in err


@pytest.mark.slow
def test_doctor_examines_a_shipped_model(run):
    code, out, _ = run("doctor", "fashion-mnist", "--images", 2, "--n", 300, "--json")
    assert code == 0
    diagnosis = json.loads(out)
    assert diagnosis["data"] == "fashion-mnist-sample"
    assert [sight["name"] for sight in diagnosis["sight"]] == ["expert-0.25", "expert-0.5", "expert-1"]
    assert all(sight["noisy"] > 0.5 for sight in diagnosis["sight"])
    assert "problem" not in {finding["level"] for finding in diagnosis["findings"]}
    assert diagnosis["skipped"] == {}
