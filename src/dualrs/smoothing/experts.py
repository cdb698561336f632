"""The experts that a variance estimator chooses from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dualrs.certificates import expert_name
from dualrs.sampling import Backend, Base
from dualrs.smoothing.base import ESTIMATOR, at_noise_level, check_noise_level


@dataclass(frozen=True, init=False)
class Expert:
    """A base classifier at the noise level at which it is smoothed: what the variance estimator may choose.

    Args:
        base: a module in eval mode, the path of an ``.onnx`` file, or any callable, as for `SmoothedClassifier`.
            It may have an architecture and an input pipeline of its own; it gets the noisy input as it is.
        sigma: noise level σ, in the units of the input.
        name: by which its votes, its file and its results are told from those of others; ``expert-σ`` if None. It is
            part of the seed of the noise, so under another name the same base classifier meets other noise.

    Raises:
        ValueError: σ is not positive and finite, or the name is empty or the estimator's.
    """

    base: Base | Backend
    sigma: float
    name: str

    def __init__(self, base: Base | Backend, sigma: float, name: str | None = None) -> None:
        sigma = check_noise_level("σ of an expert", sigma)
        name = expert_name(sigma) if name is None else name
        if name in ("", ESTIMATOR):
            raise ValueError(f"an expert needs a name, and another one than the estimator's; got {name!r}")
        for field, value in (("base", at_noise_level(base, sigma)), ("sigma", sigma), ("name", name)):
            object.__setattr__(self, field, value)


def check_experts(experts: Mapping[float, Base | Backend] | Sequence[Expert]) -> tuple[Expert, ...]:
    """Returns the experts by ascending σ, those of one σ in the order given.

    Raises:
        TypeError: they are neither a mapping nor a sequence of `Expert`.
        ValueError: there are fewer than two, or two have one name.
    """
    pool = [Expert(base, sigma) for sigma, base in experts.items()] if isinstance(experts, Mapping) else list(experts)
    if strange := [expert for expert in pool if not isinstance(expert, Expert)]:
        raise TypeError(
            "experts must be a mapping from σ to base classifiers or a sequence of dualrs.Expert; got a "
            f"{type(strange[0]).__name__} among them"
        )
    names = [expert.name for expert in pool]
    if len(pool) < 2:
        raise ValueError(f"a choice takes two or more experts; got {names} (for one σ there is SmoothedClassifier)")
    if len(set(names)) < len(names):
        raise ValueError(
            f"names tell experts apart, so no two may have one; got {names}. Where experts share a σ, name them: "
            "Expert(base, sigma, name)"
        )
    return tuple(sorted(pool, key=lambda expert: expert.sigma))
