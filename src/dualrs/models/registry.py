"""Networks by name, so that a saved model says how to rebuild itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

from dualrs.models.networks import ResNet9

NETWORKS: dict[str, Callable[..., nn.Module]] = {"resnet9": ResNet9}
"""Architectures that configurations and bundles may name."""


class NetworkSpec(BaseModel):
    """The part of an architecture that a user chooses; the data set determines the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "resnet9"
    width: int = Field(gt=0, description="channels of the first layer")

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return check_network_name(name)

    def build(self, *, num_classes: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        """A freshly initialised network (torch's global generator) for images with these statistics."""
        return build_network(
            Recipe(
                self.name,
                {"num_classes": num_classes, "width": self.width, "mean": list(mean), "std": list(std)},
            )
        )


@dataclass(frozen=True)
class Recipe:
    """An architecture's name and all arguments of its constructor, as JSON values."""

    name: str
    arguments: Mapping[str, Any]


def check_network_name(name: str) -> str:
    """Returns the name if an architecture is registered under it; raises ValueError listing those that are."""
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(sorted(NETWORKS))}")
    return name


def build_network(recipe: Recipe) -> nn.Module:
    """Builds the network and attaches the recipe, by which `recipe_of` finds it when saving."""
    network = NETWORKS[check_network_name(recipe.name)](**recipe.arguments)
    network.dualrs_recipe = recipe  # type: ignore[assignment]
    return network


def weights_digest(network: nn.Module) -> str:
    """A hex digest of the names, types, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def recipe_of(network: nn.Module) -> Recipe | None:
    """The recipe of a network made by `build_network`; None for any other module."""
    recipe = getattr(network, "dualrs_recipe", None)
    return recipe if isinstance(recipe, Recipe) else None
