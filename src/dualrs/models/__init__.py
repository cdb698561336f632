"""Networks, how to rebuild them, and saved models."""

from dualrs.models.biased import Biased
from dualrs.models.bundle import (
    Bundle,
    InputSpec,
    Part,
    load_bundle,
    save_bundle,
)
from dualrs.models.card import bundle_card
from dualrs.models.chain import Chain
from dualrs.models.conditional import AtSigma, ConditionalResNet9, at_sigma
from dualrs.models.denoisers import Denoiser, DnCNN, UNet
from dualrs.models.diffusion import (
    GUIDED_DIFFUSION,
    IMPROVED_DIFFUSION,
    NoiseSchedule,
    OneShotDenoiser,
    load_unet,
    new_unet,
)
from dualrs.models.ensemble import Ensemble
from dualrs.models.hub import UploadOptions, download_bundle, upload_bundle
from dualrs.models.manifest import BundleError, bundle_digest, bundle_files
from dualrs.models.networks import Normalize, ResNet9, SmallConvNet
from dualrs.models.normalisation import NORMALISATIONS
from dualrs.models.offshelf import CheckpointError, load_classifier
from dualrs.models.registry import NETWORKS, NetworkSpec, Recipe, build_network, recipe_of, weights_digest
from dualrs.models.remote import HttpClassifier
from dualrs.models.resnet import CifarResNet
from dualrs.models.selector import EntropySelector
from dualrs.models.shipped import find_bundle, shipped_models

__all__ = [
    "GUIDED_DIFFUSION",
    "IMPROVED_DIFFUSION",
    "NETWORKS",
    "NORMALISATIONS",
    "AtSigma",
    "Biased",
    "Bundle",
    "BundleError",
    "Chain",
    "CheckpointError",
    "CifarResNet",
    "ConditionalResNet9",
    "Denoiser",
    "DnCNN",
    "Ensemble",
    "EntropySelector",
    "HttpClassifier",
    "InputSpec",
    "NetworkSpec",
    "NoiseSchedule",
    "Normalize",
    "OneShotDenoiser",
    "Part",
    "Recipe",
    "ResNet9",
    "SmallConvNet",
    "UNet",
    "UploadOptions",
    "at_sigma",
    "build_network",
    "bundle_card",
    "bundle_digest",
    "bundle_files",
    "download_bundle",
    "find_bundle",
    "load_bundle",
    "load_classifier",
    "load_unet",
    "new_unet",
    "recipe_of",
    "save_bundle",
    "shipped_models",
    "upload_bundle",
    "weights_digest",
]
