"""Certificates that look while they sample, for one expert and for many.

The theorems are proved in docs/theory.md. In short: the estimator's votes exclude a candidate within a
radius `X_i`, an expert's votes hold the label within `R_i`, and around x' the dual classifier answers the
label wherever `||x' - x|| < min_i max(X_i, R_i)`. A certificate that is wrong is wrong at some fixed x',
where one candidate is chosen and one rival class answered: only the bounds on these two have to hold
together. So every candidate, and every rival class, has the whole failure probability for itself.
"""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np

from dualrs.certificates._arguments import failure_probability, positive
from dualrs.certificates.budget import FailureBudget
from dualrs.certificates.certificate import Certificate, Procedure, VoteRequest
from dualrs.certificates.evidence import Evidence, Levels, Votes
from dualrs.certificates.margins import exclusion_radius
from dualrs.certificates.procedures import candidates
from dualrs.certificates.race import Goal, Way, draw
from dualrs.certificates.sequences import ConfidenceSequence, SequenceName, geometric_looks, make_sequence
from dualrs.certificates.stages import check_certify_votes, poll

# How alpha is divided where two bounds have to hold together. A radius changes with the root of the logarithm of
# a share, so no division is far from the best: benchmarks/replay.py measures that.
_WINNER = 0.8  # of an expert's level, for its label; the rest for the strongest rival
_EXCLUSION = 0.75  # of alpha, for excluding a candidate; the rest for the agreement of its expert
_TOP = 0.85  # of an exclusion's level, for the candidate chosen instead; the rest for the excluded one
# Of a bound's level, for its last look. In full, the bound at the cap counts: the product of the three shares is above
# the 1/2 that the min rule has for its estimator.
_FINAL, _FINAL_IN_FULL = 0.5, 0.8

# Once the selected expert has had all its votes, the gain, in units of sigma_e, that is not worth a cap of others.
_SLACK = 0.06

_FIRST_STEP = 50


def adaptive_certify(
    sigma: float,
    *,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 0.001,
    goal: Goal | None = None,
    sequence: SequenceName = "spending",
    model: str = "classifier",
) -> Procedure:
    """Certify the smoothed classifier at x: label and radius are right with probability at least `1 - alpha`.

    CERTIFY of Cohen et al. 2019 with two changes. The radius is `sigma / 2 (Phi^-1(p_A) - Phi^-1(p_B))` with
    a bound on the strongest rival too (docs/theory.md, Theorem 2), so it does not take a majority. And
    sampling stops when the goal is reached.

    Args:
        sigma: Standard deviation of the noise in the units of the input, positive and finite.
        n0: Selection votes, at least 1.
        n: The most estimation votes; enough that a unanimous vote certifies something.
        alpha: Failure probability, in (0, 1).
        goal: When to stop; None spends the cap, for the largest radius.
        sequence: The kind of bounds, see `make_sequence`.
        model: Name of the base classifier in the requests.

    Returns:
        The procedure; its certificate has rule "adaptive".

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside of its range, or `n` too small for `alpha`. Raised by this
            call. The running procedure raises it for an answer that is not a vote count.
    """
    sigma, plan = positive("sigma", sigma), _plan(n0, n, alpha, goal, sequence)
    return _adaptive(sigma, model, plan)


def routed_certify(
    sigma_e: float,
    sigmas: Sequence[float],
    *,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 0.001,
    goal: Goal | None = None,
    sequence: SequenceName = "spending",
    estimator: str = "estimator",
    experts: Sequence[str] | None = None,
) -> Procedure:
    """Certify the dual classifier at x: label and radius are right with probability at least `1 - alpha`.

    The routed certificate `min_i max(X_i, R_i)` (docs/theory.md, Corollary 8): `n0` votes of the
    estimator select the likely candidate, `n0` of its expert the label. Then the candidate with the smallest
    radius gets votes, of the estimator or of its expert, until the goal is reached. No choice has to be
    certain: the radius is positive wherever the experts that may be chosen agree.

    Args:
        sigma_e: Noise level of the estimator, positive and finite.
        sigmas: Noise levels of the candidates, ascending. Class i of the estimator is the i-th of them.
        n0: Selection votes of each of the two stages, at least 1.
        n: The most estimation votes of each model; enough that a unanimous vote certifies something.
        alpha: Failure probability of the certificate, in (0, 1).
        goal: When to stop; None spends the cap on the selected expert, for the largest radius.
        sequence: The kind of bounds, see `make_sequence`.
        estimator: Name of the variance estimator in the requests.
        experts: Distinct names of the candidates' classifiers; `expert_name(sigma)` if None, so where
            several share a noise level they must be named.

    Returns:
        The procedure; its certificate has rule "routed" and a route for each candidate.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is outside of its range, or `n` too small for `alpha`. Raised by this
            call. The running procedure raises it for an answer that is not a vote count, or not one per
            candidate.
    """
    sigma_e, plan = positive("sigma_e", sigma_e), _plan(n0, n, alpha, goal, sequence)
    levels, names = candidates(sigmas, experts)
    return _routed(sigma_e, levels, plan, estimator, names)


def _adaptive(sigma: float, model: str, plan: "_Plan") -> Procedure:
    pilot = yield from poll("selection", VoteRequest(model, sigma, plan.n0), None, None)
    if not any(pilot.counts):
        return Certificate(None, 0.0, sigma, plan.alpha, "adaptive", (pilot,), expert=model)
    votes = Votes("estimation", model, sigma, plan.selected_steps, len(pilot.counts), pilot)
    label = int(np.argmax(pilot.counts))
    way = Way(sigma, plan.agreement(votes, label, FailureBudget(plan.alpha), 1.0))

    def conclude() -> Certificate:
        radius, stages = way.proved(), (pilot, *way.agreement.record())
        return Certificate(label if radius > 0 else None, radius, sigma, plan.alpha, "adaptive", stages, expert=model)

    return (yield from draw([way], plan.goal, conclude))


def _routed(
    sigma_e: float, sigmas: tuple[float, ...], plan: "_Plan", estimator: str, experts: tuple[str, ...]
) -> Procedure:
    choice = yield from poll("estimator/selection", VoteRequest(estimator, sigma_e, plan.n0), None, len(sigmas))
    if not any(choice.counts):
        return Certificate(None, 0.0, None, plan.alpha, "routed", (choice,))
    top = int(np.argmax(choice.counts))
    pilot = yield from poll("classifier/selection", VoteRequest(experts[top], sigmas[top], plan.n0), None, None)
    if not any(pilot.counts):
        return Certificate(None, 0.0, sigmas[top], plan.alpha, "routed", (choice, pilot), expert=experts[top])
    label, classes = int(np.argmax(pilot.counts)), len(pilot.counts)

    # What is claimed, and at which level, depends on the selection votes alone, which no claim rests on.
    choosing = Votes("estimator/estimation", estimator, sigma_e, plan.steps, len(sigmas), choice)
    selected = Votes("classifier/estimation", experts[top], sigmas[top], plan.selected_steps, classes, pilot)
    ways = {top: Way(sigmas[top], plan.agreement(selected, label, FailureBudget(plan.alpha), 1.0))}
    for i, (sigma, expert) in enumerate(zip(sigmas, experts, strict=True)):
        if i != top:
            budget = FailureBudget(plan.alpha)
            exclusion = plan.exclusion(choosing, top, i, budget, _EXCLUSION)
            votes = Votes(f"{expert}/agreement", expert, sigma, plan.steps, classes)
            ways[i] = Way(sigma, plan.agreement(votes, label, budget, 1.0 - _EXCLUSION), exclusion)

    def conclude() -> Certificate:
        routes = tuple(ways[i].route() for i in range(len(sigmas)))
        radius = min(way.proved() for way in ways.values())
        # The estimator's votes are one stage, whichever candidate they are read for.
        proofs = {
            (evidence.votes.stage, evidence.votes.sigma): evidence.record()
            for way in ways.values()
            for evidence in way.evidence
        }
        return Certificate(
            label if radius > 0 else None,
            radius,
            sigmas[top],
            plan.alpha,
            "routed",
            (choice, pilot, *chain.from_iterable(proofs.values())),
            estimator_radius=min((route.exclusion_radius for i, route in enumerate(routes) if i != top), default=None),
            classifier_radius=routes[top].agreement_radius,
            routes=routes,
            expert=experts[top],
        )

    return (yield from draw(list(ways.values()), plan.goal, conclude, _SLACK * sigma_e))


class _Plan(NamedTuple):
    """What is fixed before the first vote."""

    n0: int
    n: int
    alpha: float
    goal: Goal
    sequence: SequenceName

    @property
    def steps(self) -> tuple[int, ...]:
        return geometric_looks(_FIRST_STEP, self.n)

    @property
    def selected_steps(self) -> tuple[int, ...]:
        """Where the cap is spent in any case, the one bound of fixed length is the tightest."""
        return (self.n,) if self.goal.full else self.steps

    def agreement(self, votes: Votes, label: int, budget: FailureBudget, share: float) -> Evidence:
        """Claim that the votes' model answers the label, for a share of the budget."""
        level = share * self.alpha
        winner = level if votes.classes == 2 else _WINNER * level  # of two classes one bound says it all
        evidence = Evidence(votes, label, _spend(budget, "agreement", winner, level), self._sequence)
        if self.goal.tolerance and votes.pilot is not None:
            evidence.plan(self.goal.tolerance)
        return evidence

    def exclusion(self, votes: Votes, top: int, candidate: int, budget: FailureBudget, share: float) -> Evidence:
        """Claim that the estimator does not choose the candidate, for a share of the budget."""
        level = share * self.alpha
        winner = 0.0 if votes.classes == 2 else _TOP * level
        radius = partial(exclusion_radius, candidates=votes.classes, sigma=votes.sigma)
        levels = _spend(budget, "exclusion", winner, level)
        return Evidence(votes, top, levels, self._sequence, rival=candidate, radius=radius)

    def _sequence(self, looks: tuple[int, ...], level: float) -> ConfidenceSequence:
        return make_sequence(self.sequence, looks, level, _FINAL_IN_FULL if self.goal.full else _FINAL)


def _spend(budget: FailureBudget, claim: str, winner: float, level: float) -> Levels:
    """Reserve a level, one part of it for the bound on the winner and what remains for the rival's."""
    parts = {"winner": winner, "rival": level - winner}
    return Levels(**{who: budget.spend(f"{claim}/{who}", part) if part > 0 else 0.0 for who, part in parts.items()})


def _plan(n0: int, n: int, alpha: float, goal: Goal | None, sequence: SequenceName) -> _Plan:
    plan = _Plan(n0, n, failure_probability("alpha", alpha), goal or Goal(), sequence)
    make_sequence(sequence, (1,), alpha)  # refuses an unknown name
    check_certify_votes(n0, n, _WINNER * alpha * (1 if plan.goal.full else _FINAL))
    return plan
