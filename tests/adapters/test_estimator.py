import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn", reason="pip install 'dualrs[sklearn]'")

from sklearn.base import clone, is_classifier  # noqa: E402
from sklearn.model_selection import cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer  # noqa: E402
from sklearn.utils.estimator_checks import check_no_attributes_set_in_init, check_parameters_default_constructible  # noqa: E402

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


def test_checks_of_the_library(estimator):
    check_no_attributes_set_in_init("SmoothedEstimator", estimator)
    check_parameters_default_constructible("SmoothedEstimator", estimator)


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
