"""Classifiers that users already have, made into base classifiers: checkpoints, timm, the hub, ONNX, Python, HTTP."""

from dualrs.models.offshelf._checkpoints import CheckpointError
from dualrs.models.offshelf._load import load_classifier

__all__ = ["CheckpointError", "load_classifier"]
