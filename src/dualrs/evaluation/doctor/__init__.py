"""An examination of a model before long runs: how fast it votes, what it can certify, whether it can see.

Every finding says what was measured and what to do about it; nothing that is found is an error.
"""

from dualrs.evaluation.doctor._diagnose import diagnose
from dualrs.evaluation.doctor._figures import Diagnosis, Finding
from dualrs.evaluation.doctor._rendering import render

__all__ = ["Diagnosis", "Finding", "diagnose", "render"]
