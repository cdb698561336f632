"""Sum the probability that a procedure's certificate is wrong, over every outcome of its votes.

The worlds lie on grids of class probabilities, with points added just below the confidence bounds, where
the error is largest. The faulty procedures at the end show that the sums see a broken guarantee.
"""

from itertools import product

import numpy as np
import pytest
from scipy.special import ndtri

from dualrs.certificates import (
    Certificate,
    VoteRequest,
    certify,
    clopper_pearson_lower,
    dual_certify,
    dual_predict,
    gaussian_radius,
    predict,
)

ROUNDING = 1e-12  # of the summed probabilities
SIGMAS = (0.5, 1.0)
EXPERTS = ("expert-0.5", "expert-1")
DUAL_CLASSES = {"estimator": 2, "expert-0.5": 2, "expert-1": 2}


def beside_the_bounds(n, level):
    """Return probabilities which a bound from n votes overstates with a probability close to the level."""
    return clopper_pearson_lower(np.arange(1, n + 1), n, level) * (1 - 1e-6)


def two_classes(n, level):
    grid = np.concatenate([np.linspace(0, 1, 101), beside_the_bounds(n, level)])
    return [(p, 1 - p) for p in grid]


def simplex(steps, parts):
    """Return all probability vectors whose entries are multiples of 1/steps."""
    return [
        (*head, 1 - sum(head))
        for head in product(np.arange(steps + 1) / steps, repeat=parts - 1)
        if sum(head) <= 1 + 1e-9
    ]


def certificate_is_wrong(tree, p, sigma=0.5):
    """Tell which certificates reach further than the probability of their class allows."""
    return (tree.labels >= 0) & (tree.radii > sigma * ndtri(np.clip(p, 0, 1))[tree.labels])


def prediction_is_wrong(tree, p):
    """Tell which answers are not (one of) the most likely classes."""
    top = np.flatnonzero(np.asarray(p) >= np.max(p) - 1e-12)
    return (tree.labels >= 0) & ~np.isin(tree.labels, top)


def largest_error(tree, worlds, is_wrong):
    return max(tree.probabilities(lambda _, p=p: p)[is_wrong(tree, p)].sum() for p in worlds)


class TestCertify:
    @pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
    def test_two_classes(self, outcome_tree, alpha):
        tree = outcome_tree(lambda: certify(0.5, n0=3, n=20, alpha=alpha), {"classifier": 2})
        error = largest_error(tree, two_classes(20, alpha), certificate_is_wrong)
        assert 0.9 * alpha < error <= alpha + ROUNDING

    def test_three_classes(self, outcome_tree):
        tree = outcome_tree(lambda: certify(0.5, n0=3, n=12, alpha=0.1), {"classifier": 3})
        worlds = simplex(20, 3) + [
            (p, (1 - p) * share, (1 - p) * (1 - share)) for p in beside_the_bounds(12, 0.1) for share in (0.0, 0.3, 0.5)
        ]
        assert 0.09 < largest_error(tree, worlds, certificate_is_wrong) <= 0.1 + ROUNDING

    def test_invalid_votes(self, outcome_tree):
        tree = outcome_tree(lambda: certify(0.5, n0=2, n=10, alpha=0.1), {"classifier": 2}, invalid=True)
        worlds = [p[:2] for p in simplex(20, 3)] + [
            (p, (1 - p) * share) for p in beside_the_bounds(10, 0.1) for share in (0.0, 0.5)
        ]
        assert 0.05 < largest_error(tree, worlds, certificate_is_wrong) <= 0.1 + ROUNDING


class TestPredict:
    @pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
    def test_two_classes(self, outcome_tree, alpha):
        tree = outcome_tree(lambda: predict(0.5, n=20, alpha=alpha), {"classifier": 2})
        error = largest_error(tree, [*two_classes(20, alpha), (0.5 + 1e-9, 0.5 - 1e-9)], prediction_is_wrong)
        assert 0.2 * alpha < error <= alpha + ROUNDING

    def test_three_classes(self, outcome_tree):
        tree = outcome_tree(lambda: predict(0.5, n=16, alpha=0.1), {"classifier": 3})
        nearly_tied = [(0.5 - t / 2 + 1e-9, 0.5 - t / 2 - 1e-9, t) for t in np.linspace(0, 0.3333, 30)]
        three_tied = [(1 / 3 + 2e-9, 1 / 3 - 1e-9, 1 / 3 - 1e-9)]
        worlds = simplex(20, 3) + nearly_tied + three_tied
        assert 0 < largest_error(tree, worlds, prediction_is_wrong) <= 0.1 + ROUNDING

    def test_invalid_votes_are_a_candidate_that_is_never_right(self, outcome_tree):
        tree = outcome_tree(lambda: predict(0.5, n=16, alpha=0.1), {"classifier": 2}, invalid=True)
        for p in simplex(20, 3):
            wrong = prediction_is_wrong(tree, p)  # the third entry, never answered, is the invalid votes
            assert tree.probabilities(lambda _, p=p: p[:2])[wrong].sum() <= 0.1 + ROUNDING


def dual_world(estimator, experts, names=EXPERTS):
    models = {"estimator": estimator, **dict(zip(names, experts, strict=True))}
    return lambda request: models[request.model]


def dual_worlds(grid):
    pairs = [(p, 1 - p) for p in grid]
    for estimator, expert in product(pairs, pairs):
        yield estimator, (expert, expert)
        yield estimator, (expert, (0.999, 0.001))


def dual_is_wrong(tree, estimator, experts, names=EXPERTS, sigma_e=1.0):
    """Tell which certificates record any radius that is too large, or would be for another class."""
    wrong = []
    for certificate in tree.certificates:
        if certificate.sigma is None:
            wrong.append(False)
            continue
        choice = names.index(certificate.expert)
        true_estimator_radius = sigma_e * ndtri(estimator[choice])
        false_claim = certificate.estimator_radius > max(true_estimator_radius, 0)
        if certificate.label is not None:
            true_radius = certificate.sigma * ndtri(experts[choice][certificate.label])
            false_claim |= certificate.classifier_radius > true_radius
            # The claim about the dual classifier itself follows from the two.
            false_claim |= certificate.radius > min(true_estimator_radius, true_radius)
        wrong.append(false_claim)
    return np.array(wrong)


def largest_dual_error(tree, worlds, names=EXPERTS):
    return max(
        tree.probabilities(dual_world(estimator, experts, names))[dual_is_wrong(tree, estimator, experts, names)].sum()
        for estimator, experts in worlds
    )


def adversarial_grid(n, level):
    return np.concatenate([[0.3, 0.5, 0.9], beside_the_bounds(n, level)[n // 2 :]])


class TestDualCertify:
    ALPHA = 0.2

    def test_the_recorded_radii_hold_together(self, outcome_tree):
        tree = outcome_tree(lambda: dual_certify(1.0, SIGMAS, n0=3, n=20, alpha=self.ALPHA), DUAL_CLASSES)
        error = largest_dual_error(tree, dual_worlds(adversarial_grid(20, self.ALPHA / 2)))
        # The two errors add up to more than one stage could make: the sum does see both stages.
        assert self.ALPHA / 2 < error <= self.ALPHA + ROUNDING

    def test_two_experts_at_one_noise_level(self, outcome_tree):
        names = ("wide", "deep")
        tree = outcome_tree(
            lambda: dual_certify(1.0, (0.5, 0.5), n0=3, n=10, alpha=self.ALPHA, experts=names),
            {"estimator": 2, "wide": 2, "deep": 2},
        )
        error = largest_dual_error(tree, dual_worlds(adversarial_grid(10, self.ALPHA / 2)), names)
        assert self.ALPHA / 2 < error <= self.ALPHA + ROUNDING

    def test_invalid_votes_of_the_estimator_and_the_experts(self, outcome_tree):
        tree = outcome_tree(lambda: dual_certify(1.0, SIGMAS, n0=1, n=5, alpha=self.ALPHA), DUAL_CLASSES, invalid=True)
        grid = adversarial_grid(5, self.ALPHA / 2)
        for p, q, valid in product(grid, grid, (0.0, 0.5, 1.0)):
            # The leading class keeps its probability; the others lose votes to no class.
            estimator, expert = (p, (1 - p) * valid), (q, (1 - q) * valid)
            probabilities = tree.probabilities(dual_world(estimator, (expert, expert)))
            wrong = dual_is_wrong(tree, estimator, (expert, expert))
            assert probabilities[wrong].sum() <= self.ALPHA + ROUNDING


class TestDualPredict:
    def test_answers_with_the_label_at_the_noise_level_chosen(self, outcome_tree):
        alpha = 0.2
        tree = outcome_tree(lambda: dual_predict(1.0, SIGMAS, n=12, alpha=alpha), DUAL_CLASSES)
        chosen = np.array([-1 if c.sigma is None else SIGMAS.index(c.sigma) for c in tree.certificates])
        grid = [0.0, 0.2, 0.4, 0.5 - 1e-9, 0.5, 0.5 + 1e-9, 0.7, 0.9, 1.0]
        worst = 0.0
        for p, q, r in product(grid, repeat=3):
            estimator, experts = (p, 1 - p), ((q, 1 - q), (r, 1 - r))
            wrong = np.zeros(len(chosen), dtype=bool)
            for i, expert in enumerate(experts):
                is_top = estimator[i] >= max(estimator) - 1e-12
                wrong |= (chosen == i) & (prediction_is_wrong(tree, expert) | (not is_top))
            wrong &= tree.labels >= 0
            worst = max(worst, tree.probabilities(dual_world(estimator, experts))[wrong].sum())
        assert 0 < worst <= alpha + ROUNDING


class TestTheSumsSeeFaults:
    """Each procedure below has one known fault, and fails more often than it says."""

    def test_estimating_with_the_selection_votes(self, outcome_tree):
        def reusing(n=100, alpha=0.001):
            counts = yield VoteRequest("classifier", 0.5, n)
            return bounded(int(np.argmax(counts)), counts.max(), n, alpha)

        tree = outcome_tree(reusing, {"classifier": 2})
        assert largest_error(tree, [(0.5, 0.5)], certificate_is_wrong) == pytest.approx(1.79e-3, abs=5e-6)
        honest = outcome_tree(lambda: certify(0.5, n0=1, n=100, alpha=0.001), {"classifier": 2})
        assert largest_error(honest, [(0.5, 0.5)], certificate_is_wrong) <= 1e-3

    def test_trying_again_after_an_abstention(self, outcome_tree):
        alpha = 0.055  # 56 / 1024 of all ten votes at 1/2 have eight or more for the selected class

        def retrying():
            first = yield from certify(0.5, n0=1, n=10, alpha=alpha)
            return first if not first.abstained else (yield from certify(0.5, n0=1, n=10, alpha=alpha))

        tree = outcome_tree(retrying, {"classifier": 2})
        assert largest_error(tree, [(0.5, 0.5)], certificate_is_wrong) > 1.9 * alpha

    def test_leaving_invalid_votes_out(self, outcome_tree):
        def forgetting(n=20, alpha=0.1):
            selection = yield VoteRequest("classifier", 0.5, 1)
            counts = yield VoteRequest("classifier", 0.5, n)
            label, valid = int(np.argmax(selection)), int(counts.sum())
            return bounded(label, counts[label], max(valid, 1), alpha)

        tree = outcome_tree(forgetting, {"classifier": 2}, invalid=True)
        assert largest_error(tree, [(0.45, 0.05)], certificate_is_wrong) > 0.5

    def test_spending_alpha_in_both_stages(self, outcome_tree):
        alpha = TestDualCertify.ALPHA
        tree = outcome_tree(lambda: dual_certify(1.0, SIGMAS, n0=3, n=20, alpha=2 * alpha), DUAL_CLASSES)
        assert largest_dual_error(tree, dual_worlds(adversarial_grid(20, alpha))) > 1.3 * alpha

    def test_predicting_without_a_test(self, outcome_tree):
        def guessing(n=20):
            counts = yield VoteRequest("classifier", 0.5, n)
            return Certificate(int(np.argmax(counts)), 0.0, 0.5, 0.1, "guess", ())

        tree = outcome_tree(guessing, {"classifier": 2})
        assert largest_error(tree, [(0.5 - 1e-9, 0.5 + 1e-9)], prediction_is_wrong) > 0.4


def bounded(label, successes, trials, alpha):
    radius = gaussian_radius(clopper_pearson_lower(int(successes), trials, alpha), 0.5)
    return Certificate(label if radius else None, radius, 0.5, alpha, "faulty", ())
