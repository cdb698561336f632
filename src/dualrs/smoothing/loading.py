"""Smoothed classifiers from saved bundles."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Unpack

from dualrs.models import find_bundle, load_bundle
from dualrs.smoothing.base import ESTIMATOR
from dualrs.smoothing.dual import DualSmoothedClassifier
from dualrs.smoothing.experts import Expert
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
    bases = [bundle.parts[part] for part in bundle.experts]
    model: SmoothedClassifier | DualSmoothedClassifier
    if bundle.sigma_e is None:
        (base,), (sigma,) = bases, bundle.sigmas
        model = SmoothedClassifier(base, sigma, bundle.num_classes, **execution)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # whoever built the model was warned about σ_e
            estimator = bundle.parts[ESTIMATOR]
            names = bundle.names or (None,) * len(bases)
            experts = [Expert(*each) for each in zip(bases, bundle.sigmas, names, strict=True)]
            model = DualSmoothedClassifier(estimator, bundle.sigma_e, experts, bundle.num_classes, **execution)
    model.input, model.classes, model.info = bundle.input, bundle.classes, bundle.info
    return model
