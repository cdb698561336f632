"""Sections about the variance estimator: its labels, its loss, and what certified radii are worth."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dualrs.config import Section
from dualrs.models import NetworkSpec
from dualrs.sampling import Precision
from dualrs.training.sections.common import Optimization, Sigma
from dualrs.training.sections.denoising import AnyDenoiser, DenoiserConfig


class LabelConfig(Section):
    """Certified radii of training images, from few votes: the estimator's targets (paper, section 3)."""

    images: int | None = Field(default=None, gt=0, description="the first so many training images; all if absent")
    n: int = Field(default=100, gt=0, description="the most votes per image and σ")
    tolerance: float = Field(
        default=0.3, ge=0, description="stop early where the radius is known to within this; 0: all votes"
    )
    precision: Precision = Field(default="float32", description="16 bits run compiled, which is faster")
    batch_size: int = Field(default=256, gt=0, description="noisy images that vote at once; changes speed and memory")
    radius: Literal["mapped", "raw", "expected"] = Field(
        default="mapped",
        description="bound the counts rescaled to mapped_n votes, or as they are; or the posterior mean of the radius",
    )
    mapped_n: int = Field(default=10_000, gt=0, description="votes of the certificates that the labels stand for")
    alpha: float = Field(default=0.0005, gt=0, lt=1)

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Records of what labels were made with are compared, and the votes do not depend on it.
        return {name: value for name, value in handler(self).items() if name != "batch_size"}


class UtilityConfig(Section):
    """What certified radii are worth, for an estimator that is trained for the routed certificate."""

    radii: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = Field(
        default=tuple(step / 4 for step in range(9)), min_length=1, description="the radii r that count"
    )
    weights: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        default=None, description="what a certificate beyond each r is worth; 1 each if absent"
    )
    sharpness: float = Field(default=0.4, gt=0, description="width of the surrogate's transition, in input units")

    @property
    def worth(self) -> tuple[float, ...]:
        """What a certificate beyond each radius is worth."""
        return (1.0,) * len(self.radii) if self.weights is None else self.weights

    @model_validator(mode="after")
    def _one_weight_each(self) -> UtilityConfig:
        if self.weights is not None and len(self.weights) != len(self.radii):
            raise ValueError(f"{len(self.radii)} radii need as many weights; got {len(self.weights)}")
        return self


class EstimatorConfig(Section):
    """The variance estimator: network, loss and optimisation.

    The loss is a sum of parts: cross-entropy ("soft" or "hard" targets, or none), consistency between noisy
    copies, and the utility that the routed certificate misses.
    """

    network: NetworkSpec
    optimization: Optimization
    start_from: Sigma | None = Field(default=None, description="begin with the features of this σ's expert")
    frozen: bool = Field(default=False, description="keep these features as they are; train the last layer only")
    denoiser: AnyDenoiser | None = Field(
        default=None,
        description="in front of it, at σ_e; one that is trained here for what a classifier says asks the one whose "
        "features the estimator starts from",
    )
    noise_vectors: int = Field(default=2, ge=1, description="noisy copies of each image in a step (m)")
    targets: Literal["soft", "hard", "none"] = Field(
        default="soft", description="cross-entropy with the softmax of the radii, the best σ, or none"
    )
    temperature: float = Field(default=1.0, gt=0, description="of the softmax that turns radii into targets")
    class_weights: bool = Field(default=True, description="weigh images by the inverse share of their best σ")
    consistency: float = Field(default=40.0, ge=0, description="weight λ of the consistency term")
    entropy: float = Field(default=0.5, ge=0, description="weight η of the entropy term")
    consistency_warmup: float = Field(
        default=0.1, ge=0, lt=1, description="share of the training over which λ and η rise from 0"
    )
    radius_weight: Literal["none", "weak", "strong"] = Field(
        default="strong",
        description="scale consistency by R_c at the smallest (weak) or largest (strong) σ chosen",
    )
    utility: UtilityConfig | None = Field(default=None, description="train for the routed certificate as well")

    @model_validator(mode="after")
    def _has_a_loss(self) -> EstimatorConfig:
        if self.utility is None and self.targets == "none":
            raise ValueError("targets 'none' leaves nothing to learn: give a utility, or targets 'soft' or 'hard'")
        if self.utility is not None and self.noise_vectors < 2:
            raise ValueError(f"the utility needs at least 2 noise_vectors; got {self.noise_vectors}")
        if self.frozen and self.start_from is None:
            raise ValueError("frozen features need start_from: the σ of the expert whose features they are")
        stages = self.denoiser.stages if isinstance(self.denoiser, DenoiserConfig) else ()
        if self.start_from is None and any(stage.stability for stage in stages):
            raise ValueError("the denoiser's stability needs a classifier: give start_from, the σ of an expert")
        if self.network.conditional:
            raise ValueError("the estimator sees one noise level only, so its network cannot be conditional")
        return self
