"""The smoothed classifier whose noise level is chosen for each input."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from dualrs.certificates import Procedure, dual_certify, expert_name, routed_certify
from dualrs.models import Part
from dualrs.sampling import Backend, Base
from dualrs.smoothing.base import ESTIMATOR, Smoothed, check_noise_level, to_part
from dualrs.smoothing.options import CertifyOptions, Execution, adaptive_arguments, fixed_arguments


class DualSmoothedClassifier(Smoothed):
    """A smoothed classifier whose noise level is chosen for each input, with a certificate for the choice too.

    A variance estimator, smoothed at σ_e, picks σ from a finite set Σ; the expert for that σ, smoothed at σ,
    answers (Sun, Mao & Vechev 2026, arXiv 2512.01782).

    Args:
        estimator: base classifier with one output per σ; the i-th stands for the i-th σ in ascending order.
        sigma_e: its noise level σ_e, in the units of the input.
        experts: the base classifier for each σ in Σ, two or more. One classifier for all: ``{s: f for s in Σ}``.
        num_classes: K; learned from the first answer if absent.
        **execution: how they run, see `dualrs.smoothing.Execution`.

    Warns:
        UserWarning: σ_e < max Σ. The certificates are sound, but the estimator then limits the radius.
    """

    def __init__(
        self,
        estimator: Base | Backend,
        sigma_e: float,
        experts: Mapping[float, Base | Backend],
        num_classes: int | None = None,
        **execution: Unpack[Execution],
    ) -> None:
        self.sigma_e = check_noise_level("sigma_e", sigma_e)
        if len(experts) < 2:
            raise ValueError(
                f"experts must map two or more σ to base classifiers; got {sorted(experts)} "
                "(for one σ there is SmoothedClassifier)"
            )
        self.experts = {check_noise_level("σ of an expert", s): experts[s] for s in sorted(experts)}
        self.estimator = estimator
        if self.sigma_e < max(self.sigmas):
            warnings.warn(
                f"sigma_e = {self.sigma_e:g} is below the largest σ of the experts, {max(self.sigmas):g}: sound, "
                "but the estimator will limit the certified radius",
                stacklevel=2,
            )
        bases: dict[str, Base | Backend] = {expert_name(s): f for s, f in self.experts.items()}
        if len(bases) < len(self.experts):
            raise ValueError(f"the noise levels {self.sigmas} differ by less than their names {tuple(bases)} can tell")
        outputs = {} if num_classes is None else dict.fromkeys(bases, num_classes)
        super().__init__(
            {ESTIMATOR: estimator, **bases},
            {ESTIMATOR: len(self.sigmas), **outputs},
            num_classes=num_classes,
            execution=execution,
        )

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Σ, ascending."""
        return tuple(self.experts)

    def procedure(self, rule: str | None = None, **options: Unpack[CertifyOptions]) -> Procedure:
        """A fresh procedure that certifies one input.

        Args:
            rule: "routed" (the default): the radius is min_i max(X_i, R_i), positive wherever all experts that may be
                chosen agree (`dualrs.certificates.routed_certify`). "min": the paper's, min(R_σ, R_c) from two
                fixed samplings (Theorems 4.1 and 4.2), for comparison with published numbers.
            **options: see `dualrs.smoothing.CertifyOptions`.

        Raises:
            ValueError: there is no such rule, or an option is impossible.
        """
        match rule:
            case None | "routed":
                return routed_certify(self.sigma_e, self.sigmas, **adaptive_arguments(options))
            case "min":
                return dual_certify(self.sigma_e, self.sigmas, **fixed_arguments(rule, options))
        raise ValueError(f"unknown rule {rule!r}; known: 'routed', 'min'")

    def save(self, folder: str | Path, *, half: bool = False) -> Path:
        """Writes a bundle that `load` reads; see `dualrs.models.save_bundle`."""
        parts: dict[str, Part] = {ESTIMATOR: to_part(self.estimator, "the estimator")}
        names: dict[int, str] = {}
        for sigma, base in self.experts.items():
            if id(base) not in names:  # one base classifier may serve several σ
                names[id(base)] = expert_name(sigma)
                parts[expert_name(sigma)] = to_part(base, f"the expert for σ={sigma:g}")
        experts = {sigma: names[id(base)] for sigma, base in self.experts.items()}
        return self._save(folder, half=half, experts=experts, parts=parts, sigma_e=self.sigma_e)
