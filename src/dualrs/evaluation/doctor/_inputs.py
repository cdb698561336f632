"""Whether a base classifier expects other inputs than it gets: another range, another normalisation, one too many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from dualrs.evaluation.doctor._figures import Misfit, Model, Sight
from dualrs.evaluation.doctor._measuring import clean_answers
from dualrs.evaluation.metrics import confidence_interval
from dualrs.models import NORMALISATIONS, Normalize
from dualrs.sampling import Backend

_POOR = 0.75  # clean accuracy below which other inputs are tried: a wrong normalisation can leave more than chance
_LIFT = 0.1  # by which another input must raise it, beyond doubt, to be worth a finding
_TRIED = 100  # images, of which each candidate takes a forward pass

_Change = Callable[[Tensor], Tensor]


def find_misfits(
    model: Model,
    sight: tuple[Sight, ...],
    inputs: Mapping[int, Tensor],
    labels: Mapping[int, int],
    rows: Mapping[str, int],
) -> tuple[Misfit, ...]:
    """For each expert that sees badly without noise, the change of its inputs that lets it see best, if one does.

    Args:
        model: whose experts they are.
        sight: of the experts.
        inputs: labelled images (C, H, W) in [0, 1]; for inputs of other shapes nothing is tried.
        labels: theirs.
        rows: of a batch, by expert.
    """
    some = {i: inputs[i] for i in list(inputs)[:: max(1, len(inputs) // _TRIED)]}
    shape = next(iter(inputs.values())).shape
    if len(shape) != 3:
        return ()
    found = []
    for each in sight:
        if each.clean >= _POOR:
            continue
        backend, base = model.backend(each.name, shape), model.bases[each.name]
        own = _own_normalisation(base) if isinstance(base, nn.Module) else None
        before = _accuracy(backend, rows[each.name], some, labels, lambda image: image)
        shares = {
            expects: _accuracy(backend, rows[each.name], some, labels, change)
            for expects, change in _candidates(shape[0], own)
        }
        best = max(shares, key=lambda expects: shares[expects])
        if shares[best] >= before + _LIFT and _end(shares[best], len(some), 0) > _end(before, len(some), 1):
            found.append(Misfit(each.name, best, len(some), before, shares[best]))
    return tuple(found)


def _accuracy(
    backend: Backend, rows: int, inputs: Mapping[int, Tensor], labels: Mapping[int, int], change: _Change
) -> float:
    answers = clean_answers(backend, rows, {i: change(image) for i, image in inputs.items()})
    return sum(answers[i] == labels[i] for i in inputs) / len(inputs)


def _end(share: float, images: int, which: int) -> float:
    return float(confidence_interval(round(share * images), images)[which])


def _own_normalisation(base: nn.Module) -> Normalize | None:
    """The normalisation that the input meets first, if the module has one that we know how to undo."""
    for module in (base, getattr(base, "network", None)):  # the second of what wraps a network
        if isinstance(found := getattr(module, "normalize", None), Normalize):
            return found
    return None


def _candidates(channels: int, own: Normalize | None) -> Iterator[tuple[str, _Change]]:
    """What a network may expect, and how images in [0, 1] are changed so that it gets just that.

    A normalisation of its own is undone, so that what follows it gets what the name says.
    """
    instead = "" if own is None else ", in the place of its own normalisation"

    def scaled(factor: Tensor, summand: Tensor) -> _Change:
        if own is None:
            return lambda image: image * factor + summand
        mean, std = own.mean[0].cpu(), own.std[0].cpu()
        return lambda image: (image * factor + summand) * std + mean

    yield f"inputs in [0, 255]{instead}", scaled(torch.tensor(255.0), torch.tensor(0.0))
    for name, (mean, std) in NORMALISATIONS.items():
        if len(mean) not in (1, channels):
            continue
        m, s = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        shown = f"(x − {_numbers(mean)}) / {_numbers(std)}"
        if own is not None or name != "none":
            yield f"inputs normalised as {name!r}, {shown}{instead}", scaled(1 / s, -m / s)
        if own is None and name != "none":
            twice = f"inputs in [0, 1], and is given them normalised as {name!r}, {shown}, or normalises them twice"
            yield twice, scaled(s, m)
    if channels == 3:
        yield "its colours in the order blue, green, red", lambda image: image.flip(0)


def _numbers(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else f"[{', '.join(f'{value:g}' for value in values)}]"
