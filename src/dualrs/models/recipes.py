"""How a network says by what it can be rebuilt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Recipe:
    """An architecture's name and all arguments of its constructor, as JSON values.

    A network inside of another is an argument too: the mapping that `as_argument` gives.
    """

    name: str
    arguments: Mapping[str, Any]

    def as_argument(self) -> dict[str, Any]:
        """The recipe as JSON values, so that it can be an argument of another; ``Recipe(**…)`` undoes it."""
        return {"name": self.name, "arguments": dict(self.arguments)}


def attach_recipe(network: nn.Module, recipe: Recipe) -> None:
    """Makes `recipe_of` find the recipe."""
    network.dualrs_recipe = recipe  # type: ignore[assignment]


def recipe_of(network: nn.Module) -> Recipe | None:
    """The recipe of a network made by `build_network`, or of a wrapper around one; None for any other module."""
    recipe = getattr(network, "dualrs_recipe", None)
    return recipe if isinstance(recipe, Recipe) else None
