"""Choices made on images that the estimator does not learn from: the pool, and where its dial stands.

What was chosen is kept, and chosen anew where anything is different that it depends on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dualrs.data import ArrayDataset
from dualrs.models import weights_digest
from dualrs.progress import console
from dualrs.sampling import Precision
from dualrs.training.config import DialConfig, SelectionConfig, UtilityConfig
from dualrs.training.dial import Dial, estimator_logits
from dualrs.training.folders import kept_json
from dualrs.training.processes import led
from dualrs.training.selection import noisy_features, pool_names, rank_pools


@dataclass(frozen=True)
class Judges:
    """By what a choice is judged.

    Attributes:
        images: N of them.
        radii: of the candidates for the true classes there, (N, K).
        utility: what radii are worth.
        sigma_e: noise level of the estimator.
        seed: of all noise.
    """

    images: ArrayDataset
    radii: NDArray[np.float64]
    utility: UtilityConfig
    sigma_e: float
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """What names them, as JSON values."""
        return {
            "judges": self.images.digest,
            "judged": _digest(self.radii),
            "utility": self.utility.model_dump(mode="json"),
            "sigma_e": self.sigma_e,
            "seed": self.seed,
        }


@led
def choose_pool(
    config: SelectionConfig,
    names: Sequence[str],
    *,
    backbone: nn.Module,
    data: ArrayDataset,
    radii: NDArray[np.float64],
    judges: Judges,
    path: Path,
    device: str = "cpu",
) -> tuple[str, ...]:
    """The names of the experts between which routing is forecast to be worth most; two or more.

    Args:
        config: how many images, copies, and experts at most.
        names: of all candidates.
        backbone: whose features of noisy images the quick estimators get.
        data: the labelled images that train them.
        radii: of the candidates for the true classes there.
        judges: other images.
        path: receives the ranking of all pools.
        device: where the networks run.
    """

    def rank() -> dict[str, Any]:
        views = [
            noisy_features(backbone, images, judges.sigma_e, copies=config.copies, seed=judges.seed, device=device)
            for images in (data, judges.images)
        ]
        scores = rank_pools(
            torch.cat(views, dim=1),
            np.concatenate([radii, judges.radii]),
            judges.sigma_e,
            judges.utility,
            judged=len(judges.images),
            most=config.most,
            seed=judges.seed,
        )
        pools = [{**asdict(score), "members": pool_names(score, names)} for score in scores]
        return {"radii": judges.utility.radii, "images": len(judges.images), "pools": pools}

    made_with = {
        **judges.settings,
        "selection": config.model_dump(mode="json"),
        "experts": list(names),
        "features": weights_digest(backbone),
        "taught": _digest(radii),
    }
    pools = kept_json(path, made_with, rank)["pools"]
    first, best = pools[0], next(pool for pool in pools if len(pool["members"]) > 1)
    console.print(f"pool: {', '.join(best['members'])} of {len(names)} experts")
    if first is not best:
        worth = f"({first['utility']:.3f} to {best['utility']:.3f})"
        console.print(f"{first['members'][0]} alone is forecast to be worth more {worth}")
    return tuple(best["members"])


@led
def turn_dial(
    config: DialConfig, estimator: nn.Module, judges: Judges, path: Path, *, precision: Precision, device: str = "cpu"
) -> tuple[float, ...]:
    """The bias on the estimator's logits that is forecast to be worth most.

    Args:
        config: how many votes.
        estimator: the variance estimator.
        judges: images that it has not seen.
        path: receives all settings that no other one beats at every radius.
        precision: in which the estimator votes.
        device: where it does.
    """

    def turn() -> dict[str, Any]:
        logits = estimator_logits(
            estimator,
            judges.images,
            judges.sigma_e,
            votes=config.votes,
            seed=judges.seed,
            precision=precision,
            device=device,
        )
        utility = judges.utility
        settings = Dial(logits, judges.radii, judges.sigma_e, utility.radii, utility.worth).settings()
        return {"radii": utility.radii, "images": len(judges.images), "settings": [asdict(each) for each in settings]}

    made_with = {
        **judges.settings,
        "dial": config.model_dump(mode="json"),
        "estimator": weights_digest(estimator),
        "precision": precision,
    }
    settings = kept_json(path, made_with, turn)["settings"]
    bias = tuple(settings[0]["bias"])
    console.print(f"dial: bias {', '.join(f'{b:+.2f}' for b in bias)} of {len(settings)} settings")
    return bias


def _digest(radii: NDArray[np.float64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(radii).tobytes()).hexdigest()
