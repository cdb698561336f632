"""From a configuration to a dual model: experts, labels, estimator, rounds, dial, bundle; each kept once done."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dualrs.data import ArrayDataset, load_arrays
from dualrs.files import write_json
from dualrs.models import Biased, InputSpec, at_sigma, weights_digest
from dualrs.sampling import Base, Runner
from dualrs.smoothing import DualSmoothedClassifier, Expert, SmoothedClassifier
from dualrs.training.choices import Judges, choose_pool, turn_dial
from dualrs.training.config import DiffusionConfig, OneShotConfig, TrainingConfig, UtilityConfig, load_config
from dualrs.training.devices import check_device
from dualrs.training.estimator import train_estimator
from dualrs.training.experts import fine_tune_expert
from dualrs.training.folders import Folders
from dualrs.training.fronts import Diffusion, fits_half, round_weights
from dualrs.training.labels import execution, label_radii, smoothed, true_class_votes
from dualrs.training.plan import Plan, make_plan
from dualrs.training.pool import Pool, as_one, assemble, each_of, load_diffusions, load_ready, unsaveable
from dualrs.training.processes import join, led, one_of_each_machine_first
from dualrs.training.rounds import assign, estimator_votes

Radii = NDArray[np.float64]


def open_pipeline(path: str | Path, *, device: str = "cpu", runner: Runner | None = None) -> Pipeline:
    """The training that a configuration file is about, with its data.

    Where torchrun or srun has started several processes, they train together from here on.

    Raises:
        ConfigError: the file is no valid configuration.
        DataUnavailableError, ValueError: the data cannot be had, or there is no such device.
    """
    config = load_config(path)
    join(device)
    check_device(device)  # before the data, which may take long
    with one_of_each_machine_first():
        train, test = (load_arrays(config.data, split, size=config.image_size) for split in ("train", "test"))
    return Pipeline(config, train, test, device=device, runner=runner)


class Pipeline:
    """The training of one dual model; every method continues what an earlier, interrupted call began.

    Several processes that torchrun or srun has started make the same calls: they train together, and the first of them
    does everything else, tells the others what came of it, and alone writes files.

    Args:
        config: the whole training.
        train: the training split, of which the last ``config.validation`` images are set aside.
        test: the split on which accuracies are reported, never chosen.
        device: where networks run, those of the finished model too: "cpu", "cuda", … A training may go on elsewhere.
        runner: where experts vote on labels; None takes this process.

    Raises:
        ValueError: the splits have different classes, validation takes all images, or there is no such device.
    """

    def __init__(
        self,
        config: TrainingConfig,
        train: ArrayDataset,
        test: ArrayDataset,
        *,
        device: str = "cpu",
        runner: Runner | None = None,
    ) -> None:
        if config.validation >= len(train):
            raise ValueError(f"validation takes {config.validation} images, and the training split has {len(train)}")
        if train.classes != test.classes:
            raise ValueError(f"the splits have different classes: {list(train.classes)} and {list(test.classes)}")
        join(device)
        self.config, self.folders = config, Folders(config)
        self._test, self._device, self._runner = test, check_device(device), runner
        self._experts: Pool = ()
        kept = len(train) - config.validation
        self._train = train.subset(range(kept)) if config.validation else train
        self._validation = train.subset(range(kept, len(train)))
        self._labelled = self._first(config.labels.images)

    def run(self) -> Path:
        """Does whatever is not done yet and returns the folder of the finished bundle.

        Raises:
            ValueError: a bundle cannot hold one of the experts that are off the shelf; found before any training.
        """
        if refused := unsaveable(self.config, self._ready):
            raise ValueError(
                f"a bundle cannot hold {', '.join(refused)}: export it to ONNX and name the .onnx file, or take the "
                "model from dualrs.training.pipeline.Pipeline.model() in Python"
            )
        model = self.model()
        networks = [base for base in model.bases.values() if isinstance(base, nn.Module)]
        return led(model.save)(self.folders.bundle, half=all(map(fits_half, networks)))

    @led
    def plan(self) -> Plan:
        """What is done, what is next, and how long it will take; nothing is done or written."""
        return make_plan(self.config, self._train, self._device)

    def model(self) -> DualSmoothedClassifier:
        """Does whatever is not done yet and returns the finished model, without storing it."""
        pool = self.selected(self.experts())
        radii = self.labels(pool)
        estimator = self.estimator(pool, radii)
        for number in range(1, self.config.rounds + 1):
            pool = self.fine_tune(pool, estimator, number)
            radii = self.labels(pool, number)
            estimator = self.estimator(pool, radii, number)
        return self._put_together(pool, self.dial(pool, estimator, radii))

    def experts(self) -> Pool:
        """Trains or loads every expert that is not there yet."""
        self._experts = assemble(
            self.config, self._ready, self._diffusions, self._train, self._test, device=self._device
        )
        return self._experts

    def selected(self, pool: Pool) -> Pool:
        """The experts between which routing is forecast to be worth most; all of them where none are to be chosen."""
        config, backbone = self.config.selection, self._features_of(pool)
        if config is None or backbone is None:
            return pool
        radii = self._radii(pool, self._labelled, self._train.digest, self._folder("labels", pool))
        taught = min(config.images, len(radii) - self.config.images_to_judge(len(radii)))
        names = choose_pool(
            config,
            [member.name for member in pool],
            backbone=at_sigma(backbone, self.config.sigma_e),
            data=self._labelled.subset(range(taught)),
            radii=radii[:taught],
            judges=self._judges(pool, radii, 0, self._utility),
            path=self.folders.selection,
            device=self._device,
        )
        return tuple(member for member in pool if member.name in names)

    def labels(self, pool: Pool, number: int = 0) -> Radii:
        """Labels the training images that are not labelled yet; radii of shape (images, candidates)."""
        radii = self._radii(pool, self._labelled, self._train.digest, self._folder("labels", pool, number))
        best = np.where(radii.max(axis=1) > 0, radii.argmax(axis=1), -1)
        shares = {member.name: float((best == i).mean()) for i, member in enumerate(pool)}
        shares["none"] = float((best == -1).mean())
        led(write_json)(self._label_summary(pool, number), {"images": len(radii), "best_expert_shares": shares})
        return radii

    def estimator(self, pool: Pool, radii: Radii, number: int = 0) -> nn.Module:
        """Trains the variance estimator unless it is trained."""
        config, front = self.config.estimator, self.config.estimator.denoiser
        taught = len(radii) - self.config.images_to_judge(len(radii))
        model = train_estimator(
            config,
            self._labelled.subset(range(taught)),
            radii[:taught],
            self.config.sigma_e,
            start=self._features_of(pool),
            folder=self._folder("estimator", pool, number),
            seed=self.config.seed + len(self.config.experts) + 100 * number,
            diffusion=self._diffusions[front.diffusion] if isinstance(front, OneShotConfig) else None,
            device=self._device,
        )
        round_weights(model)
        return model

    def fine_tune(self, pool: Pool, estimator: nn.Module, number: int) -> Pool:
        """Fine-tunes every expert that can be trained on the images for which the estimator chooses it."""
        config = self.config.fine_tuning
        if config is None:
            return pool
        data = self._first(config.images)
        votes = estimator_votes(
            SmoothedClassifier(
                estimator, self.config.sigma_e, len(pool), **execution(self.config.labels, self._device)
            ),
            data,
            n=config.votes,
            seed=self.config.seed,
            path=self._folder("choices", pool, number) / "votes.npz",
            key=f"{weights_digest(estimator)[:16]} {self._train.digest[:16]}",
        )
        shares = assign(votes, config.assignment)
        tuned = list(pool)
        for expert in dict.fromkeys(member.expert for member in pool):
            served = [i for i, member in enumerate(pool) if member.expert == expert]
            members = [pool[i] for i in served]
            network = as_one(members)
            if network is None:
                continue
            network = fine_tune_expert(
                network,
                config,
                data,
                tuple(member.sigma for member in members),
                shares[:, served],
                folder=self._folder("-".join(member.name for member in members), pool, number),
                seed=self.config.seed + 1000 * number + served[0],
                name=", ".join(member.name for member in members),
                device=self._device,
            )
            round_weights(network)
            for i, model in zip(served, each_of(network, len(served)), strict=True):
                tuned[i] = replace(pool[i], model=model)
        return tuple(tuned)

    def dial(self, pool: Pool, estimator: nn.Module, radii: Radii) -> nn.Module:
        """Sets the estimator's dial on images that it has not seen; the estimator as it is where there is no dial.

        Args:
            pool: the candidates.
            estimator: the last round's.
            radii: of the candidates on the labelled images.
        """
        config = self.config.dial
        if config is None:
            return estimator
        if config.bias is not None:
            return Biased(estimator, config.bias)
        judges = self._judges(pool, radii, self.config.rounds, config.utility or self._utility)
        path, precision = self._folder("dial", pool) / "settings.json", self.config.labels.precision
        bias = turn_dial(config, estimator, judges, path, precision=precision, device=self._device)
        return Biased(estimator, bias)

    def _judges(self, pool: Pool, radii: Radii, number: int, utility: UtilityConfig) -> Judges:
        """By what dial and selection are judged: the validation images, or the last labelled ones."""
        if self.config.validation:
            images = self._validation
            radii = self._radii(pool, images, images.digest, self._folder("validation", pool, number))
        else:
            start = len(radii) - self.config.images_to_judge(len(radii))
            images, radii = self._labelled.subset(range(start, len(radii))), radii[start:]
        return Judges(images, radii, utility, self.config.sigma_e, self.config.seed)

    @property
    def _utility(self) -> UtilityConfig:
        return self.config.estimator.utility or UtilityConfig()

    @cached_property
    def _ready(self) -> dict[int, Base]:
        with one_of_each_machine_first():
            return load_ready(self.config, len(self._train.classes))

    @cached_property
    def _diffusions(self) -> dict[str | DiffusionConfig, Diffusion]:
        return load_diffusions(self.config, self._train, device=self._device)

    def _first(self, images: int | None) -> ArrayDataset:
        return self._train.subset(range(min(images or len(self._train), len(self._train))))

    def _folder(self, step: str, pool: Pool, number: int = 0) -> Path:
        return self.folders.step(step, [member.name for member in pool], number)

    def _label_summary(self, pool: Pool, number: int) -> Path:
        return self._folder("estimator", pool, number) / "labels.json"

    def _features_of(self, pool: Pool) -> nn.Module | None:
        """What the estimator starts from: the expert trained here for that σ, also if a selection has left it out."""
        sigma, known = self.config.estimator.start_from, (*pool, *self._experts)
        models = (member.model for member in known if member.sigma == sigma and not member.ready)
        return next((model for model in models if isinstance(model, nn.Module)), None)

    @led
    def _radii(self, pool: Pool, data: ArrayDataset, digest: str, folder: Path) -> Radii:
        """Of the candidates on images that are the first of those with this digest."""
        plan = self.config.labels
        votes = [
            true_class_votes(
                smoothed(member.base, member.sigma, len(self._train.classes), plan, self._device),
                data,
                plan,
                seed=self.config.seed,
                path=folder / f"{member.name}.npz",
                key=f"{member.key} {digest[:16]}",
                name=member.name,
                runner=self._runner,
            )
            for member in pool
        ]
        return label_radii(votes, [member.sigma for member in pool], plan)

    def _put_together(self, pool: Pool, estimator: nn.Module) -> DualSmoothedClassifier:
        config, train = self.config, self._train
        experts = [Expert(member.base, member.sigma, member.name) for member in pool]
        model = DualSmoothedClassifier(estimator, config.sigma_e, experts, len(train.classes), device=self._device)
        model.input = InputSpec(train.input_shape)
        model.classes, model.info = train.classes, self._info(pool)
        return model

    @led
    def _info(self, pool: Pool) -> dict[str, Any]:
        config, train = self.config, self._train
        known = [self.folders.expert(expert) / "summary.json" for expert in config.experts]
        return {
            "name": config.name,
            "data": {"name": train.name, "train_digest": train.digest},
            "training": config.model_dump(mode="json", exclude={"output"}),
            **({} if self._device == "cpu" else {"device": self._device}),
            **{path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in known if path.exists()},
            "labels": json.loads(self._label_summary(pool, self.config.rounds).read_text(encoding="utf-8")),
        }
