"""The adaptive and the routed certificate: exact failure probabilities, deliberate faults, what is drawn and recorded.

Failure probabilities are summed over every outcome of the votes. A certificate is wrong if its radius exceeds the
one that follows from the true class probabilities, which half-spaces attain.
"""

from functools import cache, partial
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from dualrs.certificates import (
    BudgetExceededError,
    Certificate,
    Goal,
    MixtureSequence,
    Route,
    SpendingSequence,
    adaptive_certify,
    certify,
    clopper_pearson_lower,
    clopper_pearson_upper,
    deadline,
    dual_certify,
    routed_certify,
    run_procedure,
)
from dualrs.certificates import evidence as evidence_module
from dualrs.certificates import routed as routed_module
from dualrs.certificates import sequences as sequences_module
from dualrs.certificates.evidence import Evidence

ROUNDING = 1e-12
SIGMAS = (0.5, 1.0)
CLASSES = {"estimator": 2, "expert-0.5": 2, "expert-1": 2}
GOALS = {
    "full": Goal(),
    "tolerance": Goal(tolerance=0.1),
    "target": Goal(target=0.2),
    "prediction": Goal(target=0.0),
}


@pytest.fixture(scope="module", autouse=True)
def remembered_bounds():
    """An enumeration asks for the same few bounds again and again."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (evidence_module, sequences_module):
            for name in ("clopper_pearson_lower", "clopper_pearson_upper"):
                if hasattr(module, name):
                    patch.setattr(module, name, cache(getattr(module, name)))
        for name in ("margin_radius", "exclusion_radius"):
            for module in (evidence_module, routed_module):
                if hasattr(module, name):
                    patch.setattr(module, name, cache(getattr(module, name)))
        yield


@pytest.fixture
def small_steps(monkeypatch):
    """Looks from two votes on, so that procedures of a few votes have several."""
    monkeypatch.setattr(routed_module, "_FIRST_STEP", 2)
    monkeypatch.setattr(routed_module, "geometric_looks", lambda first, cap: (*range(first, cap, 3), cap))


def quantile(p):
    return ndtri(np.clip(p, 0.0, 1.0))


def true_radius(label, estimator, experts, sigmas=SIGMAS, sigma_e=1.0):
    """The radius that follows from the true probabilities, by the theorems of docs/theory.md."""
    estimator = np.asarray(estimator)
    count = len(sigmas)
    radius = np.inf
    for i, sigma in enumerate(sigmas):
        others = np.delete(estimator, i).max()
        margin = (quantile(others) - quantile(estimator[i])) / 2
        excluded = sigma_e * max(margin, quantile(1 / count) - quantile(1 - np.delete(estimator, i).sum()))
        expert = np.asarray(experts[i])
        rival = np.delete(expert, label).max()
        # Votes for no class take part in no margin.
        agreed = sigma / 2 * (quantile(expert[label]) - quantile(rival))
        radius = min(radius, max(excluded, agreed))
    return radius


def error(tree, estimator, experts, names=("expert-0.5", "expert-1"), **world):
    models = {"estimator": estimator, **dict(zip(names, experts, strict=True))}
    probabilities = tree.probabilities(lambda request: models[request.model])
    radius = {label: true_radius(label, estimator, experts, **world) for label in range(len(experts[0]))}
    wrong = [c.label is not None and c.radius > radius[c.label] for c in tree.certificates]
    return probabilities[np.array(wrong)].sum()


def two_class_worlds(n, level):
    """Worlds at, and just below, the probabilities that a bound reaches: there most outcomes claim too much."""
    edges = clopper_pearson_lower(np.arange(n // 2 + 1, n + 1), n, level) * (1 - 1e-6)
    grid = np.unique(np.concatenate([[0.35, 0.5 - 1e-9, 0.5], edges]))
    pairs = [(p, 1 - p) for p in grid]
    for estimator, first in product(pairs, pairs):
        for second in (first, first[::-1], (0.98, 0.02)):
            yield estimator, (first, second)


def largest_error(tree, worlds, **world):
    return max(error(tree, estimator, experts, **world) for estimator, experts in worlds)


def boldest(make):
    """Whoever watches and then quotes the largest radius that was shown."""
    shown = []
    certificate = yield from make(Goal(watch=shown.append))
    return max([*shown, certificate], key=lambda seen: seen.radius)


class TestAdaptive:
    @pytest.mark.parametrize("goal", GOALS)
    @pytest.mark.parametrize("sequence", ["spending", "mixture"])
    def test_two_classes(self, outcome_tree, small_steps, goal, sequence):
        alpha = 0.2
        tree = outcome_tree(
            lambda: adaptive_certify(0.5, n0=2, n=11, alpha=alpha, goal=GOALS[goal], sequence=sequence),
            {"classifier": 2},
        )
        grid = np.concatenate([np.linspace(0, 1, 41), clopper_pearson_lower(np.arange(1, 12), 11, alpha / 2) - 1e-6])
        errors = [
            tree.probabilities(lambda _, p=p: (p, 1 - p))[
                [c.label is not None and c.radius > 0.5 * quantile((p, 1 - p)[c.label]) for c in tree.certificates]
            ].sum()
            for p in np.clip(grid, 0, 1)
        ]
        assert 0.02 * alpha < max(errors) <= alpha + ROUNDING

    def test_three_classes_need_no_majority_and_no_union_bound_over_rivals(self, outcome_tree):
        alpha = 0.3
        tree = outcome_tree(lambda: adaptive_certify(0.5, n0=2, n=11, alpha=alpha), {"classifier": 3})
        worst = 0.0
        shares = clopper_pearson_lower(np.arange(1, 12), 11, 0.8 * alpha) - 1e-6
        for p in [*np.linspace(0.05, 0.95, 10), *shares]:
            for split in (0.5, 0.7, 1.0):
                world = (p, (1 - p) * split, (1 - p) * (1 - split))
                wrong = [
                    c.label is not None
                    and c.radius > 0.25 * (quantile(world[c.label]) - quantile(max(np.delete(world, c.label))))
                    for c in tree.certificates
                ]
                worst = max(worst, tree.probabilities(lambda _, w=world: w)[wrong].sum())
        assert 0.2 * alpha < worst <= alpha + ROUNDING

    def test_the_bound_on_the_rival_adds_to_the_radius(self):
        def answer(request):
            return np.array([request.count * share // 100 for share in (45, 25, 20, 10)])

        assert run_procedure(certify(1.0), answer).abstained
        certificate = run_procedure(adaptive_certify(1.0), answer)
        assert certificate.label == 0
        expected = (
            ndtri(clopper_pearson_lower(4500, 10_000, 0.0008)) - ndtri(clopper_pearson_upper(2500, 10_000, 0.0002))
        ) / 2
        assert certificate.radius == pytest.approx(expected, abs=1e-9)
        assert certificate.radius <= expected


class TestRoutedCoverage:
    ALPHA = 0.3

    @pytest.mark.parametrize("goal", GOALS)
    def test_two_noise_levels(self, outcome_tree, small_steps, goal):
        tree = outcome_tree(lambda: routed_certify(1.0, SIGMAS, n0=1, n=6, alpha=self.ALPHA, goal=GOALS[goal]), CLASSES)
        worst = largest_error(tree, two_class_worlds(6, self.ALPHA))
        assert 0.1 * self.ALPHA < worst <= self.ALPHA + ROUNDING

    def test_all_that_are_shown_hold_together(self, outcome_tree, small_steps):
        make = partial(routed_certify, 1.0, SIGMAS, n0=1, n=6, alpha=self.ALPHA)
        tree = outcome_tree(lambda: boldest(lambda goal: make(goal=goal)), CLASSES)
        last = outcome_tree(lambda: make(goal=Goal(watch=lambda _: None)), CLASSES)
        worlds = list(two_class_worlds(6, self.ALPHA))
        worst = largest_error(tree, worlds)
        assert 0.05 * self.ALPHA < worst <= self.ALPHA + ROUNDING
        assert worst >= largest_error(last, worlds)
        alone = outcome_tree(
            lambda: boldest(lambda goal: adaptive_certify(0.5, n0=1, n=11, alpha=self.ALPHA, goal=goal)),
            {"classifier": 2},
        )
        for p in clopper_pearson_lower(np.arange(1, 12), 11, self.ALPHA) - 1e-6:
            radii = 0.5 * quantile((p, 1 - p))
            wrong = [c.label is not None and c.radius > radii[c.label] for c in alone.certificates]
            assert alone.probabilities(lambda _, p=p: (p, 1 - p))[wrong].sum() <= self.ALPHA + ROUNDING

    def test_two_experts_at_one_noise_level(self, outcome_tree):
        pool = {"sigmas": (0.5, 0.5), "experts": ("wide", "deep")}
        tree = outcome_tree(
            lambda: routed_certify(1.0, n0=1, n=6, alpha=self.ALPHA, **pool), {"estimator": 2, "wide": 2, "deep": 2}
        )
        world = {"sigmas": pool["sigmas"], "names": pool["experts"]}
        worst = largest_error(tree, two_class_worlds(6, self.ALPHA), **world)
        assert 0.1 * self.ALPHA < worst <= self.ALPHA + ROUNDING
        # The sums tell the two apart: their order is that of the classes of the estimator.
        split = (0.9, 0.1), ((0.9, 0.1), (0.1, 0.9))
        swapped = {**world, "names": ("deep", "wide")}
        assert error(tree, *split, **swapped) > self.ALPHA > error(tree, *split, **world)

    def test_mixture(self, outcome_tree, small_steps):
        make = lambda: routed_certify(1.0, SIGMAS, n0=1, n=6, alpha=self.ALPHA, sequence="mixture")  # noqa: E731
        tree = outcome_tree(make, CLASSES)
        assert largest_error(tree, two_class_worlds(6, self.ALPHA)) <= self.ALPHA + ROUNDING

    def test_votes_for_no_class_count_against_every_claim(self, outcome_tree):
        make = lambda: routed_certify(1.0, SIGMAS, n0=1, n=4, alpha=self.ALPHA)  # noqa: E731
        tree = outcome_tree(make, CLASSES, invalid=True)
        grid = [0.3, 0.5, *(clopper_pearson_lower(np.arange(2, 5), 4, self.ALPHA) - 1e-6)]
        for p, q, valid in product(grid, grid, (0.0, 0.5)):
            estimator, expert = (p, (1 - p) * valid), (q, (1 - q) * valid)
            assert error(tree, estimator, (expert, expert)) <= self.ALPHA + ROUNDING

    def test_three_noise_levels(self, outcome_tree):
        sigmas = (0.25, 0.5, 1.0)
        names = {"estimator": 3, "expert-0.25": 2, "expert-0.5": 2, "expert-1": 2}
        tree = outcome_tree(lambda: routed_certify(1.0, sigmas, n0=1, n=5, alpha=self.ALPHA), names)
        edges = [*(clopper_pearson_lower(np.arange(3, 6), 5, 0.45 * self.ALPHA) - 1e-6), 0.4]
        worst = 0.0
        for p, split, q in product(edges, (0.5, 1.0), [*edges, 0.97]):
            estimator = (p, (1 - p) * split, (1 - p) * (1 - split))
            experts = ((q, 1 - q), (q, 1 - q), (0.97, 0.03))
            models = dict(zip(names, (estimator, *experts), strict=True))
            probabilities = tree.probabilities(lambda request, models=models: models[request.model])
            radius = [true_radius(label, estimator, experts, sigmas) for label in (0, 1)]
            wrong = [c.label is not None and c.radius > radius[c.label] for c in tree.certificates]
            worst = max(worst, probabilities[wrong].sum())
        assert 0.1 * self.ALPHA < worst <= self.ALPHA + ROUNDING


class TestFaultsAreSeen:
    """Each test makes the procedure wrong in one way, and the exact sum exceeds the failure probability."""

    ALPHA = 0.2

    def test_reusing_the_selection_votes(self, outcome_tree, monkeypatch):
        class Reusing(evidence_module.Votes):
            def draw(self):
                if self.pilot is not None:
                    self.trials = self.pilot.trials  # as if they had been drawn for the claim
                yield from super().draw()
                if self.pilot is not None:
                    self.counts = self.counts + np.array(self.pilot.counts)

        monkeypatch.setattr(routed_module, "Votes", Reusing)
        tree = outcome_tree(lambda: routed_certify(1.0, SIGMAS, n0=4, n=6, alpha=self.ALPHA), CLASSES)
        fair = (0.5, 0.5)
        assert error(tree, (0.999, 0.001), (fair, fair)) > 1.02 * self.ALPHA

    def test_peeking_with_bounds_of_fixed_length(self, outcome_tree, monkeypatch, small_steps):
        class Peeking(SpendingSequence):
            def _lower(self, k, t):
                return clopper_pearson_lower(k, t, self.level)

        monkeypatch.setattr(
            routed_module, "make_sequence", lambda _, looks, level, *share: Peeking(looks, level, *share)
        )
        tree = outcome_tree(
            lambda: adaptive_certify(0.5, n0=1, n=11, alpha=self.ALPHA, goal=Goal(target=0.0)), {"classifier": 2}
        )
        labels = np.array([-1 if c.label is None else c.label for c in tree.certificates])
        wrong = tree.probabilities(lambda _: (0.5 - 1e-9, 0.5 + 1e-9))[labels == 0].sum()
        # The label was selected half of the time, and what is selected is proved too often.
        assert wrong / 0.5 > 1.2 * self.ALPHA

    def test_spending_alpha_twice(self, outcome_tree, monkeypatch):
        class Generous(routed_module.FailureBudget):
            def spend(self, name, level):
                return level

        monkeypatch.setattr(routed_module, "_EXCLUSION", 0.999)
        plain = routed_module._Plan.agreement
        monkeypatch.setattr(
            routed_module._Plan,
            "agreement",
            lambda self, votes, label, budget, share: plain(self, votes, label, budget, 1.0),
        )
        with pytest.raises(BudgetExceededError, match="agreement"):
            run_procedure(
                routed_certify(1.0, SIGMAS, n0=1, n=6, alpha=self.ALPHA),
                lambda request: np.array([request.count, 0]),
            )
        monkeypatch.setattr(routed_module, "FailureBudget", Generous)
        # Candidate 1 can be let pass for either reason, and each is just false.
        edge = clopper_pearson_lower(5, 6, self.ALPHA) * (1 - 1e-6)
        world = (edge, 1 - edge), ((0.9999, 0.0001), (edge, 1 - edge))
        tree = outcome_tree(lambda: routed_certify(1.0, SIGMAS, n0=4, n=6, alpha=self.ALPHA), CLASSES)
        assert error(tree, *world) > 1.05 * self.ALPHA

    def test_a_radius_rounded_up(self, outcome_tree, monkeypatch):
        proved = Evidence.proved
        monkeypatch.setattr(Evidence, "proved", lambda self: float(np.ceil(10 * proved(self)) / 10))
        tree = outcome_tree(lambda: adaptive_certify(0.5, n0=1, n=30, alpha=self.ALPHA), {"classifier": 2})
        p = ndtr(0.0999 / 0.5)
        wrong = np.array([c.label == 0 and c.radius > 0.0999 for c in tree.certificates])
        assert tree.probabilities(lambda _: (p, 1 - p))[wrong].sum() / p > 1.5 * self.ALPHA

    def test_the_radius_of_an_expert_for_another_label(self, outcome_tree, monkeypatch):
        def for_its_own_label(self, counts, trials):
            return pair(
                self, counts if self._rival is not None else np.sort(counts)[:: 1 - 2 * self._winner][::-1], trials
            )

        pair = Evidence._pair
        monkeypatch.setattr(Evidence, "_pair", for_its_own_label)
        tree = outcome_tree(lambda: routed_certify(1.0, SIGMAS, n0=1, n=6, alpha=self.ALPHA), CLASSES)
        assert error(tree, (0.6, 0.4), ((0.99, 0.01), (0.01, 0.99))) > 2 * self.ALPHA


def shares_of(**models):
    """Answers every request with the given shares of the votes, to the nearest below."""

    def answer(request):
        return np.array(
            [int(request.count * share + 1e-9) for share in models[request.model.replace("-", "_").replace(".", "")]]
        )

    return answer


SURE = {"estimator": (0.0, 1.0, 0.0), "expert_025": (0.9, 0.1), "expert_05": (0.96, 0.04), "expert_1": (0.1, 0.9)}
SPLIT = {**SURE, "estimator": (0.5, 0.5, 0.0)}
LEVELS = (0.25, 0.5, 1.0)


class TestRouted:
    def test_a_sure_estimator_costs_few_votes(self):
        certificate = run_procedure(routed_certify(1.0, LEVELS), shares_of(**SURE))
        assert (certificate.label, certificate.sigma, certificate.rule) == (0, 0.5, "routed")
        assert [stage.name for stage in certificate.stages] == [
            "estimator/selection",
            "classifier/selection",
            "classifier/estimation",
            "estimator/estimation",
        ]
        assert certificate.stages[3].trials < 500
        assert certificate.radius == certificate.classifier_radius == certificate.routes[1].agreement_radius
        assert certificate.radius > run_procedure(dual_certify(1.0, LEVELS), shares_of(**SURE)).radius

    def test_a_split_estimator_certifies_where_the_experts_agree(self):
        assert run_procedure(dual_certify(1.0, LEVELS), shares_of(**SPLIT)).abstained
        certificate = run_procedure(routed_certify(1.0, LEVELS), shares_of(**SPLIT))
        assert certificate.label == 0
        assert certificate.radius > 0.3
        assert certificate.routes[2].agreement_radius is None  # excluded, so nobody asked its expert

    def test_a_split_estimator_abstains_where_the_experts_disagree(self):
        split = {**SPLIT, "estimator": (0.0, 0.5, 0.5)}
        assert run_procedure(routed_certify(1.0, LEVELS), shares_of(**split)).abstained

    def test_the_radius_is_that_of_the_weakest_route(self):
        certificate = run_procedure(routed_certify(1.0, LEVELS), shares_of(**SPLIT))
        assert certificate.radius == min(route.radius for route in certificate.routes)
        assert Certificate.from_dict(certificate.to_dict()) == certificate
        with pytest.raises(ValueError, match="beyond the weakest"):
            Certificate(0, 0.5, 0.5, 0.001, "routed", (), routes=(Route(0.5, 0.1, 0.2),))

    def test_the_bounds_can_be_recomputed_from_the_record(self):
        certificate = run_procedure(routed_certify(1.0, LEVELS, alpha=0.001), shares_of(**SURE))
        estimation = certificate.stages[2]
        assert certificate.routes[1].agreement_radius == pytest.approx(
            0.5 * ndtri(clopper_pearson_lower(estimation.counts[0], estimation.trials, 0.001))
        )

    def test_experts_at_one_noise_level_vote_each_for_themselves(self):
        worlds = {"estimator": (0.5, 0.5), "wide": (0.96, 0.04), "deep": (0.9, 0.1)}
        make = partial(routed_certify, 1.0, (0.5, 0.5), experts=("wide", "deep"))
        certificate = run_procedure(make(), shares_of(**worlds))
        assert (certificate.expert, certificate.sigma) == ("wide", 0.5)
        assert [route.expert for route in certificate.routes] == ["wide", "deep"]
        assert certificate.radius == certificate.routes[1].agreement_radius < certificate.classifier_radius
        assert [stage.model for stage in certificate.stages] == ["estimator", "wide", "wide", "deep"]
        assert run_procedure(make(), shares_of(**{**worlds, "deep": (0.1, 0.9)})).abstained

    @pytest.mark.parametrize("world", [SURE, SPLIT])
    def test_goals_cost_less_and_lose_little(self, world):
        full = run_procedure(routed_certify(1.0, LEVELS), shares_of(**world))
        close = run_procedure(routed_certify(1.0, LEVELS, goal=Goal(tolerance=0.05)), shares_of(**world))
        decided = run_procedure(routed_certify(1.0, LEVELS, goal=Goal(target=0.25)), shares_of(**world))
        assert max(decided.samples, close.samples) < full.samples
        assert full.radius - 0.06 < close.radius <= full.radius
        assert decided.radius > 0.25

    def test_a_target_out_of_reach_is_given_up_soon(self):
        certificate = run_procedure(routed_certify(1.0, LEVELS, goal=Goal(target=1.5)), shares_of(**SURE))
        assert certificate.samples < 1000
        assert 0 <= certificate.radius < 1.5

    def test_out_of_time(self):
        answers = iter([False, False, True])
        goal = Goal(out_of_time=lambda: next(answers))
        certificate = run_procedure(routed_certify(1.0, LEVELS, goal=goal), shares_of(**SURE))
        assert certificate.samples < 500
        assert deadline(1e-9)()
        assert not deadline(1000)()

    @pytest.mark.parametrize("make", [partial(routed_certify, 1.0, LEVELS), partial(adaptive_certify, 0.5)])
    def test_who_watches_sees_the_certificate_grow_and_may_take_it(self, make):
        shares = shares_of(**SURE, classifier=(0.98, 0.02))
        shown = []
        certificate = run_procedure(make(goal=Goal(watch=shown.append)), shares)
        assert shown[-1] == certificate
        assert len({seen.radius for seen in shown}) > 5
        assert [seen.samples for seen in shown] == sorted(seen.samples for seen in shown)
        assert certificate.radius < run_procedure(make(), shares).radius  # which looks once
        enough = run_procedure(make(goal=Goal(watch=lambda seen: seen.radius > 0.2)), shares)
        assert enough == next(seen for seen in shown if seen.radius > 0.2)

    def test_nothing_is_claimed_without_selection_votes_for_a_class(self):
        silent = {**SURE, "estimator": (0.0, 0.0, 0.0)}
        certificate = run_procedure(routed_certify(1.0, LEVELS), shares_of(**silent))
        assert certificate.abstained
        assert certificate.sigma is None
        silent = {**SURE, "expert_05": (0.0, 0.0)}
        assert run_procedure(routed_certify(1.0, LEVELS), shares_of(**silent)).abstained
        assert run_procedure(adaptive_certify(0.5, model="expert-0.5"), shares_of(**silent)).abstained

    @pytest.mark.parametrize("goal", GOALS)
    def test_votes_for_no_class_are_counted_for_every_rival(self, goal):
        some = {"estimator": (0.7, 0.1), "expert_05": (0.7, 0.1, 0.0), "expert_1": (0.2, 0.6, 0.0)}
        all_ = {"estimator": (0.7, 0.3), "expert_05": (0.7, 0.3, 0.0), "expert_1": (0.4, 0.6, 0.0)}
        found, expected = (
            run_procedure(routed_certify(1.0, SIGMAS, goal=GOALS[goal]), shares_of(**world)) for world in (some, all_)
        )
        assert found.routes == expected.routes
        assert found.radius == expected.radius > 0

    @given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(GOALS)), st.sampled_from(["spending", "mixture"]))
    def test_any_votes_give_a_consistent_certificate(self, seed, goal, sequence):
        rng = np.random.default_rng(seed)
        models = {name: rng.dirichlet(np.full(3, 0.4)) for name in ("estimator", *map("expert-{:g}".format, LEVELS))}
        certificate = run_procedure(
            routed_certify(1.0, LEVELS, n=2000, goal=GOALS[goal], sequence=sequence),
            lambda request: rng.multinomial(request.count, models[request.model]),
        )
        assert certificate.abstained == (certificate.radius == 0)
        assert certificate.radius == min(route.radius for route in certificate.routes)
        assert certificate.samples <= 4 * 2000 + 200

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"n": 3}, "use n >="),
            ({"alpha": 0.0}, "alpha is a failure probability"),
            ({"sequence": "peeking"}, "sequence must be one of spending, mixture"),
            ({"sigmas": (1.0, 0.5)}, "in ascending order"),
            ({"sigmas": (0.5, 0.5, 1.0)}, "name the experts yourself"),
            ({"sigma_e": -1.0}, "sigma_e must be positive"),
            ({"experts": ("one",)}, "one per noise level"),
        ],
    )
    def test_refuses_impossible_arguments_when_called(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            routed_certify(**{"sigma_e": 1.0, "sigmas": LEVELS, **arguments})

    def test_refuses_impossible_goals(self):
        with pytest.raises(ValueError, match="tolerance must be finite and at least 0"):
            Goal(tolerance=-0.1)
        with pytest.raises(ValueError, match="target must be finite and at least 0"):
            Goal(target=float("nan"))
        with pytest.raises(ValueError, match="seconds must be positive"):
            deadline(0)


def test_the_kinds_of_sequence_are_what_they_say():
    assert MixtureSequence((10,), 0.1).level == SpendingSequence((10,), 0.1).level
