"""Networks, how to rebuild them, and saved models."""

from dualrs.models.bundle import (
    Bundle,
    BundleError,
    InputSpec,
    Part,
    bundle_digest,
    load_bundle,
    save_bundle,
)
from dualrs.models.networks import Normalize, ResNet9
from dualrs.models.registry import NETWORKS, NetworkSpec, Recipe, build_network, recipe_of, weights_digest
from dualrs.models.shipped import find_bundle, shipped_models

__all__ = [
    "NETWORKS",
    "Bundle",
    "BundleError",
    "InputSpec",
    "NetworkSpec",
    "Normalize",
    "Part",
    "Recipe",
    "ResNet9",
    "build_network",
    "bundle_digest",
    "find_bundle",
    "load_bundle",
    "recipe_of",
    "save_bundle",
    "shipped_models",
    "weights_digest",
]
