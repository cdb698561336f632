"""Votes recorded in their order, against which procedures are replayed without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dualrs.certificates import Certificate, Procedure, StageCounts, VoteRequest, run_procedure
from dualrs.data import Dataset
from dualrs.files import atomic_write
from dualrs.progress import Progress
from dualrs.sampling import Engine, Job
from dualrs.sampling.votes import INVALID, count
from dualrs.smoothing import CLASSIFIER, SmoothedClassifier


def record_votes(
    model: SmoothedClassifier,
    name: str,
    data: Dataset,
    positions: Sequence[int],
    *,
    votes: int,
    seed: int,
    path: Path,
    key: str,
) -> NDArray[np.int8]:
    """The first votes of a model on each image, in the order in which every procedure meets them; kept in a file.

    They are those that a dual model draws from this base classifier under this name and seed.

    Args:
        model: a base classifier of at most 127 classes, and its noise level.
        name: by which procedures ask for its votes, see `dualrs.smoothing.Expert`.
        data: images.
        positions: which of them.
        votes: how many on each.
        seed: of the noise.
        path: an ``.npz`` file; read if it is there.
        key: names the weights, and how they run.

    Returns:
        Classes, `INVALID` for votes that name none, shape (len(positions), votes).

    Raises:
        ValueError: the file holds other votes.
    """
    key = f"{key} {name} σ={model.sigma:g} {data.digest[:16]} images={len(positions)} votes={votes} seed={seed}"
    if path.exists():
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["key"]) != key:
                raise ValueError(f"{path} holds other votes ({stored['key']}; wanted {key}): remove it")
            return np.asarray(stored["votes"])
    found = np.full((len(positions), votes), INVALID, dtype=np.int8)
    outputs = {} if model.num_classes is None else {name: model.num_classes}
    engine = Engine(lambda _, shape: model.backend(CLASSIFIER, shape), outputs=outputs)
    jobs = (
        # The first has all votes drawn in full batches; the second reads them one by one.
        Job(
            i,
            model.to_input(data.image(position)),
            {"draw": _draw(name, model.sigma, votes), "read": _read(name, model.sigma, found[i])},
            seed,
        )
        for i, position in enumerate(positions)
    )
    with Progress(f"votes of {name}", total=len(positions), unit="images") as progress:
        for _ in engine.run(jobs):
            progress.advance(1)
    with atomic_write(path) as file:
        np.savez(file, votes=found, key=np.array(key))
    return found


def replay(procedure: Procedure, recorded: Mapping[str, NDArray[np.int8]], classes: Mapping[str, int]) -> Certificate:
    """What a procedure answers on one image whose votes are recorded.

    Args:
        procedure: fresh.
        recorded: of each model by name, its votes in their order.
        classes: how many each may vote for.

    Raises:
        ValueError: it asks for more votes than there are.
    """
    read = dict.fromkeys(recorded, 0)

    def answer(request: VoteRequest) -> NDArray[np.int64]:
        start = read[request.model]
        stop = read[request.model] = start + request.count
        if stop > len(recorded[request.model]):
            raise ValueError(f"{request.model} has {len(recorded[request.model])} votes; vote {stop} is asked for")
        return count(recorded[request.model][start:stop], classes[request.model])

    return run_procedure(procedure, answer)


def _draw(name: str, sigma: float, votes: int) -> Procedure:
    counts = yield VoteRequest(name, sigma, votes)
    return _nothing(name, sigma, counts, votes)


def _read(name: str, sigma: float, into: NDArray[np.int8]) -> Procedure:
    counts = np.zeros(1, dtype=np.int64)
    for i in range(len(into)):
        counts = yield VoteRequest(name, sigma, 1)
        if counts.any():
            into[i] = counts.argmax()
    return _nothing(name, sigma, counts, 1)


def _nothing(name: str, sigma: float, counts: NDArray[np.int64], trials: int) -> Certificate:
    """Claims nothing."""
    return Certificate(
        None, 0.0, sigma, 0.5, "record", (StageCounts("votes", name, sigma, tuple(counts.tolist()), trials, None),)
    )
