"""End to end in worlds whose smoothed probabilities, and so whose true radii, are known in closed form.

Every base classifier here tells parallel slabs apart, so a smoothed probability is a difference of normal
distribution functions, and the nearest point where the dual prediction changes is found on a line or, where
the estimator looks along another direction than the experts, in a plane. A wrong certificate is seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from dualrs import DualSmoothedClassifier, SmoothedClassifier
from dualrs.certificates import (
    Goal,
    certify,
    dual_certify,
    dual_predict,
    expert_name,
    predict,
    routed_certify,
    run_procedure,
)

SIGNIFICANCE = 1e-6
DIMENSIONS = 4
U = np.array([0.6, 0.8, 0.0, 0.0])
V = np.array([-0.8, 0.6, 0.0, 0.0])  # orthogonal to U


@dataclass(frozen=True)
class Slabs:
    """A base classifier by the position along a unit direction: ``labels[i]`` between ``cuts[i-1]`` and ``cuts[i]``."""

    cuts: tuple[float, ...]
    labels: tuple[int, ...]
    along_v: bool = False

    @property
    def direction(self):
        return V if self.along_v else U

    @property
    def classes(self):
        return max(self.labels) + 1

    def __call__(self, batch):
        """Logits: one for the class of the slab, zero for the others."""
        position = batch @ torch.as_tensor(self.direction, dtype=torch.float32)
        slab = torch.bucketize(position, torch.tensor(self.cuts, dtype=torch.float32))
        return torch.eye(self.classes)[torch.tensor(self.labels)[slab]]

    def probabilities(self, position, sigma):
        """Smoothed class probabilities at positions of any shape; a last axis of classes is added."""
        position = np.asarray(position, dtype=float)
        edges = np.array([-np.inf, *self.cuts, np.inf])
        # Differences of the smaller tail, so that probabilities near zero keep their digits.
        low, high = (edges[:-1] - position[..., None]) / sigma, (edges[1:] - position[..., None]) / sigma
        mass = np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
        return np.stack([mass[..., np.equal(self.labels, c)].sum(-1) for c in range(self.classes)], axis=-1)

    def predict(self, position, sigma):
        return self.probabilities(position, sigma).argmax(-1)

    @cache  # noqa: B019 — few worlds, and they live as long as the tests
    def regions(self, sigma):
        """The intervals on which the smoothed prediction is constant, as (low, high, label)."""
        reach = max(map(abs, self.cuts)) + 6 * sigma
        grid = np.linspace(-reach, reach, 20_001)
        labels = self.predict(grid, sigma)
        borders = []
        for i in np.flatnonzero(np.diff(labels)):
            a, b = labels[i], labels[i + 1]

            def lead(t, a=a, b=b):
                p = self.probabilities(t, sigma)
                return p[a] - p[b]

            borders.append(brentq(lead, grid[i], grid[i + 1], xtol=1e-13))
        edges = [-np.inf, *borders, np.inf]
        firsts = [labels[0], *labels[np.flatnonzero(np.diff(labels)) + 1]]
        return [(low, high, int(label)) for (low, high), label in zip(pairwise(edges), firsts, strict=True)]


@dataclass(frozen=True)
class World:
    """A dual model of slabs; all experts look along U, the estimator along U or V."""

    estimator: Slabs
    sigma_e: float
    experts: Mapping[float, Slabs]

    __hash__ = object.__hash__

    @property
    def sigmas(self):
        return tuple(self.experts)

    def predict(self, xs):
        """The exact dual prediction at inputs of shape (..., d)."""
        choice = self.estimator.predict(xs @ self.estimator.direction, self.sigma_e)
        answers = [expert.predict(xs @ U, sigma) for sigma, expert in self.experts.items()]
        return np.take_along_axis(np.stack(answers, -1), choice[..., None], -1)[..., 0]

    def way_out(self, x):
        """The shortest step from x to the border of where the dual prediction is another one."""
        label = self.predict(x)
        s, t = x @ self.estimator.direction, x @ U
        steps = []
        for choice_low, choice_high, choice in self.estimator.regions(self.sigma_e):
            sigma = self.sigmas[choice]
            for low, high, other in self.experts[sigma].regions(sigma):
                if other == label:
                    continue
                if self.estimator.along_v:
                    steps.append(to_interval(s, choice_low, choice_high) * V + to_interval(t, low, high) * U)
                elif max(low, choice_low) < min(high, choice_high):
                    steps.append(to_interval(t, max(low, choice_low), min(high, choice_high)) * U)
        return min(steps, key=np.linalg.norm, default=np.full(DIMENSIONS, np.inf))

    def stages(self, x):
        """Noise level and normal quantile of the leading class's probability, of the estimator and of its choice."""
        p_e = self.estimator.probabilities(x @ self.estimator.direction, self.sigma_e)
        sigma = self.sigmas[int(p_e.argmax())]
        p = self.experts[sigma].probabilities(x @ U, sigma)
        return (self.sigma_e, ndtri(p_e.max())), (sigma, ndtri(p.max()))

    def ideal(self, x):
        """The min rule's radius if all probabilities were known."""
        return max(0.0, min(sigma * quantile for sigma, quantile in self.stages(x)))

    def is_telling(self, x):
        """Whether 100 000 votes should come close to the ideal radius at x.

        One stage limits it clearly, and by a probability neither near 1/2, where the bound's relative error is
        large, nor near 1, where the number of votes caps the radius (at 3.79 σ).
        """
        (sigma, quantile), (other, other_quantile) = sorted(self.stages(x), key=np.prod)
        return 0.9 < quantile < 2.6 and 1.1 * sigma * quantile < other * min(other_quantile, 3.5)

    def answer(self, x, generator):
        """Exact multinomial votes."""

        def votes(request):
            slabs = self.estimator if request.model == "estimator" else self.experts[request.sigma]
            p = slabs.probabilities(x @ slabs.direction, request.sigma)
            return generator.multinomial(request.count, p / p.sum())

        return votes

    def same_votes(self, x, seed):
        """Votes that every procedure meets in the same order, as in the engine."""
        votes = {}

        def answer(request):
            slabs = self.estimator if request.model == "estimator" else self.experts[request.sigma]
            p = slabs.probabilities(x @ slabs.direction, request.sigma)
            generator, drawn = votes.setdefault(request.model, (np.random.default_rng([seed, len(votes)]), []))
            drawn.extend(generator.choice(len(p), p=p / p.sum(), size=request.count))
            return np.bincount(drawn[-request.count :], minlength=len(p))

        return answer

    def model(self, **settings):
        return DualSmoothedClassifier(self.estimator, self.sigma_e, self.experts, **settings)


def to_interval(position, low, high):
    """The step from a position into an interval, 0 inside."""
    return float(np.clip(position, low, high) - position)


WORLDS = {
    # Half-spaces only: the min rule's radius is the true one wherever the expert limits it.
    "half-spaces": World(Slabs((0.3,), (0, 1), True), 1.0, {0.25: Slabs((0.0,), (0, 1)), 1.0: Slabs((0.0,), (0, 1))}),
    # Experts that contradict each other: every change of σ changes the label, so the estimator's radius is the truth.
    "contradiction": World(Slabs((0.0,), (0, 1), True), 1.0, {0.5: Slabs((-9.0,), (1, 0)), 1.0: Slabs((9.0,), (1, 0))}),
    "corner": World(Slabs((0.0,), (0, 1), True), 0.75, {0.25: Slabs((0.4,), (0, 1)), 0.75: Slabs((-0.4,), (1, 0))}),
    "slab": World(
        Slabs((-1.0, 1.0), (1, 0, 1)), 1.0, {0.25: Slabs((-0.8, 0.8), (0, 1, 0)), 0.5: Slabs((-1.5, 1.5), (0, 1, 0))}
    ),
    "many classes": World(
        Slabs((-1.0, 0.5), (0, 1, 2), True),
        1.0,
        {
            0.25: Slabs((-1.0, -0.2, 0.7), (0, 1, 2, 3)),
            0.5: Slabs((-1.1, -0.2, 0.9), (0, 1, 2, 3)),
            1.0: Slabs((-1.3, -0.1, 1.1), (0, 1, 2, 3)),
        },
    ),
    "many classes along one line": World(
        Slabs((-1.2, 1.2), (2, 0, 1)),
        1.0,
        {
            0.25: Slabs((-2.0, -0.6, 0.6, 2.0), (0, 1, 2, 1, 0)),
            0.5: Slabs((-2.1, -0.5, 0.5, 2.1), (0, 1, 2, 1, 0)),
            1.0: Slabs((-2.2, 2.2), (0, 1, 2)),
        },
    ),
}


def points(count, seed, reach=2.5):
    return np.random.default_rng(seed).uniform(-reach, reach, (count, DIMENSIONS)).astype(np.float32).astype(float)


def too_many(wrong, total, alpha):
    """Whether so many failures of so many certificates contradict a failure probability of alpha each."""
    return binom.sf(wrong - 1, total, alpha) < SIGNIFICANCE


def is_wrong(certificate, label, radius):
    return not certificate.abstained and (certificate.label != label or certificate.radius > radius * (1 + 1e-9))


# The worlds themselves.


def test_the_smoothed_probabilities_are_right():
    slabs, sigma = Slabs((-1.0, 0.3, 1.1), (0, 2, 1, 0), True), 0.7
    xs = points(5, 0)
    noise = np.random.default_rng(1).standard_normal((200_000, DIMENSIONS))
    for x in xs:
        votes = slabs(torch.tensor(x + sigma * noise, dtype=torch.float32)).double().mean(0).numpy()
        assert votes == pytest.approx(slabs.probabilities(x @ V, sigma), abs=5 * 0.5 / np.sqrt(200_000))


@pytest.mark.parametrize("name", WORLDS)
def test_the_true_radius_is_where_the_prediction_changes(name):
    world = WORLDS[name]
    directions = np.random.default_rng(0).standard_normal((400, DIMENSIONS))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for x in points(40, seed=1):
        step = world.way_out(x)
        radius, label = np.linalg.norm(step), world.predict(x)
        assert radius > 1e-4  # far enough from the border for the floating-point numbers below
        assert world.predict(x + step * (1 - 1e-7)) == label
        assert world.predict(x + step * (1 + 1e-7)) != label
        inside = x + directions * radius * np.random.default_rng(2).uniform(0, 1, (400, 1))
        assert (world.predict(inside) == label).all()


def test_the_true_radius_of_a_half_space_is_its_distance():
    world = WORLDS["half-spaces"]
    for x in points(50, seed=2):
        assert np.linalg.norm(world.way_out(x)) == pytest.approx(abs(x @ U), abs=1e-12)
        assert world.ideal(x) < np.linalg.norm(world.way_out(x)) * (1 + 1e-9)


# Many certificates from exact multinomial votes.


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("name", WORLDS)
def test_certificates_exceed_the_true_radius_no_more_often_than_alpha(name, alpha):
    world, generator = WORLDS[name], np.random.default_rng(3)
    wrong = total = decided = 0
    for x in points(40, seed=4):
        label, radius = world.predict(x), np.linalg.norm(world.way_out(x))
        for n in (100, 1000, 10_000):
            for _ in range(20):
                procedure = dual_certify(world.sigma_e, world.sigmas, n0=20, n=n, alpha=alpha)
                certificate = run_procedure(procedure, world.answer(x, generator))
                total += 1
                decided += not certificate.abstained
                wrong += is_wrong(certificate, label, radius)
    assert decided > total / 4
    assert not too_many(wrong, total, alpha), f"{wrong} of {total} certificates exceed the true radius"


GOALS = (Goal(), Goal(tolerance=0.05), Goal(target=0.0), Goal(target=0.4))


@pytest.mark.parametrize("name", WORLDS)
def test_routed_certificates_exceed_the_true_radius_no_more_often_than_alpha(name):
    world, generator, alpha = WORLDS[name], np.random.default_rng(16), 0.05
    wrong = total = decided = 0
    for x in points(40, seed=17):
        label, radius = world.predict(x), np.linalg.norm(world.way_out(x))
        for n, goal, sequence in product((100, 1000), GOALS, ("spending", "mixture")):
            arguments = {"n0": 20, "n": n, "alpha": alpha, "goal": goal, "sequence": sequence}
            procedure = routed_certify(world.sigma_e, world.sigmas, **arguments)
            certificate = run_procedure(procedure, world.answer(x, generator))
            total += 1
            decided += not certificate.abstained
            wrong += is_wrong(certificate, label, radius)
    assert decided > total / 3
    assert not too_many(wrong, total, alpha), f"{wrong} of {total} certificates exceed the true radius"


@pytest.mark.parametrize("name", WORLDS)
def test_the_routed_certificate_is_hardly_ever_below_the_min_rule(name):
    world = WORLDS[name]
    gains = []
    for i, x in enumerate(points(60, seed=18)):
        routed, least = (
            run_procedure(make(world.sigma_e, world.sigmas), world.same_votes(x, i))
            for make in (routed_certify, dual_certify)
        )
        assert routed.abstained or least.abstained or routed.label == least.label
        if least.radius < 2.5 * world.sigma_e:
            assert routed.radius > least.radius - 0.05 * world.sigma_e
        gains.append(routed.radius - least.radius)
    assert np.mean(gains) > -0.02 * world.sigma_e  # the levels of several looks, where nothing else differs


def test_no_attack_in_a_million_breaks_a_routed_certificate():
    """At a failure probability of 1e-9 none may succeed: along the shortest ways out, and along their neighbours."""
    generator, attempts = np.random.default_rng(19), 0
    lengths = np.array([0.5, 0.9, 0.99, 1 - 1e-9])[:, None, None]
    axes = np.array([U, -U, V, -V, U + V, U - V, V - U, -U - V])
    for world, goal in product(WORLDS.values(), GOALS):
        for x in points(40, seed=20):
            procedure = routed_certify(world.sigma_e, world.sigmas, n=2000, alpha=1e-9, goal=goal)
            certificate = run_procedure(procedure, world.answer(x, generator))
            if certificate.abstained:
                continue
            step = world.way_out(x)
            worst = step if np.isfinite(step).all() and step.any() else U
            worst = worst / np.linalg.norm(worst)
            near = worst + generator.standard_normal((400, DIMENSIONS)) * np.array([[0.01], [0.1], [0.5], [2.0]] * 100)
            attacks = np.concatenate([[worst], axes, near])
            attacks /= np.linalg.norm(attacks, axis=1, keepdims=True)
            labels = world.predict(x + certificate.radius * lengths * attacks)
            assert (labels == certificate.label).all()
            attempts += labels.size
    assert attempts >= 1_000_000


@pytest.mark.parametrize("name", ["half-spaces", "contradiction"])
def test_a_radius_three_percent_too_large_is_seen(name):
    """These worlds leave no slack between the certificate and the truth, so the test above can fail."""
    world, generator = WORLDS[name], np.random.default_rng(5)
    wrong = total = 0
    for x in points(300, seed=6):
        if not world.is_telling(x):
            continue
        certificate = run_procedure(dual_certify(world.sigma_e, world.sigmas, n=100_000), world.answer(x, generator))
        total += 1
        wrong += certificate.radius * 1.03 > np.linalg.norm(world.way_out(x))
    assert total > 20
    assert too_many(wrong, total, 0.001)


@pytest.mark.parametrize("name", WORLDS)
def test_predictions_are_wrong_no_more_often_than_alpha(name):
    world, generator, alpha = WORLDS[name], np.random.default_rng(7), 0.05
    wrong = total = decided = 0
    for x in points(60, seed=8):
        label = world.predict(x)
        for n in (20, 200):
            for _ in range(5):
                procedure = dual_predict(world.sigma_e, world.sigmas, n=n, alpha=alpha)
                prediction = run_procedure(procedure, world.answer(x, generator))
                total += 1
                decided += not prediction.abstained
                wrong += is_wrong(prediction, label, np.inf)
    assert decided > total / 4
    assert not too_many(wrong, total, alpha), f"{wrong} of {total} predictions are wrong"


@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_certificates_of_one_noise_level_are_sound(alpha):
    generator, sigma = np.random.default_rng(9), 0.5
    wrong = total = wrong_predictions = 0
    for slabs in (Slabs((0.0,), (0, 1)), Slabs((-1.0, 1.0), (0, 1, 0)), Slabs((-1.0, 0.0, 0.8), (0, 1, 2, 3))):
        for t in np.linspace(-1.9, 1.9, 40):
            ((label, radius),) = [
                (label, min(t - low, high - t)) for low, high, label in slabs.regions(sigma) if low <= t < high
            ]

            p = slabs.probabilities(t, sigma)

            def answer(request, p=p):
                return generator.multinomial(request.count, p / p.sum())

            for n in (100, 1000, 10_000):
                for _ in range(20):
                    certificate = run_procedure(certify(sigma, n0=20, n=n, alpha=alpha), answer)
                    wrong += is_wrong(certificate, label, radius)
                    wrong_predictions += is_wrong(
                        run_procedure(predict(sigma, n=n, alpha=alpha), answer), label, np.inf
                    )
                    total += 1
    assert not too_many(wrong, total, alpha), f"{wrong} of {total} certificates exceed the true radius"
    assert not too_many(wrong_predictions, total, alpha)


@pytest.mark.parametrize("name", WORLDS)
def test_many_votes_give_almost_the_ideal_radius(name):
    world, generator = WORLDS[name], np.random.default_rng(10)
    xs = [x for x in points(400, seed=11, reach=2.0) if world.is_telling(x)]
    procedures = [dual_certify(world.sigma_e, world.sigmas, n=100_000) for _ in xs]
    found = [run_procedure(p, world.answer(x, generator)).radius for p, x in zip(procedures, xs, strict=True)]
    assert len(found) >= 15
    assert 0.98 < np.mean(found) / np.mean([world.ideal(x) for x in xs]) < 1.0


# The real engine.


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_no_attack_inside_a_certified_ball_succeeds(name):
    """On the exact prediction: along the shortest way out, along the axes of the world, and anywhere."""
    world, alpha = WORLDS[name], 0.001
    xs = points(60, seed=12)
    certificates = world.model(batch_size=2048).certify_batch(xs.astype(np.float32), n=1000, alpha=alpha, seed=1)
    directions = np.random.default_rng(13).standard_normal((200, DIMENSIONS))
    directions = np.concatenate([directions, [U, -U, V, -V, U + V, U - V, V - U, -U - V]])
    broken = decided = 0
    for x, certificate in zip(xs, certificates, strict=True):
        if certificate.abstained:
            continue
        decided += 1
        step = world.way_out(x)
        worst = step if np.isfinite(step).all() and step.any() else U
        attacks = np.concatenate([directions, worst[None]])
        attacks /= np.linalg.norm(attacks, axis=1, keepdims=True)
        lengths = certificate.radius * np.array([0.0, 0.5, 0.9, 1 - 1e-6])
        labels = world.predict(x + lengths[:, None, None] * attacks)
        found = bool((labels != certificate.label).any())
        assert found == is_wrong(certificate, world.predict(x), np.linalg.norm(step) / (1 - 1e-6))
        broken += found
    assert decided > 15
    assert not too_many(broken, len(xs), alpha), f"{broken} of {decided} certified balls hold an adversarial example"


@pytest.mark.slow
def test_the_engine_votes_as_the_closed_form_says():
    """All votes of all inputs together: a noise level, a model or an input mixed up would stand out."""
    world, n = WORLDS["many classes"], 2000
    xs = points(60, seed=14)
    certificates = world.model(batch_size=2048).certify_batch(xs.astype(np.float32), n0=50, n=n)
    names = {expert_name(sigma): slabs for sigma, slabs in world.experts.items()} | {"estimator": world.estimator}
    surprise = degrees = 0
    for x, certificate in zip(xs, certificates, strict=True):
        for stage in certificate.stages:
            slabs = names[stage.model]
            p = slabs.probabilities(x @ slabs.direction, stage.sigma)
            expected, found = stage.trials * p, np.array(stage.counts)
            common = expected > 5
            surprise += (((found - expected) ** 2 / expected)[common]).sum()
            degrees += max(0, common.sum() - 1)
    # A chi-squared variable; cells with few expected votes are left out, which only lowers it.
    assert degrees > 100
    assert surprise < degrees + 6 * np.sqrt(2 * degrees)
    assert surprise > degrees - 8 * np.sqrt(2 * degrees)


@pytest.mark.slow
def test_the_engine_reaches_almost_the_ideal_radius():
    world = WORLDS["many classes"]
    xs = [x for x in points(600, seed=15, reach=2.0) if world.is_telling(x)][:12]
    found = world.model(batch_size=4096).certify_batch(np.array(xs, dtype=np.float32), n=100_000, rule="min")
    assert len(xs) == 12
    assert 0.98 < np.mean([certificate.radius for certificate in found]) / np.mean([world.ideal(x) for x in xs]) < 1.0


def test_a_single_half_space_is_certified_up_to_the_plane():
    slabs = Slabs((0.2,), (0, 1))
    model = SmoothedClassifier(slabs, 0.5, 2, batch_size=4096)
    for t in (-0.6, 0.7, 1.1):
        certificate = model.certify((t * U).astype(np.float32), n=100_000)
        assert certificate.label == int(t > 0.2)
        assert 0.97 < certificate.radius / abs(t - 0.2) < 1.0
