"""Training methods of experts: their hyper-parameters, and the objectives made of them."""

from dualrs.training.methods.objectives import expert_objective, gaussian_augmentation
from dualrs.training.methods.sections import (
    CatRS,
    Consistency,
    Gaussian,
    Macer,
    Method,
    SmoothAdv,
    SmoothMix,
    Stability,
)

__all__ = [
    "CatRS",
    "Consistency",
    "Gaussian",
    "Macer",
    "Method",
    "SmoothAdv",
    "SmoothMix",
    "Stability",
    "expert_objective",
    "gaussian_augmentation",
]
