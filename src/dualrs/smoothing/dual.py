"""The smoothed classifier whose expert, and with it the noise level, is chosen for each input."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack

from dualrs.certificates import Procedure, Watch, dual_certify, expert_name, routed_certify
from dualrs.models import Part
from dualrs.sampling import Backend, Base
from dualrs.smoothing.base import ESTIMATOR, Smoothed, check_noise_level, to_part
from dualrs.smoothing.experts import Expert, check_experts
from dualrs.smoothing.options import CertifyOptions, Execution, adaptive_arguments, fixed_arguments


class DualSmoothedClassifier(Smoothed):
    """A smoothed classifier whose noise level is chosen for each input, with a certificate for the choice too.

    A variance estimator, smoothed at σ_e, picks an expert of a finite pool; that expert, smoothed at its own σ,
    answers (Sun, Mao & Vechev 2026, arXiv 2512.01782).

    Args:
        estimator: base classifier with one output per expert, in the order of ``model.experts``.
        sigma_e: its noise level σ_e, in the units of the input.
        experts: the pool, two or more: a mapping from σ to the base classifier there (one classifier for all:
            ``{s: f for s in Σ}``), or a sequence of `Expert`, several of which may share a σ.
        num_classes: K; learned from the first answer if absent.
        **execution: how they run, see `dualrs.smoothing.Execution`.

    Attributes:
        experts: by ascending σ, those of one σ in the order given.

    Warns:
        UserWarning: σ_e < max Σ. The certificates are sound, but a choice can then be proved within smaller radii than
            an expert's answer: with rule "min" that limits every radius, with "routed" those near which experts
            disagree.
    """

    def __init__(
        self,
        estimator: Base | Backend,
        sigma_e: float,
        experts: Mapping[float, Base | Backend] | Sequence[Expert],
        num_classes: int | None = None,
        **execution: Unpack[Execution],
    ) -> None:
        self.sigma_e = check_noise_level("sigma_e", sigma_e)
        self.experts = check_experts(experts)
        self.estimator = estimator
        if self.sigma_e < max(self.sigmas):
            warnings.warn(
                f"sigma_e = {self.sigma_e:g} is below the largest σ of the experts, {max(self.sigmas):g}: sound, but "
                "a choice can be proved less far than that expert's answer, so it limits the radius where experts "
                "disagree (with rule 'min' everywhere)",
                stacklevel=2,
            )
        bases = {expert.name: expert.base for expert in self.experts}
        outputs = {} if num_classes is None else dict.fromkeys(bases, num_classes)
        super().__init__(
            {ESTIMATOR: estimator, **bases},
            {ESTIMATOR: len(self.experts), **outputs},
            num_classes=num_classes,
            execution=execution,
        )

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The noise level of each expert, ascending; repeated where several share one."""
        return tuple(expert.sigma for expert in self.experts)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The name of each expert, in the order of ``experts``; None where σ says as much."""
        names = tuple(expert.name for expert in self.experts)
        return None if names == tuple(map(expert_name, self.sigmas)) else names

    def procedure(
        self, rule: str | None = None, *, watch: Watch | None = None, **options: Unpack[CertifyOptions]
    ) -> Procedure:
        """A fresh procedure that certifies one input.

        Args:
            rule: "routed" (the default): the radius is min_i max(X_i, R_i), positive wherever all experts that may be
                chosen agree (`dualrs.certificates.routed_certify`). "min": the paper's, min(R_σ, R_c) from two
                fixed samplings (Theorems 4.1 and 4.2), for comparison with published numbers.
            watch: see `dualrs.smoothing.Smoothed.certify`.
            **options: see `dualrs.smoothing.CertifyOptions`.

        Raises:
            ValueError: there is no such rule, or an option is impossible.
        """
        names = tuple(expert.name for expert in self.experts)
        match rule:
            case None | "routed":
                return routed_certify(self.sigma_e, self.sigmas, experts=names, **adaptive_arguments(options, watch))
            case "min":
                return dual_certify(self.sigma_e, self.sigmas, experts=names, **fixed_arguments(rule, options, watch))
        raise ValueError(f"unknown rule {rule!r}; known: 'routed', 'min'")

    def save(self, folder: str | Path, *, half: bool = False) -> Path:
        """Writes a bundle that `load` reads; see `dualrs.models.save_bundle`."""
        parts: dict[str, Part] = {ESTIMATOR: to_part(self.estimator, "the estimator")}
        files: dict[int, str] = {}
        for expert in self.experts:
            if id(expert.base) not in files:  # one base classifier may serve several σ
                files[id(expert.base)] = expert.name
                parts[expert.name] = to_part(expert.base, f"the expert for σ={expert.sigma:g}")
        return self._save(
            folder,
            half=half,
            sigmas=self.sigmas,
            experts=tuple(files[id(expert.base)] for expert in self.experts),
            names=self.names,
            parts=parts,
            sigma_e=self.sigma_e,
        )
