"""The mathematics: exact bounds, certified radii, the failure budget, and the certification procedures.

Nothing in here knows a network: a procedure asks for votes and gets counts, so every guarantee is
tested by summing over all outcomes of the votes.
"""

from dualrs.certificates.binomial import (
    clopper_pearson_lower,
    clopper_pearson_upper,
    two_sided_binomial_p_value,
)
from dualrs.certificates.budget import BudgetExceededError, FailureBudget
from dualrs.certificates.certificate import Certificate, Procedure, Route, StageCounts, VoteRequest, run_procedure
from dualrs.certificates.gaussian import gaussian_probability, gaussian_radius, max_radius
from dualrs.certificates.margins import exclusion_radius, margin_radius
from dualrs.certificates.procedures import certify, dual_certify, dual_predict, expert_name, predict, tally
from dualrs.certificates.race import Goal, Watch, deadline
from dualrs.certificates.routed import adaptive_certify, routed_certify
from dualrs.certificates.sequences import (
    ConfidenceSequence,
    MixtureSequence,
    SequenceName,
    SpendingSequence,
    geometric_looks,
    make_sequence,
)

__all__ = [
    "BudgetExceededError",
    "Certificate",
    "ConfidenceSequence",
    "FailureBudget",
    "Goal",
    "MixtureSequence",
    "Procedure",
    "Route",
    "SequenceName",
    "SpendingSequence",
    "StageCounts",
    "VoteRequest",
    "Watch",
    "adaptive_certify",
    "certify",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "deadline",
    "dual_certify",
    "dual_predict",
    "exclusion_radius",
    "expert_name",
    "gaussian_probability",
    "gaussian_radius",
    "geometric_looks",
    "make_sequence",
    "margin_radius",
    "max_radius",
    "predict",
    "routed_certify",
    "run_procedure",
    "tally",
    "two_sided_binomial_p_value",
]
