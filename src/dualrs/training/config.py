"""Training configurations: YAML files validated into typed objects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dualrs.config import Section, parse_section, read_yaml
from dualrs.models import NetworkSpec

Sigma = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Optimization(Section):
    """How weights are fitted: one optimiser, a linear warm-up and a cosine decay to zero."""

    epochs: int = Field(gt=0)
    batch_size: int = Field(default=128, gt=0)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(default=0.1, gt=0, description="the peak, reached after the warm-up")
    warmup: float = Field(default=0.2, ge=0, lt=1, description="share of all steps spent warming up")
    weight_decay: float = Field(default=5e-4, ge=0)
    precision: Literal["fp32", "bf16"] = "bf16"
    crop_padding: int = Field(default=4, ge=0, description="pixels of padding for random crops; 0: no crops")
    flip: bool = Field(default=True, description="mirror images horizontally at random")


class ExpertConfig(Section):
    """A classifier trained under Gaussian noise; it serves every σ it was trained for."""

    sigmas: tuple[Sigma, ...] = Field(min_length=1, description="σ is drawn from these for each image")
    optimization: Optimization
    network: NetworkSpec
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    start_from: Sigma | None = Field(default=None, description="begin with the weights of this σ's expert")


class LabelConfig(Section):
    """Certified radii of training images, from few votes: the estimator's targets (paper, section 3)."""

    images: int | None = Field(default=None, gt=0, description="the first so many training images; all if absent")
    n: int = Field(default=100, gt=0, description="votes drawn per image and σ")
    mapped_n: int | None = Field(
        default=10_000, gt=0, description="rescale the counts to this many votes before bounding; none: raw"
    )
    alpha: float = Field(default=0.0005, gt=0, lt=1)


class EstimatorConfig(Section):
    """The variance estimator: network, loss and optimisation."""

    network: NetworkSpec
    optimization: Optimization
    start_from: Sigma | None = Field(default=None, description="begin with the features of this σ's expert")
    noise_vectors: int = Field(default=2, ge=1, description="noisy copies of each image in a step (m)")
    temperature: float = Field(default=1.0, gt=0, description="of the softmax that turns radii into targets")
    class_weights: bool = Field(default=True, description="weigh images by the inverse share of their best σ")
    consistency: float = Field(default=40.0, ge=0, description="weight λ of the consistency term")
    entropy: float = Field(default=0.5, ge=0, description="weight η of the entropy term")
    radius_weight: Literal["none", "weak", "strong"] = Field(
        default="strong",
        description="scale consistency by R_c at the smallest (weak) or largest (strong) σ chosen",
    )


class TrainingConfig(Section):
    """Everything that `dualrs train` needs to produce a dual model from a data set."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    data: str = Field(description="a data set's name (see `dualrs data list`) or folder:PATH")
    sigmas: tuple[Sigma, ...] = Field(min_length=2)
    sigma_e: Sigma
    experts: tuple[ExpertConfig, ...] = Field(min_length=1)
    labels: LabelConfig = LabelConfig()
    estimator: EstimatorConfig
    seed: int = Field(default=0, ge=0)
    output: Path

    @model_validator(mode="after")
    def _experts_cover_sigmas(self) -> TrainingConfig:
        if list(self.sigmas) != sorted(set(self.sigmas)):
            raise ValueError(f"sigmas must ascend without repetition; got {list(self.sigmas)}")
        served = [sigma for expert in self.experts for sigma in expert.sigmas]
        if sorted(served) != list(self.sigmas):
            raise ValueError(
                f"every σ needs exactly one expert: sigmas are {list(self.sigmas)}, experts serve {sorted(served)}"
            )
        earlier: set[float] = set()
        for expert in self.experts:
            if expert.start_from is not None and expert.start_from not in earlier:
                raise ValueError(
                    f"the expert for σ={list(expert.sigmas)} starts from σ={expert.start_from:g}, "
                    f"which must belong to an expert listed before it; those serve {sorted(earlier)}"
                )
            earlier.update(expert.sigmas)
        if self.estimator.start_from is not None and self.estimator.start_from not in earlier:
            raise ValueError(f"the estimator starts from σ={self.estimator.start_from:g}, which no expert serves")
        return self


def load_config(path: str | Path) -> TrainingConfig:
    """Reads and validates a training configuration.

    Raises:
        ConfigError: the file is missing, is not YAML, or a field is unknown, missing or out of range.
    """
    return parse_section(TrainingConfig, read_yaml(path), source=str(path))
