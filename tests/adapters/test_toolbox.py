from contextlib import suppress

import numpy as np
import pytest

art = pytest.importorskip("art", reason="pip install 'dualrs[art]'")

import dualrs  # noqa: E402
from dualrs.adapters import ARTSmoothedClassifier  # noqa: E402
from dualrs.data import open_dataset  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def test_answers_and_abstentions(halves, points):
    wrapped = ARTSmoothedClassifier(halves, n=500, seed=0)
    assert wrapped.nb_classes == 3
    assert wrapped.predict(points[0].numpy()).argmax(1).tolist() == [0, 0, wrapped.abstention, 1]
    labels, radii = wrapped.certify(points[0].numpy())
    certificates = halves.certify_batch(points[0], n=500)
    assert labels.tolist() == [-1 if each.label is None else each.label for each in certificates]
    assert radii.tolist() == [each.radius for each in certificates]
    shares = ARTSmoothedClassifier(halves, n=500, seed=0, scores="votes").predict(points[0].numpy())
    assert 0.5 < shares[0, 0] <= 1


def test_radii_are_those_of_the_toolbox_for_the_same_votes():
    """Of 10,000 votes at σ = 0.5: its own smoothing, and CERTIFY here, bound the same count."""
    from art.estimators.certification.randomized_smoothing.randomized_smoothing import RandomizedSmoothingMixin
    from scipy.stats import norm

    from dualrs.certificates import certify, run_procedure

    for share in (0.6, 0.9, 0.99):
        count = int(10_000 * share)
        theirs = 0.5 * norm.ppf(RandomizedSmoothingMixin._lower_confidence_bound(_Level(0.001), count, 10_000))
        ours = run_procedure(
            certify(0.5, n0=100, n=10_000), lambda request, s=share: np.array([round(request.count * s), 0])
        )
        assert ours.radius == pytest.approx(theirs, abs=1e-6)
        assert ours.radius <= theirs + 1e-12


class _Level:
    def __init__(self, alpha):
        self.alpha = alpha


class _EnoughError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["HopSkipJump", "BoundaryAttack"])
def test_attacks_of_the_toolbox_break_no_certificate(kind, monkeypatch):
    """Every point that an attack asks about, and not only the one that it ends with."""
    from art.attacks import evasion

    np.random.seed(0)  # noqa: NPY002 - the toolbox draws from it
    model, data = dualrs.load("fashion-mnist"), open_dataset("fashion-mnist-sample", "test")
    x = data.image(8)[None].numpy()
    (certificate,) = model.certify_batch(x, n=1000)
    assert certificate.radius > 0.5
    # The toolbox would look for a beginning with numbers of its own, differently in every test.
    begin = next(
        image for i in range(100) if model.predict(image := data.image(i)).label not in (certificate.label, None)
    )
    wrapped = ARTSmoothedClassifier(model, n=200, seed=0)
    asked, predict = [], wrapped.predict

    def watched(points, **settings):
        answers = predict(points, **settings)
        distances = np.linalg.norm((points - x).reshape(len(points), -1).astype(np.float64), axis=1)
        asked.extend(zip(distances.tolist(), answers.argmax(1).tolist(), strict=True))
        if len(asked) > 300:  # it waits until it succeeds, and may wait for ever where every input has noise of its own
            raise _EnoughError
        return answers

    monkeypatch.setattr(wrapped, "predict", watched)
    if kind == "HopSkipJump":
        settings = {"max_iter": 1, "max_eval": 20, "init_eval": 5, "init_size": 10}
    else:
        settings = {"targeted": False, "max_iter": 3, "num_trial": 4, "sample_size": 4, "init_size": 10}
    with suppress(_EnoughError):
        getattr(evasion, kind)(wrapped, verbose=False, **settings).generate(x, x_adv_init=begin[None].numpy())
    assert len(asked) > 20
    inside = [answer for distance, answer in asked if distance < certificate.radius]
    assert inside  # at least the image itself
    assert set(inside) <= {certificate.label, wrapped.abstention}


@pytest.mark.parametrize("what", ["classes", "shape", "scores", "fit"])
def test_what_is_missing_or_wrong_is_named(halves, what):
    if what == "classes":
        halves.num_classes = None
    elif what == "shape":
        halves.input = None
    match what:
        case "fit":
            with pytest.raises(NotImplementedError, match="dualrs train"):
                ARTSmoothedClassifier(halves).fit(None, None)
        case _:
            with pytest.raises(ValueError, match=what):
                ARTSmoothedClassifier(halves, **({"scores": "logits"} if what == "scores" else {}))


def test_secret_noise_unless_told(halves, points):
    first, second = ARTSmoothedClassifier(halves), ARTSmoothedClassifier(halves)
    assert first.seed != second.seed
    assert first.get_params()["seed"] == first.seed
    first.set_params(n=300, seed=1)
    assert (first.n, first.seed) == (300, 1)
    assert first.clip_values.tolist() == [0, 1]
    assert first.input_shape == (1, 2, 2)
    with pytest.raises(ValueError, match="this model takes values in"):
        first.predict(points[0].numpy() + 2)
