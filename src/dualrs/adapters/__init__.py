"""Smoothed classifiers as other libraries expect them: scikit-learn, the Adversarial Robustness Toolbox, ONNX.

What needs an extra is imported when it is asked for, with an error that names the extra where it is missing.
"""

from typing import TYPE_CHECKING, Any

from dualrs.adapters.export import export_onnx

__all__ = ["ARTSmoothedClassifier", "SmoothedEstimator", "export_onnx"]

if TYPE_CHECKING:
    from dualrs.adapters.estimator import SmoothedEstimator
    from dualrs.adapters.toolbox import ARTSmoothedClassifier


def __getattr__(name: str) -> Any:
    if name == "SmoothedEstimator":
        from dualrs.adapters.estimator import SmoothedEstimator

        return SmoothedEstimator
    if name == "ARTSmoothedClassifier":
        from dualrs.adapters.toolbox import ARTSmoothedClassifier

        return ARTSmoothedClassifier
    raise AttributeError(f"module 'dualrs.adapters' has no attribute {name!r}")
