import numpy as np
import pytest
import torch

sklearn = pytest.importorskip("sklearn", reason="pip install 'dualrs[sklearn]'")

from sklearn.base import clone, is_classifier  # noqa: E402
from sklearn.model_selection import cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

from dualrs import SmoothedClassifier  # noqa: E402
from dualrs.adapters import SmoothedEstimator  # noqa: E402


@pytest.fixture
def estimator(halves):
    return SmoothedEstimator(halves, n=500)


def test_answers_are_those_of_the_model(estimator, halves, points):
    xs, truth = points
    certificates = halves.certify_batch(xs, n=500)
    assert estimator.certificates(xs.numpy()) == certificates
    assert estimator.certify(xs.numpy()).tolist() == [certificate.radius for certificate in certificates]
    found = estimator.predict(xs.numpy())
    assert found.tolist() == [0, 0, -1, 1]  # it abstains between the two
    assert estimator.score(xs, truth) == 0.75
    radius = sorted(estimator.certify(xs))[-1]
    assert estimator.score(xs, truth, radius=radius) < 0.5
    assert estimator.score(xs, truth, sample_weight=[1, 1, 0, 1]) == 1.0


def test_flat_inputs_and_names_of_classes(halves, points):
    xs, _ = points
    named = SmoothedEstimator(halves, classes=["top", "bottom"], abstention="nothing", n=500)
    assert named.predict(xs.flatten(1).numpy()).tolist() == ["top", "top", "nothing", "bottom"]
    assert named.classes_.tolist() == ["top", "bottom"]
    assert named.n_features_in_ == 4


def test_shares_of_votes(estimator, points):
    shares = estimator.predict_proba(points[0])
    assert shares.shape == (4, 2)
    assert np.allclose(shares.sum(1), 1)
    assert shares[0, 0] > 0.9


def test_it_works_where_classifiers_work(estimator, points):
    xs, truth = points
    flat = np.concatenate([xs.flatten(1).numpy()] * 3)
    assert is_classifier(estimator)
    pipeline = make_pipeline(FunctionTransformer(lambda x: x / 1.0), estimator)
    assert pipeline.predict(flat[:2]).tolist() == [0, 0]
    assert cross_val_score(estimator, flat, np.tile(truth, 3), cv=3).mean() == pytest.approx(0.75)
    copy = clone(estimator)
    assert copy.model is estimator.model
    assert copy.set_params(alpha=0.01).get_params()["alpha"] == 0.01
    assert estimator.fit(flat, np.tile(truth, 3)) is estimator


# What the library checks of every classifier, and cannot be so of one that was trained before.
LEARNS_NOTHING = "fit learns nothing from X and y: neither classes nor features"
NOT_SO_HERE = {
    "check_classifiers_classes": LEARNS_NOTHING,
    "check_classifiers_regression_target": LEARNS_NOTHING,
    "check_classifiers_train": LEARNS_NOTHING,
    "check_n_features_in": "the features are known before fit, or not at all",
    "check_n_features_in_after_fitting": "the features are known before fit, or not at all",
    "check_supervised_y_2d": LEARNS_NOTHING,
    "check_supervised_y_no_nan": LEARNS_NOTHING,
}


def sign(x):
    first = x.flatten(1)[:, 0]
    return torch.stack([-first, first], dim=1)


@pytest.mark.slow
def test_checks_of_the_library():
    estimator = SmoothedEstimator(SmoothedClassifier(sign, 0.25, 2), n=200)
    results = check_estimator(estimator, expected_failed_checks=NOT_SO_HERE, on_skip=None, on_fail=None)
    of = {
        status: {each["check_name"] for each in results if each["status"] == status} for status in ("passed", "failed")
    }
    assert of["failed"] == set()
    assert of["passed"] >= {
        "check_estimator_cloneable",
        "check_estimators_nan_inf",
        "check_estimators_pickle",
        "check_get_params_invariance",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_pipeline_consistency",
        "check_set_params",
    }
    assert len(of["passed"]) >= 35


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"classes": [1, 1]}, "each with a label"),
        ({"abstention": 1}, "is a label"),
        ({"abstention": "no"}, "type of the labels"),
    ],
)
def test_labels_that_cannot_be_told_apart(halves, points, settings, what):
    with pytest.raises(ValueError, match=what):
        SmoothedEstimator(halves, n=500, **settings).predict(points[0])


def test_other_shapes_and_radii_are_refused(estimator, points):
    with pytest.raises(ValueError, match="expecting 4 features"):
        estimator.predict(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="at least 0"):
        estimator.score(*points, radius=-1)
    with pytest.raises(ValueError, match="as many labels"):
        estimator.score(points[0], [0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        estimator.fit(points[0].numpy(), [0])


def test_shares_are_unknown_where_nobody_answered(points):
    nobody = SmoothedClassifier(lambda x: torch.full((len(x), 2), torch.nan), 0.2, 2)
    estimator = SmoothedEstimator(nobody, n=100)
    assert np.isnan(estimator.predict_proba(points[0])).all()
    assert estimator.predict(points[0]).tolist() == [-1] * 4
    assert estimator.certify(points[0]).tolist() == [0.0] * 4


def test_the_number_of_classes_may_be_learned_from_the_first_answer(points):
    def logits(x):
        return 10 * x.flatten(1)[:, [0, 2]]

    estimator = SmoothedEstimator(SmoothedClassifier(logits, 0.2), n=200)
    assert not hasattr(estimator, "classes_")
    assert estimator.predict(points[0])[[0, 3]].tolist() == [0, 1]
    assert estimator.classes_.tolist() == [0, 1]
    assert not hasattr(estimator, "n_features_in_")
