"""Training configurations: YAML files validated into typed objects."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from dualrs.config import Section, parse_section, read_yaml
from dualrs.training.methods import Gaussian, Method
from dualrs.training.sections.common import NAME, Optimization, Sigma
from dualrs.training.sections.denoising import (
    AnyDenoiser,
    DenoiserConfig,
    DenoiserSpec,
    DenoiserStage,
    DiffusionConfig,
    OneShotConfig,
)
from dualrs.training.sections.estimating import EstimatorConfig, LabelConfig, UtilityConfig
from dualrs.training.sections.experts import AnyExpert, ExpertConfig, OffTheShelfConfig, member_names

__all__ = [
    "AnyDenoiser",
    "AnyExpert",
    "Assignment",
    "DenoiserConfig",
    "DenoiserSpec",
    "DenoiserStage",
    "DialConfig",
    "DiffusionConfig",
    "EstimatorConfig",
    "ExpertConfig",
    "FineTuning",
    "LabelConfig",
    "OffTheShelfConfig",
    "OneShotConfig",
    "Optimization",
    "SelectionConfig",
    "Sigma",
    "TrainingConfig",
    "UtilityConfig",
    "load_config",
    "member_names",
]

Assignment = Literal["majority", "possible"]

_RESERVED = {"bundle", "dial", "diffusion", "estimator", "labels", "selection", "validation"}


class FineTuning(Section):
    """Rounds after the first estimator: experts fine-tuned at the σ that it picks, then labels and estimator anew."""

    rounds: int = Field(default=1, gt=0)
    images: int | None = Field(default=None, gt=0, description="the first so many training images; all if absent")
    optimization: Optimization
    method: Method = Field(default=Gaussian(), description="what is minimised, by name, with its hyper-parameters")
    votes: int = Field(default=100, gt=0, description="of the estimator, on each of these images")
    assignment: Assignment = Field(
        default="majority",
        description="an image trains the expert most votes are for, or all that are possible, so that they agree",
    )


class SelectionConfig(Section):
    """A choice of Σ and of the pool: only the experts between which routing is forecast to certify most are kept.

    Judged as the dial is, on validation images or the last labelled ones. The features are those of the expert that
    the estimator starts from.
    """

    images: int = Field(default=5_000, gt=0, description="labelled images that train the quick estimators")
    copies: int = Field(default=8, ge=2, description="noisy copies of each image")
    most: int | None = Field(default=None, ge=2, description="the largest pool to try; all sizes if absent")


class DialConfig(Section):
    """A bias on the estimator's logits, set on validation images after training."""

    images: int = Field(
        default=1_000, gt=0, description="where there are no validation images: the last so many labelled ones"
    )
    votes: int = Field(default=200, gt=0, description="of the estimator on every image")
    utility: UtilityConfig | None = Field(default=None, description="what is maximised; the estimator's if absent")
    bias: tuple[float, ...] | None = Field(default=None, description="a setting to use instead of the best one")


class TrainingConfig(Section):
    """Everything that `dualrs train` needs to produce a dual model from a data set."""

    name: str = Field(pattern=NAME)
    data: str = Field(description="a data set's name (see `dualrs data list`) or folder:PATH")
    image_size: int | None = Field(
        default=None, gt=0, description="for a folder: height and width in pixels that its images are brought to"
    )
    validation: int = Field(default=0, ge=0, description="the last so many training images, which train nothing")
    sigmas: tuple[Sigma, ...] = Field(min_length=2)
    sigma_e: Sigma
    experts: tuple[AnyExpert, ...] = Field(min_length=1)
    labels: LabelConfig = LabelConfig()
    estimator: EstimatorConfig
    selection: SelectionConfig | None = None
    fine_tuning: FineTuning | None = None
    dial: DialConfig | None = None
    seed: int = Field(default=0, ge=0)
    output: Path

    @property
    def judged_dial(self) -> DialConfig | None:
        """The dial, if it is to be set by what its settings are worth."""
        return self.dial if self.dial is not None and self.dial.bias is None else None

    @property
    def rounds(self) -> int:
        """How many rounds of fine-tuning there are."""
        return self.fine_tuning.rounds if self.fine_tuning else 0

    def images_to_judge(self, labelled: int) -> int:
        """How many of so many labelled images judge dial and selection: the last ones, unseen by the estimator."""
        # For a dial with a fixed bias too: its setting may be changed without training the estimator anew.
        if self.validation or (self.selection is None and self.dial is None):
            return 0
        return min((self.dial or DialConfig()).images, labelled // 4)

    @model_validator(mode="after")
    def _experts_cover_sigmas(self) -> TrainingConfig:
        if list(self.sigmas) != sorted(set(self.sigmas)):
            raise ValueError(f"sigmas must ascend without repetition; got {list(self.sigmas)}")
        served = [sigma for expert in self.experts for sigma in expert.sigmas]
        if sorted(set(served)) != list(self.sigmas):
            raise ValueError(
                f"every σ needs an expert: sigmas are {list(self.sigmas)}, experts serve {sorted(set(served))}"
            )
        names = [name for expert in self.experts for name in member_names(expert)]
        if taken := sorted(_RESERVED & set(names)):
            raise ValueError(f"an expert cannot be called {', '.join(taken)}: a part of the training is")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"experts that share a σ need names of their own; {', '.join(twice)} appears twice")
        earlier: set[float] = set()
        for expert in self.experts:
            if isinstance(expert, ExpertConfig):
                if expert.start_from is not None and expert.start_from not in earlier:
                    raise ValueError(
                        f"the expert for σ={list(expert.sigmas)} starts from σ={expert.start_from:g}, "
                        f"which must belong to an expert trained before it; those serve {sorted(earlier)}"
                    )
                earlier.update(expert.sigmas)
        if self.estimator.start_from is not None and self.estimator.start_from not in earlier:
            raise ValueError(
                f"the estimator starts from σ={self.estimator.start_from:g}, for which no expert is trained"
            )
        return self

    @model_validator(mode="after")
    def _choices_are_possible(self) -> TrainingConfig:
        if self.selection is not None and self.estimator.start_from is None:
            raise ValueError("selection needs the features of an expert: give the estimator a start_from")
        if self.image_size is not None and not self.data.startswith("folder:"):
            raise ValueError(f"image_size is for folders of images; those of {self.data} have one size already")
        if self.selection is not None and self.dial is not None and self.dial.bias is not None:
            raise ValueError("the dial's bias is for one pool of experts: leave the others out instead of a selection")
        members = sum(len(expert.sigmas) for expert in self.experts)
        if self.dial is not None and self.dial.bias is not None and len(self.dial.bias) != members:
            raise ValueError(f"the dial's bias needs one number for each of {members} experts; got {self.dial.bias}")
        return self


def load_config(path: str | Path) -> TrainingConfig:
    """Reads and validates a training configuration.

    Raises:
        ConfigError: the file is missing, is not YAML, or a field is unknown, missing or out of range.
    """
    return parse_section(TrainingConfig, read_yaml(path), source=str(path))
