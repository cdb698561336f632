"""The forecast: a measured sample, the run's procedures on simulated votes, and sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Unpack

from torch import Tensor

from dualrs.data import Dataset
from dualrs.evaluation.planning._bill import Bill
from dualrs.evaluation.planning._changes import Settings, changes
from dualrs.evaluation.planning._figures import Forecast, Model
from dualrs.evaluation.planning._sample import Sample, noise_levels, take_sample
from dualrs.evaluation.planning._simulation import simulate
from dualrs.evaluation.planning._worlds import imagine
from dualrs.evaluation.run import DEFAULTS
from dualrs.evaluation.selection import evenly_spaced, shard_of
from dualrs.progress import Progress
from dualrs.smoothing import CertifyOptions, DualSmoothedClassifier

_MOST_SHARE = 4  # of the most votes that the run itself asks for, the most that the sample of a small run may
_DRAWS, _DRAWS_OF_CHANGES, _MOST_DRAWS = 2, 1, 8  # worlds of each input


def forecast(
    model: Model,
    dataset: Dataset,
    *,
    indices: Sequence[int] | None = None,
    shard: tuple[int, int] | None = None,
    seed: int = 0,
    rules: Sequence[str] | None = None,
    global_sigmas: bool = True,
    sample: int = 128,
    votes: int = 100,
    seconds: float = 60.0,
    devices: Sequence[int] = (1, 2, 4, 8),
    price: float | None = None,
    radii: Sequence[float] = (0.25, 0.5, 1.0),
    alternatives: bool = True,
    **options: Unpack[CertifyOptions],
) -> Forecast:
    """Says what `evaluate` with the same arguments will take, and what would save some of it; certifies nothing.

    Every base classifier votes on a sample of the inputs, by the engine that the run would use. Its speed is that of
    steady batches. The procedures of the run, and of a few changes of it, are then run on simulated votes, with class
    probabilities as the sample's votes make them likely. The noise is not the run's, so settings that are chosen by a
    forecast are chosen without knowledge of the run's votes. docs/planning.md says what is assumed.

    Args:
        model: as it is set up to run.
        dataset: as for `evaluate`, like the five that follow.
        indices: positions in the data set; None takes all of it.
        shard: (i, k) takes the i-th of k shards of these.
        seed: of the run's noise.
        rules: how the model is certified.
        global_sigmas: whether a dual model is compared with its experts.
        sample: how many of the inputs are voted on at most.
        votes: of each base classifier on each of them; more where there are fewer.
        seconds: no further input of the sample is begun after so many, but for the first eight.
        devices: numbers of devices, each at least 1.
        price: of one device for one hour.
        radii: of the certified accuracies, each at least 0.
        alternatives: whether changes of the run are simulated too, which takes a few seconds each.
        **options: as for `evaluate`.

    Raises:
        ValueError: an impossible argument, an empty selection, or an image that the model does not take.
        IndexError: a position lies outside of the data set.
    """
    chosen = _chosen(dataset, indices, shard)
    if min(sample, votes, *devices) < 1 or not seconds > 0:
        given = f"{sample}, {votes}, {list(devices)} and {seconds}"
        raise ValueError(f"sample, votes and devices must be at least 1 and seconds positive; got {given}")
    if options.get("time_budget") is not None:
        raise ValueError("a time budget is a forecast by itself: what is proved within it depends on the clock")
    if (price is not None and not price >= 0) or any(not radius >= 0 for radius in radii):
        raise ValueError(f"price and radii must be at least 0; got {price} and {list(radii)}")
    settings: CertifyOptions = {**DEFAULTS, **options}
    run = Settings(model, None if rules is None else tuple(rules), global_sigmas, settings, len(chosen))
    # This refuses impossible arguments before any work is done.
    planned = list(islice(changes(run), None if alternatives else 1))

    def image(position: int) -> Tensor:
        try:
            return model.to_input(dataset.image(position))
        except ValueError as error:
            raise ValueError(f"image {position} of {dataset.name}: {error}") from error

    most = settings["n0"] + settings["n"]
    taken = take_sample(
        model,
        [chosen[i] for i in evenly_spaced(sample, len(chosen))],
        image,
        votes=_votes(votes, sample, len(chosen), most),
        most_votes=most,
        seconds=seconds,
        seed=seed,
    )
    worlds = imagine(taken.counts, [dataset.label(position) for position in taken.positions], _MOST_DRAWS)
    bills: list[Bill] = []
    with Progress("simulating", total=len(planned) * len(worlds), unit="images") as progress:
        for change in planned:
            if bills and change.methods is planned[0].methods and change.without is None:
                bills.append(replace(bills[0], change=change))
                continue
            least = _DRAWS_OF_CHANGES if bills else _DRAWS
            played = simulate(change, worlds, list(taken.counts), least, lambda: progress.advance(1))
            bills.append(Bill(change, played, taken))
    first, labels = bills[0], [drawn[0].label for drawn in worlds]
    works = [first.work(name, sigma) for name, sigma in noise_levels(model).items()]
    return Forecast(
        data=dataset.name,
        images=len(chosen),
        size=len(dataset),
        method=next(iter(run.methods)),
        methods=tuple(run.methods),
        n0=settings["n0"],
        n=settings["n"],
        alpha=settings["alpha"],
        tolerance=settings["tolerance"],
        target=settings["target"],
        sample=len(taken.positions),
        sample_votes=taken.votes,
        sample_seconds=taken.seconds,
        models=tuple(works),
        votes=first.votes,
        seconds=first.wall(1),
        startup_seconds=taken.startup_seconds,
        per_image_seconds=first.busy.expected / len(chosen),
        other_seconds=len(chosen) * (float(first.played.seconds.mean()) + taken.loading_seconds),
        longest_seconds=first.longest,
        further_sigma_seconds=_further(run, taken),
        devices=tuple(first.on(count, price) for count in devices),
        memory=first.memory(labels),
        options=tuple(bill.beside(first, radii) for bill in bills),
        radii=tuple(radii),
        pace=taken.pace,
    )


def _chosen(dataset: Dataset, indices: Sequence[int] | None, shard: tuple[int, int] | None) -> Sequence[int]:
    positions = range(len(dataset)) if indices is None else indices
    if not positions:
        raise ValueError("there is nothing to plan: the data set or `indices` is empty")
    if outside := [i for i in positions if not 0 <= i < len(dataset)]:
        raise IndexError(f"indices must lie in [0, {len(dataset)}); got {outside[0]}")
    if len(set(positions)) < len(positions):
        raise ValueError("an input is asked for twice: `indices` must differ")
    return shard_of(positions, *shard) if shard else positions


def _votes(votes: int, sample: int, images: int, most: int) -> int:
    """How many for each image: where there are few images they share what a whole sample gets, within reason."""
    return max(votes, min(votes * sample // images, most // _MOST_SHARE))


def _further(run: Settings, taken: Sample) -> float | None:
    """Seconds of a further expert with a row of its own, as fast as those that are there."""
    if not isinstance(run.model, DualSmoothedClassifier) or not run.global_sigmas:
        return None
    per_row = sum(taken.seconds_per_row[expert.name] for expert in run.model.experts) / len(run.model.experts)
    return per_row * (run.options["n0"] + run.options["n"]) * run.images
