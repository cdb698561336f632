import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console

from dualrs.data import ArrayDataset
from dualrs.evaluation import diagnose, render_diagnosis
from dualrs.models import InputSpec
from dualrs.smoothing import DualSmoothedClassifier, Expert, SmoothedClassifier

SHORT = {"images": 3, "n": 400, "seconds": 0.02}


def bright(scale=20.0):
    """Class 1 where the mean is above 1/2."""

    def logits(batch):
        margin = scale * (batch.flatten(1).mean(dim=1) - 0.5)
        return torch.stack([-margin, margin], dim=1)

    return logits


def always(answer):
    return lambda batch: torch.eye(2)[[answer]].repeat(len(batch), 1)


@pytest.fixture
def dataset():
    labels = np.arange(60, dtype=np.int64) % 2
    images = np.broadcast_to((40 + 170 * labels)[:, None, None, None], (60, 8, 8, 1)).astype(np.uint8)
    return ArrayDataset("toy", "test", images, labels, ("dark", "bright"))


def dual(*, estimator=None, expert=None, sigma_e=0.5, **execution):
    experts = {0.25: bright(), 0.5: expert or bright()}
    return DualSmoothedClassifier(estimator or bright(), sigma_e, experts, 2, **execution)


def texts(diagnosis, level):
    return " ".join(finding.text for finding in diagnosis.findings if finding.level == level)


def printed(diagnosis):
    out = io.StringIO()
    Console(file=out, width=100, color_system=None).print(render_diagnosis(diagnosis))
    return out.getvalue()


def test_a_sound_model_has_no_problems_and_every_figure(dataset):
    diagnosis = diagnose(dual(), dataset, **SHORT)
    assert not texts(diagnosis, "problem")
    assert [base.name for base in diagnosis.bases] == ["estimator", "expert-0.25", "expert-0.5"]
    assert all(base.backend == "callable" and base.batch_size == 256 and base.same_bits for base in diagnosis.bases)
    assert all(base.votes_per_second > 0 and base.bare_per_second > 0 for base in diagnosis.bases)
    assert [sight.clean for sight in diagnosis.sight] == [1.0, 1.0]
    assert diagnosis.choices == {"0.25": 0.5, "0.5": 0.5}
    assert diagnosis.work.inputs == 3
    assert diagnosis.work.votes_per_input == pytest.approx(sum(diagnosis.work.votes.values()))
    assert "The model abstained on 0 of 3 inputs." in texts(diagnosis, "ok")
    assert not diagnosis.skipped


def test_a_pool_is_examined_expert_by_expert(dataset):
    pool = [Expert(bright(), 0.25), Expert(bright(), 0.5, "plain"), Expert(always(1), 0.5, "stubborn")]
    thirds = lambda batch: torch.cat([bright()(batch), torch.zeros(len(batch), 1)], dim=1)  # noqa: E731
    diagnosis = diagnose(DualSmoothedClassifier(thirds, 0.5, pool, 2), dataset, **SHORT)
    names = ["expert-0.25", "plain", "stubborn"]
    assert [base.name for base in diagnosis.bases] == ["estimator", *names]
    assert [base.sigma for base in diagnosis.bases] == [0.5, 0.25, 0.5, 0.5]
    assert [sight.name for sight in diagnosis.sight] == names
    assert [cap.name for cap in diagnosis.caps if cap.n == SHORT["n"]] == ["estimator", *names]
    assert diagnosis.choices == {"0.25": 0.5, "0.5 (plain)": 0.5, "0.5 (stubborn)": 0.0}
    assert "stubborn is right on 50.0 % of 60 images" in texts(diagnosis, "problem")
    assert "…" not in printed(diagnosis)


def test_the_caps_are_those_of_unanimous_votes(dataset):
    diagnosis = diagnose(dual(), dataset, **SHORT)
    caps = {(cap.name, cap.n): cap for cap in diagnosis.caps}
    for name in ("expert-0.25", "expert-0.5"):
        for n in (400, 4000):
            assert caps[name, n].radius == pytest.approx(caps[name, n].plain, rel=1e-9)  # of two classes, one bound
    best = dual().certify(torch.full((1, 8, 8), 1.0), n=400)
    assert best.classifier_radius == pytest.approx(caps["expert-0.5", 400].radius, rel=1e-9)
    assert 0 < caps["estimator", 400].radius < caps["estimator", 400].plain


def test_a_classifier_that_answers_one_class_is_found_at_chance(dataset):
    diagnosis = diagnose(dual(expert=always(1)), dataset, **SHORT)
    problem = texts(diagnosis, "problem")
    assert "expert-0.5 is right on 50.0 % of 60 images" in problem
    assert "it answers 1 whatever it sees" in problem
    assert "normalisation missing or applied twice" in problem
    assert "expert-0.25" not in problem
    assert diagnosis.findings[0].level == "problem"


def test_an_expert_that_sees_only_without_noise_is_told_from_a_broken_one(dataset):
    def fragile(batch):  # noise makes neighbours differ
        smooth = (batch[:, :, 1:] - batch[:, :, :-1]).abs().flatten(1).mean(dim=1) < 0.05
        return torch.where(smooth[:, None], bright()(batch), -bright()(batch))

    problem = texts(diagnose(SmoothedClassifier(fragile, 0.5, 2), dataset, **SHORT), "problem")
    assert "it can see, but not through noise" in problem


def test_logits_without_numbers_are_named(dataset):
    def broken(batch):
        return torch.full((len(batch), 2), torch.nan)

    diagnosis = diagnose(SmoothedClassifier(broken, 0.5), dataset, **SHORT)
    assert "gives NaN logits for 100.0 % of noisy images" in texts(diagnosis, "problem")
    assert "abstained on 3 of 3 inputs" in texts(diagnosis, "problem")


def test_an_estimator_that_always_chooses_one_sigma_is_noted(dataset):
    assert "almost always chooses σ = 0.5" in texts(diagnose(dual(estimator=always(1)), dataset, **SHORT), "note")


@pytest.mark.filterwarnings("ignore:sigma_e")
def test_a_small_sigma_e_is_noted(dataset):
    assert "σ_e = 0.25 is below the largest σ, 0.5" in texts(diagnose(dual(sigma_e=0.25), dataset, **SHORT), "note")


def test_too_small_an_n_is_explained(dataset):
    diagnosis = diagnose(dual(), dataset, **{**SHORT, "n": 5})
    assert "n = 5 can certify nothing at α = 0.001" in texts(diagnosis, "problem")
    assert f"use an n of at least {diagnosis.smallest_n}" in texts(diagnosis, "problem")
    assert diagnosis.work is None
    assert dual().procedure(n=diagnosis.smallest_n)
    with pytest.raises(ValueError, match="unanimous"):
        dual().procedure(n=diagnosis.smallest_n - 1)
    assert "certifying" not in printed(diagnosis)


def test_batches_that_stay_empty_are_noted(dataset):
    diagnosis = diagnose(dual(batch_size=4096), dataset, **SHORT)
    assert diagnosis.work.fill_rate < 0.5
    assert "do not fill batches of 4096: certify more inputs at once" in texts(diagnosis, "note")


def test_a_base_classifier_that_is_no_fixed_function_is_a_finding(dataset):
    generator = torch.Generator().manual_seed(0)

    def dice(batch):
        return torch.rand((len(batch), 2), generator=generator)

    diagnosis = diagnose(dual(expert=dice), dataset, **SHORT)
    assert "expert-0.5 is refused: the base classifier gave different logits" in texts(diagnosis, "problem")
    assert diagnosis.work is None
    assert not diagnosis.sight
    assert "refused" in printed(diagnosis)


def test_without_data_images_are_made_up(dataset):
    model = dual()
    with pytest.raises(ValueError, match="the shape of its inputs is not known"):
        diagnose(model, None, **SHORT)
    model.input = InputSpec((1, 8, 8))
    diagnosis = diagnose(model, None, **SHORT)
    assert diagnosis.work.made_up
    assert not diagnosis.sight
    assert diagnosis.choices is None
    assert "Not examined: accuracy, because there are no labelled images; name some with --data." in texts(
        diagnosis, "note"
    )


def test_one_sigma_has_no_estimator(dataset):
    diagnosis = diagnose(SmoothedClassifier(bright(), 0.5), dataset, **SHORT)
    assert diagnosis.rule == "adaptive"
    assert [cap.name for cap in diagnosis.caps] == ["classifier"] * 2
    assert diagnosis.chance == 0.5
    assert diagnosis.choices is None


def test_it_is_json_and_fits_in_100_columns(dataset):
    diagnosis = diagnose(dual(), dataset, **SHORT)
    content = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert content.keys() == vars(diagnosis).keys()
    assert {"level", "text"} == content["findings"][0].keys()
    assert "…" not in printed(diagnosis)
    for text in ("bare rows/s", "fill rate", "largest radius", "one noise draw"):
        assert text in printed(diagnosis)


@pytest.mark.parametrize("options", [{"images": 0}, {"n": 0}, {"n": 10**7}, {"alpha": 1.0}, {"seconds": 0}])
def test_impossible_arguments_are_refused(dataset, options):
    with pytest.raises(ValueError, match="images must be at least 1"):
        diagnose(dual(), dataset, **options)
