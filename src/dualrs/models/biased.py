"""A bias on the logits of a classifier, such as an estimator's dial."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dualrs.models.recipes import Recipe, attach_recipe, recipe_of


class Biased(nn.Module):
    """A classifier with a fixed bias added to its logits: another base function, with certificates of its own.

    Args:
        network: any classifier.
        bias: one number for each of its logits.
    """

    bias: Tensor

    def __init__(self, network: nn.Module, bias: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        # An argument of the recipe, and no weight: storing weights in 16 bits does not move it.
        self.register_buffer("bias", torch.tensor(bias, dtype=torch.float32), persistent=False)
        if (recipe := recipe_of(network)) is not None:
            attach_recipe(self, Recipe("biased", {"network": recipe.as_argument(), "bias": [float(b) for b in bias]}))

    def forward(self, x: Tensor) -> Tensor:
        """Maps inputs (B, …) to logits (B, K)."""
        logits: Tensor = self.network(x) + self.bias
        return logits
