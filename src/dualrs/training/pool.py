"""The pool: experts at their noise levels, trained here or loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dualrs.data import ArrayDataset
from dualrs.files import write_json
from dualrs.models import Chain, at_sigma, load_classifier, recipe_of, weights_digest
from dualrs.progress import console
from dualrs.sampling import Base
from dualrs.training.config import (
    DiffusionConfig,
    ExpertConfig,
    OffTheShelfConfig,
    OneShotConfig,
    TrainingConfig,
    member_names,
)
from dualrs.training.experts import noisy_accuracy, train_expert
from dualrs.training.folders import Folders
from dualrs.training.fronts import Diffusion, SharedClassifier, get_diffusion, put_behind, round_weights
from dualrs.training.processes import led


@dataclass(frozen=True)
class Member:
    """A candidate of the pool: an expert at one of its noise levels.

    Attributes:
        name: of the candidate.
        sigma: its noise level.
        model: what was trained or loaded; it may serve several σ, and be one that is told σ.
        expert: which expert of the configuration it belongs to.
        ready: where it came from, if it is off the shelf; empty if it was trained here.
    """

    name: str
    sigma: float
    model: Base
    expert: int = 0
    ready: str = ""

    @property
    def base(self) -> Base:
        """The base classifier."""
        return at_sigma(self.model, self.sigma) if isinstance(self.model, nn.Module) else self.model

    @property
    def key(self) -> str:
        """Names the base classifier and its noise level among all that its votes may be of."""
        if isinstance(self.model, nn.Module):
            weights = weights_digest(self.model)[:16]
            return f"{weights} {_short(_describe(self.model, self.ready))} {self.sigma:g}" if self.ready else weights
        content = _short(self.model.read_bytes()) if isinstance(self.model, Path) else self.ready
        return f"{content} {self.sigma:g}"


Pool = tuple[Member, ...]
"""The candidates by ascending σ, those of one σ in the order of the configuration."""


def load_ready(config: TrainingConfig, num_classes: int) -> dict[int, Base]:
    """The classifiers that are off the shelf, by the number of their expert in the configuration."""
    ready: dict[int, Base] = {}
    for number, expert in enumerate(config.experts):
        if isinstance(expert, OffTheShelfConfig):
            # An endpoint does not say how many classes it knows; of all others it is found out when they answer.
            known = {"num_classes": num_classes} if "://" in expert.classifier else {}
            ready[number] = load_classifier(expert.classifier, **{**known, **expert.options})
            if expert.denoiser is not None and not isinstance(ready[number], nn.Module):
                raise TypeError(f"a denoiser stands in front of a network, and {expert.classifier} is none")
    return ready


def load_diffusions(
    config: TrainingConfig, train: ArrayDataset, *, device: str
) -> dict[str | DiffusionConfig, Diffusion]:
    """The diffusion models in front of experts and estimator, loaded or trained; alike ones are one."""
    folders = Folders(config)
    return {
        front.diffusion: get_diffusion(front, train, folder=folders.diffusion(front), seed=config.seed, device=device)
        for front in folders.fronts
        if isinstance(front, OneShotConfig)
    }


def unsaveable(config: TrainingConfig, ready: Mapping[int, Base]) -> list[str]:
    """The off-the-shelf classifiers, as the configuration names them, that no bundle can hold."""
    return [
        expert.classifier
        for number, base in ready.items()
        if isinstance(expert := config.experts[number], OffTheShelfConfig)
        and not isinstance(base, Path)
        and (not isinstance(base, nn.Module) or recipe_of(base) is None)
    ]


def assemble(
    config: TrainingConfig,
    ready: Mapping[int, Base],
    diffusions: Mapping[str | DiffusionConfig, Diffusion],
    train: ArrayDataset,
    test: ArrayDataset,
    *,
    device: str,
) -> Pool:
    """Trains every expert that is not there yet, continuing what an earlier call began.

    Args:
        config: the whole training.
        ready: classifiers that are off the shelf, see `load_ready`.
        diffusions: diffusion models, see `load_diffusions`.
        train: the training split.
        test: the split on which accuracies are reported.
        device: where networks run.
    """
    folders, pool = Folders(config), list[Member]()
    trained: dict[float, nn.Module] = {}
    for number, expert in enumerate(config.experts):
        seed, folder = config.seed + number, folders.expert(expert)
        if isinstance(expert, ExpertConfig):
            start = trained[expert.start_from] if expert.start_from is not None else None
            network = train_expert(expert, train, start=start, folder=folder, seed=seed, device=device)
            trained.update(dict.fromkeys(expert.sigmas, network))
            models: dict[float, Base] = dict.fromkeys(expert.sigmas, network)
        elif expert.denoiser is None:
            models = dict.fromkeys(expert.sigmas, ready[number])
        else:
            classifier, front = ready[number], expert.denoiser
            diffusion = diffusions[front.diffusion] if isinstance(front, OneShotConfig) else None
            assert isinstance(classifier, nn.Module)  # load_ready has seen to it
            models = {
                **put_behind(
                    front,
                    classifier,
                    train,
                    expert.sigmas,
                    folder=folder,
                    seed=seed,
                    diffusion=diffusion,
                    device=device,
                )
            }
        for model in models.values():
            if isinstance(model, nn.Module):
                round_weights(model)
        came_from = "" if isinstance(expert, ExpertConfig) else expert.classifier
        members = [
            Member(name, sigma, models[sigma], number, came_from)
            for name, sigma in zip(member_names(expert), expert.sigmas, strict=True)
        ]
        _report_accuracy(expert, members, test, folder / "summary.json", device)
        pool += members
    return tuple(sorted(pool, key=lambda member: member.sigma))


def as_one(members: Sequence[Member]) -> nn.Module | None:
    """The network that an expert is at all of its noise levels; None if it is none that can be trained."""
    models = [member.model for member in members]
    chains = [model for model in models if isinstance(model, Chain)]
    if len(chains) == len(models) and any(chain is not chains[0] for chain in chains):
        return SharedClassifier([member.sigma for member in members], chains)
    return models[0] if isinstance(models[0], nn.Module) else None


def each_of(network: nn.Module, count: int) -> list[nn.Module]:
    """What `as_one` has put together: the network at each of its noise levels."""
    return list(network.chains) if isinstance(network, SharedClassifier) else [network] * count


@led
def _report_accuracy(
    expert: ExpertConfig | OffTheShelfConfig, members: Sequence[Member], test: ArrayDataset, path: Path, device: str
) -> None:
    networks = [(member.sigma, member.model) for member in members if isinstance(member.model, nn.Module)]
    keys = [member.key for member in members]
    found = json.loads(path.read_text()) if path.exists() else {"experts": None}
    if not networks or found.get("experts", keys) == keys:
        return
    accuracy = {f"{sigma:g}": noisy_accuracy(model, test, sigma, device=device) for sigma, model in networks}
    write_json(path, {"test_accuracy_one_noise_draw": accuracy, "experts": keys})
    for sigma, value in accuracy.items():
        console.print(f"expert {expert.title}: {value:.2%} of test images right under one noise draw at σ={sigma}")


def _describe(network: nn.Module, otherwise: str) -> str:
    recipe = recipe_of(network)
    return otherwise if recipe is None else json.dumps(recipe.as_argument(), sort_keys=True)


def _short(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]
