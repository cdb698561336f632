"""What a results table says, and how far chance may have moved it; docs/metrics.md defines every figure.

Every figure is a mean over all inputs. An abstention and a wrong label count as radius 0, and a radius is
reached only by a strictly larger one, so at r = 0 an abstention counts as wrong.
"""

from dualrs.evaluation.metrics._averages import (
    abstention_rate,
    average_certified_radius,
    average_intervals,
    clean_accuracy,
    samples_per_input,
    seconds_per_input,
)
from dualrs.evaluation.metrics._certified import (
    STANDARD_RADII,
    Simultaneous,
    certified_accuracy,
    certified_accuracy_interval,
    radius_key,
    simultaneous_accuracy,
)
from dualrs.evaluation.metrics._choice import (
    choice_intervals,
    choice_loss,
    choice_slack,
    estimator_abstention_rate,
    estimator_limited_share,
    expert_shares,
    sigma_shares,
)
from dualrs.evaluation.metrics._intervals import (
    Interval,
    confidence_interval,
    mean_interval,
    most_wrong,
    paired_interval,
    ratio_interval,
)
from dualrs.evaluation.metrics._oracle import RealisedGain, dual_to_oracle, realised_gain
from dualrs.evaluation.metrics._rows import by_slices, methods_of
from dualrs.evaluation.metrics._summary import summarize
from dualrs.evaluation.metrics._votes import true_class_votes

__all__ = [
    "STANDARD_RADII",
    "Interval",
    "RealisedGain",
    "Simultaneous",
    "abstention_rate",
    "average_certified_radius",
    "average_intervals",
    "by_slices",
    "certified_accuracy",
    "certified_accuracy_interval",
    "choice_intervals",
    "choice_loss",
    "choice_slack",
    "clean_accuracy",
    "confidence_interval",
    "dual_to_oracle",
    "estimator_abstention_rate",
    "estimator_limited_share",
    "expert_shares",
    "mean_interval",
    "methods_of",
    "most_wrong",
    "paired_interval",
    "radius_key",
    "ratio_interval",
    "realised_gain",
    "samples_per_input",
    "seconds_per_input",
    "sigma_shares",
    "simultaneous_accuracy",
    "summarize",
    "true_class_votes",
]
