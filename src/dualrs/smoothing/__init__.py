"""Smoothed classifiers: what most users import."""

from dualrs.smoothing.base import CLASSIFIER, ESTIMATOR, Smoothed
from dualrs.smoothing.dual import DualSmoothedClassifier, Rule
from dualrs.smoothing.loading import load
from dualrs.smoothing.single import SmoothedClassifier

__all__ = ["CLASSIFIER", "ESTIMATOR", "DualSmoothedClassifier", "Rule", "Smoothed", "SmoothedClassifier", "load"]
