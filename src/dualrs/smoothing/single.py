"""The smoothed classifier with one noise level for all inputs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from numpy.typing import ArrayLike
from torch import Tensor

from dualrs.certificates import (
    Certificate,
    Procedure,
    certify,
    predict,
)
from dualrs.sampling import Backend, BackendName, Base
from dualrs.smoothing.base import CLASSIFIER, Smoothed, check_noise_level, to_part


class SmoothedClassifier(Smoothed):
    """The class that a base classifier gives most often under Gaussian noise, with certificates.

    ``g(x) = argmax_c P[f(x + δ) = c]``, ``δ ~ N(0, σ² I)`` (Cohen et al. 2019, arXiv 1902.02918).

    Args:
        base: the base classifier f: a module in eval mode, the path of an ``.onnx`` file, or any callable
            from inputs (B, …) to logits (B, K). It gets the noisy input as it is; normalisation, resizing,
            denoising and clipping belong inside it.
        sigma: noise level σ, in the units of the input.
        num_classes: K; learned from the first answer if absent.
        backend: "auto" uses ONNX Runtime on the CPU where the module exports; "torch" or "onnx" insist.
        device: where modules run ("cpu", "cuda", …).
        batch_size: noisy inputs per batch; changes speed, not results.
    """

    def __init__(
        self,
        base: Base | Backend,
        sigma: float,
        num_classes: int | None = None,
        *,
        backend: BackendName = "auto",
        device: str = "cpu",
        batch_size: int = 256,
    ) -> None:
        self.sigma = check_noise_level("sigma", sigma)
        self.base = base
        super().__init__(
            {CLASSIFIER: base},
            {} if num_classes is None else {CLASSIFIER: num_classes},
            num_classes=num_classes,
            backend=backend,
            device=device,
            batch_size=batch_size,
        )

    def certify(
        self, x: Tensor | ArrayLike, *, n0: int = 100, n: int = 10_000, alpha: float = 0.001, seed: int = 0
    ) -> Certificate:
        """With probability at least 1 − α, the label holds at every x' with ‖x' − x‖₂ < radius, or it abstains.

        CERTIFY of Cohen et al. 2019.

        Args:
            x: one input, of any shape.
            n0: selection samples.
            n: estimation samples.
            alpha: failure probability α, over the noise, for an input chosen without knowledge of it.
            seed: of the noise; the same input, seed and settings give the same certificate. Where inputs may be
                adversarial, draw a fresh secret one for each (`secrets.randbits(63)`).

        Raises:
            ValueError: an impossible argument, or an input that the model does not take.
        """
        return self.certify_batch([x], n0=n0, n=n, alpha=alpha, seed=seed)[0]

    def certify_batch(
        self,
        xs: Iterable[Tensor | ArrayLike],
        *,
        n0: int = 100,
        n: int = 10_000,
        alpha: float = 0.001,
        seed: int = 0,
    ) -> list[Certificate]:
        """The certificates that `certify` gives for each input (α holds for each), with full batches throughout."""
        return self._run(xs, lambda: certify(self.sigma, n0=n0, n=n, alpha=alpha), seed)

    def _prediction(self, *, n: int, alpha: float) -> Procedure:
        return predict(self.sigma, n=n, alpha=alpha)

    def save(self, folder: str | Path, *, half: bool = False) -> Path:
        """Writes a bundle that `load` reads; see `dualrs.models.save_bundle`."""
        parts = {CLASSIFIER: to_part(self.base, "the base classifier")}
        return self._save(folder, half=half, experts={self.sigma: CLASSIFIER}, parts=parts)
