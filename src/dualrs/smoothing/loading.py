"""Smoothed classifiers from saved bundles."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Unpack

from dualrs.models import find_bundle, load_bundle
from dualrs.smoothing.base import ESTIMATOR
from dualrs.smoothing.dual import DualSmoothedClassifier
from dualrs.smoothing.options import Execution
from dualrs.smoothing.single import SmoothedClassifier


def load(folder: str | Path, **execution: Unpack[Execution]) -> SmoothedClassifier | DualSmoothedClassifier:
    """Loads a bundle written by ``save``; executes no code from it.

    Args:
        folder: the bundle, or the name of a shipped model (`dualrs.models.shipped_models`).
        **execution: how it runs, see `dualrs.smoothing.Execution`.

    Raises:
        BundleError: there is no such bundle, or one of its files is missing, truncated or altered.
    """
    bundle = load_bundle(find_bundle(folder))
    experts = {s: bundle.parts[name] for s, name in zip(bundle.sigmas, bundle.experts, strict=True)}
    model: SmoothedClassifier | DualSmoothedClassifier
    if bundle.sigma_e is None:
        (sigma,) = bundle.sigmas
        model = SmoothedClassifier(experts[sigma], sigma, bundle.num_classes, **execution)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # whoever built the model was warned about σ_e
            estimator = bundle.parts[ESTIMATOR]
            model = DualSmoothedClassifier(estimator, bundle.sigma_e, experts, bundle.num_classes, **execution)
    model.input, model.classes, model.info = bundle.input, bundle.classes, bundle.info
    return model
