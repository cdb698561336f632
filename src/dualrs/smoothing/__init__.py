"""Smoothed classifiers: what most users import."""

from dualrs.smoothing.base import CLASSIFIER, ESTIMATOR, Smoothed
from dualrs.smoothing.dual import DualSmoothedClassifier
from dualrs.smoothing.experts import Expert
from dualrs.smoothing.loading import load
from dualrs.smoothing.options import STOPPING, USUAL, CertifyOptions, Execution, FixedOptions
from dualrs.smoothing.single import SmoothedClassifier

__all__ = [
    "CLASSIFIER",
    "ESTIMATOR",
    "STOPPING",
    "USUAL",
    "CertifyOptions",
    "DualSmoothedClassifier",
    "Execution",
    "Expert",
    "FixedOptions",
    "Smoothed",
    "SmoothedClassifier",
    "load",
]
