"""Sections about experts: trained here, or off the shelf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from dualrs.certificates import expert_name
from dualrs.config import Section
from dualrs.models import NetworkSpec
from dualrs.training.methods import Gaussian, Method
from dualrs.training.sections.common import NAME, Optimization, Sigma
from dualrs.training.sections.denoising import AnyDenoiser


class ExpertConfig(Section):
    """A classifier trained under Gaussian noise; it serves every σ it was trained for."""

    name: str | None = Field(default=None, pattern=NAME, description="of the expert; expert-σ if absent")
    sigmas: tuple[Sigma, ...] = Field(min_length=1, description="σ is drawn from these for each image")
    optimization: Optimization
    network: NetworkSpec
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    method: Method = Field(default=Gaussian(), description="what is minimised, by name, with its hyper-parameters")
    start_from: Sigma | None = Field(default=None, description="begin with the weights of this σ's expert")

    @property
    def title(self) -> str:
        """How progress bars and folders call it."""
        return _title(self.name, self.sigmas)


class OffTheShelfConfig(Section):
    """A classifier that exists already, as it is or behind a denoiser."""

    name: str | None = Field(default=None, pattern=NAME, description="of the expert; expert-σ if absent")
    sigmas: tuple[Sigma, ...] = Field(min_length=1, description="the noise levels that it serves")
    classifier: str = Field(description="what dualrs.models.load_classifier understands")
    options: dict[str, Any] = Field(default={}, description="further arguments of load_classifier")
    denoiser: AnyDenoiser | None = Field(default=None, description="in front of the classifier, which stays as it is")

    @property
    def title(self) -> str:
        """How progress bars and folders call it."""
        return _title(self.name, self.sigmas)


def _kind(expert: Any) -> str:
    given = expert if isinstance(expert, Mapping) else getattr(expert, "__dict__", {})
    return "off-the-shelf" if "classifier" in given else "trained"


AnyExpert = Annotated[
    Annotated[ExpertConfig, Tag("trained")] | Annotated[OffTheShelfConfig, Tag("off-the-shelf")], Discriminator(_kind)
]


def member_names(expert: ExpertConfig | OffTheShelfConfig) -> list[str]:
    """The name of an expert at each of its noise levels."""
    if expert.name is None:
        return [expert_name(sigma) for sigma in expert.sigmas]
    if len(expert.sigmas) == 1:
        return [expert.name]
    return [f"{expert.name}-{sigma:g}" for sigma in expert.sigmas]


def _title(name: str | None, sigmas: Sequence[float]) -> str:
    return name or f"for σ={', '.join(f'{sigma:g}' for sigma in sigmas)}"
