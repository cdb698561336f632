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
from dualrs.certificates.certificate import Certificate, Procedure, StageCounts, VoteRequest, run_procedure
from dualrs.certificates.gaussian import gaussian_probability, gaussian_radius, max_radius
from dualrs.certificates.procedures import certify, dual_certify, dual_predict, expert_name, predict

__all__ = [
    "BudgetExceededError",
    "Certificate",
    "FailureBudget",
    "Procedure",
    "StageCounts",
    "VoteRequest",
    "certify",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "dual_certify",
    "dual_predict",
    "expert_name",
    "gaussian_probability",
    "gaussian_radius",
    "max_radius",
    "predict",
    "run_procedure",
    "two_sided_binomial_p_value",
]
