"""The smoothed classifier whose noise level is chosen for each input."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from numpy.typing import ArrayLike
from torch import Tensor

from dualrs.certificates import (
    Certificate,
    Procedure,
    dual_certify,
    dual_predict,
    expert_name,
)
from dualrs.models import Part
from dualrs.sampling import Backend, BackendName, Base
from dualrs.smoothing.base import ESTIMATOR, Smoothed, check_noise_level, to_part

Rule = Literal["min"]


class DualSmoothedClassifier(Smoothed):
    """A smoothed classifier whose noise level is chosen for each input, with a certificate for the choice too.

    A variance estimator, smoothed at σ_e, picks σ from a finite set Σ; the expert for that σ, smoothed at σ,
    answers (Sun, Mao & Vechev 2026, arXiv 2512.01782).

    Args:
        estimator: base classifier with one output per σ; the i-th stands for the i-th σ in ascending order.
        sigma_e: its noise level σ_e, in the units of the input.
        experts: the base classifier for each σ in Σ, two or more. One classifier for all: ``{s: f for s in Σ}``.
        num_classes: K; learned from the first answer if absent.
        backend: as for `SmoothedClassifier`.
        device: as for `SmoothedClassifier`.
        batch_size: as for `SmoothedClassifier`.

    Warns:
        UserWarning: σ_e < max Σ. The certificates are sound, but the estimator then limits the radius.
    """

    def __init__(
        self,
        estimator: Base | Backend,
        sigma_e: float,
        experts: Mapping[float, Base | Backend],
        num_classes: int | None = None,
        *,
        backend: BackendName = "auto",
        device: str = "cpu",
        batch_size: int = 256,
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
            backend=backend,
            device=device,
            batch_size=batch_size,
        )

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Σ, ascending."""
        return tuple(self.experts)

    def certify(
        self,
        x: Tensor | ArrayLike,
        *,
        n0: int = 100,
        n: int = 10_000,
        alpha: float = 0.001,
        seed: int = 0,
        rule: Rule = "min",
    ) -> Certificate:
        """With probability at least 1 − α, the label holds at every x' with ‖x' − x‖₂ < radius, or it abstains.

        Args:
            x: one input, of any shape.
            n0: selection samples of each stage.
            n: estimation samples of each stage.
            alpha: failure probability α of both stages together, over the noise, for an input chosen without
                knowledge of it.
            seed: of the noise; the same input, seed and settings give the same certificate. Where inputs may be
                adversarial, draw a fresh secret one for each (`secrets.randbits(63)`).
            rule: "min", the paper's: the radius is min(R_σ, R_c) (Theorems 4.1 and 4.2).

        Raises:
            ValueError: an impossible argument, or an input that the model does not take.
        """
        return self.certify_batch([x], n0=n0, n=n, alpha=alpha, seed=seed, rule=rule)[0]

    def certify_batch(
        self,
        xs: Iterable[Tensor | ArrayLike],
        *,
        n0: int = 100,
        n: int = 10_000,
        alpha: float = 0.001,
        seed: int = 0,
        rule: Rule = "min",
    ) -> list[Certificate]:
        """The certificates that `certify` gives for each input (α holds for each), with full batches throughout."""
        if rule != "min":
            raise ValueError(f"unknown rule {rule!r}; known: 'min'")
        return self._run(xs, lambda: dual_certify(self.sigma_e, self.sigmas, n0=n0, n=n, alpha=alpha), seed)

    def _prediction(self, *, n: int, alpha: float) -> Procedure:
        return dual_predict(self.sigma_e, self.sigmas, n=n, alpha=alpha)

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
