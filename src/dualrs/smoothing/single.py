"""The smoothed classifier with one noise level for all inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from dualrs.certificates import Procedure, Watch, adaptive_certify, certify
from dualrs.sampling import Backend, Base
from dualrs.smoothing.base import CLASSIFIER, Smoothed, at_noise_level, check_noise_level, to_part
from dualrs.smoothing.options import CertifyOptions, Execution, adaptive_arguments, fixed_arguments


class SmoothedClassifier(Smoothed):
    """The class that a base classifier gives most often under Gaussian noise, with certificates.

    ``g(x) = argmax_c P[f(x + δ) = c]``, ``δ ~ N(0, σ² I)`` (Cohen et al. 2019, arXiv 1902.02918).

    Args:
        base: the base classifier f: a module in eval mode, the path of an ``.onnx`` file, or any callable
            from inputs (B, …) to logits (B, K). It gets the noisy input as it is; normalisation, resizing,
            denoising and clipping belong inside it. A module that is told σ (``takes_sigma``) is told this one.
        sigma: noise level σ, in the units of the input.
        num_classes: K; learned from the first answer if absent.
        **execution: how it runs, see `dualrs.smoothing.Execution`.
    """

    def __init__(
        self,
        base: Base | Backend,
        sigma: float,
        num_classes: int | None = None,
        **execution: Unpack[Execution],
    ) -> None:
        self.sigma = check_noise_level("sigma", sigma)
        self.base = at_noise_level(base, self.sigma)
        outputs = {} if num_classes is None else {CLASSIFIER: num_classes}
        super().__init__({CLASSIFIER: self.base}, outputs, num_classes=num_classes, execution=execution)

    def procedure(
        self, rule: str | None = None, *, watch: Watch | None = None, **options: Unpack[CertifyOptions]
    ) -> Procedure:
        """A fresh procedure that certifies one input.

        Args:
            rule: "adaptive" (the default): bounds on the strongest rival too, sampling stops when the goal is
                reached (`dualrs.certificates.adaptive_certify`). "cohen": CERTIFY of Cohen et al. 2019 as
                published, for comparison with published numbers.
            watch: see `dualrs.smoothing.Smoothed.certify`.
            **options: see `dualrs.smoothing.CertifyOptions`.

        Raises:
            ValueError: there is no such rule, or an option is impossible.
        """
        match rule:
            case None | "adaptive":
                return adaptive_certify(self.sigma, **adaptive_arguments(options, watch))
            case "cohen":
                return certify(self.sigma, **fixed_arguments(rule, options, watch))
        raise ValueError(f"unknown rule {rule!r}; known: 'adaptive', 'cohen'")

    def save(self, folder: str | Path, *, half: bool = False) -> Path:
        """Writes a bundle that `load` reads; see `dualrs.models.save_bundle`."""
        parts = {CLASSIFIER: to_part(self.base, "the base classifier")}
        return self._save(folder, half=half, sigmas=(self.sigma,), experts=(CLASSIFIER,), parts=parts)
