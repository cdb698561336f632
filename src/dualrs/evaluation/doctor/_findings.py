"""What the figures mean, and what to do about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import torch

from dualrs.evaluation.doctor._figures import Diagnosis, Finding, Level, Sight, floored, percent
from dualrs.smoothing import ESTIMATOR

_SLOW, _EMPTY = 0.8, 0.8  # a ratio of speeds and a fill rate below which something can be gained
_BUSY = 2.0  # a spread of rounds beyond which no ratio of speeds is worth reading
_ALWAYS = 0.95  # a share of choices that leaves nothing to choose


def judge(diagnosis: Diagnosis) -> tuple[Finding, ...]:
    """The findings about what was measured, problems first."""
    parts = (_on_function, _on_speed, _on_work, _on_caps, _on_inputs, _on_sight, _on_choices)
    found = [finding for part in parts for finding in part(diagnosis)]
    found += [Finding("note", f"Not examined: {part}, because {reason}.") for part, reason in diagnosis.skipped.items()]
    return tuple(sorted(found, key=lambda finding: get_args(Level).index(finding.level)))


def _on_function(diagnosis: Diagnosis) -> Iterator[Finding]:
    for base in diagnosis.bases:
        if base.refused:
            yield Finding("problem", f"{base.name} is refused: {base.refused}.".replace("..", "."))
    if moving := [base.name for base in diagnosis.bases if base.same_bits is False]:
        yield Finding(
            "note",
            f"The last bits of the logits of {', '.join(moving)} depend on where a row stands in its batch: sound, but "
            "where two logits tie to that precision, counts need not repeat at another batch size.",
        )
    elif all(base.same_bits for base in diagnosis.bases):
        text = "Every base classifier is one fixed function, as far as probes show, wherever a row stands in its batch."
        yield Finding("ok", text)


def _on_speed(diagnosis: Diagnosis) -> Iterator[Finding]:
    slow = {base.name: base.ratio for base in diagnosis.bases if base.ratio is not None and base.ratio < _SLOW}
    spread = max(base.spread or 1.0 for base in diagnosis.bases)
    if spread > _BUSY:
        text = f"The same work took up to {spread:.1f} times as long at another moment, so the machine is busy"
        yield Finding("note", f"{text}: repeat this when nothing else runs.")
    elif slow:
        yield Finding(
            "note",
            f"With {', '.join(slow)} the engine reaches as little as {percent(min(slow.values()))} of the bare "
            "network's speed; noise is drawn on the CPU, so more cores help, and a faster network would not.",
        )
    if torch.cuda.is_available() and all(base.device == "cpu" for base in diagnosis.bases):
        yield Finding("note", "A GPU is here and nothing ran on it: try --device cuda, in Python device='cuda'.")


def _on_work(diagnosis: Diagnosis) -> Iterator[Finding]:
    work = diagnosis.work
    if work is None:
        return
    rows = max(base.batch_size for base in diagnosis.bases)
    if work.fill_rate < _EMPTY:
        yield Finding(
            "note",
            f"Only {percent(work.fill_rate)} of the evaluated rows were asked for, as {work.inputs} inputs do not "
            f"fill batches of {rows}: certify more inputs at once, or take a smaller batch_size.",
        )
    minutes = 1000 * work.seconds_per_input / 60
    yield Finding("ok", f"1,000 inputs take about {minutes:,.1f} min; a tolerance or a smaller n saves votes.")
    if work.made_up:
        return  # what is certified of random images says nothing
    level: Level = "problem" if work.abstained == work.inputs else "note" if 2 * work.abstained > work.inputs else "ok"
    text = f"The model abstained on {work.abstained} of {work.inputs} inputs"
    if work.abstained:
        parts = {
            "the expert's votes had no clear winner (see its accuracy under noise)": work.abstained - work.unsettled,
            "the choice of σ was not settled while the experts disagree (see the estimator)": work.unsettled,
        }
        text += ": " + ", ".join(f"on {times} {reason}" for reason, times in parts.items() if times)
    yield Finding(level, f"{text}.")


def _on_caps(diagnosis: Diagnosis) -> Iterator[Finding]:
    n, alpha, smallest = diagnosis.n, diagnosis.alpha, diagnosis.smallest_n
    if n < smallest:
        text = f"n = {n:,} can certify nothing at α = {alpha:g}, however clear the votes"
        yield Finding("problem", f"{text}: use an n of at least {smallest:,}.")
        return
    few, many = (
        max((cap for cap in diagnosis.caps if cap.n == votes and cap.name != ESTIMATOR), key=lambda cap: cap.sigma)
        for votes in (n, 10 * n)
    )
    text = f"n = {n:,} certifies radii up to {floored(few.radius)}, ten times the votes up to {floored(many.radius)}"
    yield Finding("ok", f"{text}; it takes n = {smallest:,} to certify anything.")
    choice = next((cap for cap in diagnosis.caps if cap.name == ESTIMATOR and cap.n == n), None)
    if choice is not None and choice.sigma < few.sigma:
        yield Finding(
            "note",
            f"σ_e = {choice.sigma:g} is below the largest σ, {few.sigma:g}: wherever the experts disagree, the "
            f"choice of σ caps the radius at {floored(choice.radius)}; train the estimator at σ_e ≥ {few.sigma:g}.",
        )


def _on_inputs(diagnosis: Diagnosis) -> Iterator[Finding]:
    for each in diagnosis.misfits:
        yield Finding(
            "problem",
            f"{each.name} looks as if it expects {each.expects}: without noise it is right on "
            f"{percent(each.before, 1)} of {each.images} images as they are, and on {percent(each.after, 1)} if they "
            "are changed to that. Normalisation belongs inside the network, once; noise is added to images in [0, 1].",
        )


def _on_sight(diagnosis: Diagnosis) -> Iterator[Finding]:
    for each in diagnosis.sight:
        if each.invalid:
            yield Finding(
                "problem",
                f"{each.name} gives NaN logits for {percent(each.invalid, 1)} of noisy images, and these votes count "
                "against every class: look for overflow, above all in 16-bit precision.",
            )
        if diagnosis.chance is not None and (each.interval[0] <= diagnosis.chance or each.answer_share == 1):
            explained = any(misfit.name == each.name for misfit in diagnosis.misfits)
            yield Finding("problem", _blind(each, diagnosis.chance, explained=explained))
        elif each.noisy < each.clean / 2:
            yield Finding(
                "note",
                f"{each.name} falls from {percent(each.clean, 1)} without noise to {percent(each.noisy, 1)} at "
                f"σ = {each.sigma:g}: train it under noise of that σ, or put a denoiser before it.",
            )


def _blind(sight: Sight, chance: float, *, explained: bool) -> str:
    low, high = sight.interval
    text = (
        f"{sight.name} is right on {percent(sight.noisy, 1)} of {sight.images} images under noise of σ = "
        f"{sight.sigma:g} (95 % interval {100 * low:.1f} to {100 * high:.1f}), where guessing gives "
        f"{percent(chance, 1)}; without noise on {percent(sight.clean, 1)}"
    )
    if sight.answer_share == 1:
        text += f"; it answers {sight.answer} whatever it sees"
    worst = max(chance, sight.noisy)
    if sight.clean - worst > (1 - worst) / 4:
        return f"{text}. So it can see, but not through noise: train it under noise of that σ, or denoise first."
    if explained:
        return f"{text}. See above for the inputs that it seems to expect."
    causes = "normalisation missing or applied twice (it belongs inside the network, once), or classes in another order"
    return f"{text}. Usual causes: {causes}."


def _on_choices(diagnosis: Diagnosis) -> Iterator[Finding]:
    choices = diagnosis.choices
    if choices is None:
        return
    favourite, most = max(choices.items(), key=lambda choice: choice[1])
    shares = ", ".join(f"σ = {sigma} {percent(share, 1)}" for sigma, share in choices.items())
    if most >= _ALWAYS:
        text = f"The estimator almost always chooses σ = {favourite} ({shares})"
        yield Finding("note", f"{text}: the single expert there does the same with fewer votes.")
    else:
        yield Finding("ok", f"The estimator tells inputs apart: it chose {shares}, by one noise draw each.")
