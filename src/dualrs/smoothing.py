"""Smoothed classifiers: what most users import."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from dualrs.certificates import (
    Certificate,
    Procedure,
    certify,
    dual_certify,
    dual_predict,
    expert_name,
    predict,
)
from dualrs.models import Bundle, InputSpec, Part, load_bundle, save_bundle
from dualrs.sampling import Backend, BackendName, Base, Engine, Job, make_backend

Rule = Literal["min"]


CLASSIFIER = "classifier"
"""The name by which procedures ask for the one base classifier of a `SmoothedClassifier`."""


class Smoothed:
    """What smoothed classifiers have in common: base classifiers by name, and an engine that runs them.

    Attributes:
        num_classes: K; None until known (from the constructor or the first answer).
        input: shape and range that inputs must have; None if anything goes.
        classes: the names of the classes, if known.
        info: whatever a bundle recorded about the model.
    """

    def __init__(
        self,
        bases: Mapping[str, Base | Backend],
        outputs: Mapping[str, int],
        *,
        num_classes: int | None,
        backend: BackendName,
        device: str,
        batch_size: int,
    ) -> None:
        self.num_classes = num_classes
        self.input: InputSpec | None = None
        self.classes: tuple[str, ...] | None = None
        self.info: Mapping[str, Any] = {}
        self._bases, self._outputs = dict(bases), dict(outputs)
        self._backend_name, self._device, self._batch_size = backend, device, batch_size
        self._backends: dict[tuple[int, torch.Size], tuple[bytes, Backend]] = {}

    def engine(self) -> Engine:
        """A fresh engine over the base classifiers; backends are made once and kept until weights change."""
        return Engine(self._backend, batch_size=self._batch_size, outputs=self._outputs)

    def to_input(self, x: Tensor | ArrayLike) -> Tensor:
        """Checks one input and returns it as a float32 tensor on the CPU.

        Raises:
            ValueError: NaN or infinite values, or a shape or range that the model does not take.
        """
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
            tensor = x.detach() if isinstance(x, Tensor) else torch.from_numpy(np.array(x, dtype=np.float32, order="C"))
        tensor = tensor.to("cpu", torch.float32)
        if not torch.isfinite(tensor).all():
            raise ValueError("the input has NaN or infinite values; no certificate can be given for it")
        if self.input is not None:
            if tuple(tensor.shape) != self.input.shape:
                raise ValueError(f"the input has shape {tuple(tensor.shape)}; this model takes {self.input.shape}")
            low, high = self.input.range
            if tensor.min() < low or tensor.max() > high:
                raise ValueError(
                    f"the input's values lie in [{tensor.min():g}, {tensor.max():g}]; this model takes values in "
                    f"[{low:g}, {high:g}] (normalisation is part of the model)"
                )
        return tensor

    def _run(
        self, xs: Iterable[Tensor | ArrayLike], procedure: Callable[[], Procedure], seed: int
    ) -> list[Certificate]:
        procedure().close()  # refuses impossible arguments before any work is done
        jobs = (Job(i, self.to_input(x), {"answer": procedure()}, seed) for i, x in enumerate(xs))
        done = {result.key: result.outcomes["answer"].certificate for result in self.engine().run(jobs)}
        certificates = [done[i] for i in range(len(done))]
        self._learn_classes(certificates)
        return certificates

    def _learn_classes(self, certificates: Iterable[Certificate]) -> None:
        found = {
            len(stage.counts)
            for certificate in certificates
            for stage in certificate.stages
            if stage.model != "estimator"
        }
        if self.num_classes is None and found:
            if len(found) > 1:
                raise ValueError(f"the experts give different numbers of logits: {sorted(found)}")
            (self.num_classes,) = found
            self._outputs |= {name: self.num_classes for name in self._bases if name != "estimator"}

    def _backend(self, name: str, shape: torch.Size) -> Backend:
        base = self._bases[name]
        which = id(base), shape
        # An exported copy would be out of date once its module trains on; the torch backend runs the module itself.
        may_be_copied = self._backend_name != "torch" and self._device == "cpu"
        weights = _weights_digest(base) if may_be_copied and isinstance(base, nn.Module) else b""
        if which not in self._backends or self._backends[which][0] != weights:
            backend = make_backend(
                base,
                input_shape=shape,
                batch_size=self._batch_size,
                backend=self._backend_name,
                device=self._device,
            )
            self._backends[which] = weights, backend
        return self._backends[which][1]


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
        self.sigma = _noise_level("sigma", sigma)
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
            seed: of the noise; the same input, seed and settings give the same certificate.

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

    def predict(self, x: Tensor | ArrayLike, *, n: int = 10_000, alpha: float = 0.001, seed: int = 0) -> Certificate:
        """With probability at least 1 − α, the label is g(x), or it abstains; nothing is claimed around x.

        PREDICT of Cohen et al. 2019. Arguments as for `certify`.
        """
        return self.predict_batch([x], n=n, alpha=alpha, seed=seed)[0]

    def predict_batch(
        self, xs: Iterable[Tensor | ArrayLike], *, n: int = 10_000, alpha: float = 0.001, seed: int = 0
    ) -> list[Certificate]:
        """The predictions that `predict` gives for each input."""
        return self._run(xs, lambda: predict(self.sigma, n=n, alpha=alpha), seed)

    def save(self, folder: str | Path, *, half: bool = False) -> Path:
        """Writes a bundle that `load` reads; see `dualrs.models.save_bundle`."""
        return save_bundle(
            Bundle(
                sigmas=(self.sigma,),
                experts=(CLASSIFIER,),
                parts={CLASSIFIER: _part(self.base, "the base classifier")},
                num_classes=_known_classes(self.num_classes),
                classes=self.classes,
                input=self.input,
                info=self.info,
            ),
            folder,
            half=half,
        )


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
        self.sigma_e = _noise_level("sigma_e", sigma_e)
        if len(experts) < 2:
            raise ValueError(
                f"experts must map two or more σ to base classifiers; got {sorted(experts)} "
                "(for one σ there is SmoothedClassifier)"
            )
        self.experts = {_noise_level("σ of an expert", s): experts[s] for s in sorted(experts)}
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
            {"estimator": estimator, **bases},
            {"estimator": len(self.sigmas), **outputs},
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
            seed: of the noise; the same input, seed and settings give the same certificate.
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

    def predict(self, x: Tensor | ArrayLike, *, n: int = 10_000, alpha: float = 0.001, seed: int = 0) -> Certificate:
        """With probability at least 1 − α, the label is the dual classifier's at x, or it abstains.

        Nothing is claimed around x. Arguments as for `certify`.
        """
        return self.predict_batch([x], n=n, alpha=alpha, seed=seed)[0]

    def predict_batch(
        self, xs: Iterable[Tensor | ArrayLike], *, n: int = 10_000, alpha: float = 0.001, seed: int = 0
    ) -> list[Certificate]:
        """The predictions that `predict` gives for each input."""
        return self._run(xs, lambda: dual_predict(self.sigma_e, self.sigmas, n=n, alpha=alpha), seed)

    def save(self, folder: str | Path, *, half: bool = False) -> Path:
        """Writes a bundle that `load` reads; see `dualrs.models.save_bundle`."""
        parts: dict[str, Part] = {"estimator": _part(self.estimator, "the estimator")}
        names: dict[int, str] = {}
        for sigma, base in self.experts.items():
            if id(base) not in names:  # one base classifier may serve several σ
                names[id(base)] = expert_name(sigma)
                parts[expert_name(sigma)] = _part(base, f"the expert for σ={sigma:g}")
        return save_bundle(
            Bundle(
                sigmas=self.sigmas,
                experts=tuple(names[id(base)] for base in self.experts.values()),
                parts=parts,
                num_classes=_known_classes(self.num_classes),
                sigma_e=self.sigma_e,
                classes=self.classes,
                input=self.input,
                info=self.info,
            ),
            folder,
            half=half,
        )


def load(
    folder: str | Path, *, backend: BackendName = "auto", device: str = "cpu", batch_size: int = 256
) -> SmoothedClassifier | DualSmoothedClassifier:
    """Loads a bundle written by ``save``; executes no code from it.

    Args:
        folder: the bundle.
        backend: as for `SmoothedClassifier`.
        device: as for `SmoothedClassifier`.
        batch_size: as for `SmoothedClassifier`.

    Raises:
        BundleError: the folder is no bundle, or one of its files is missing, truncated or altered.
    """
    bundle = load_bundle(folder)
    experts = {s: bundle.parts[name] for s, name in zip(bundle.sigmas, bundle.experts, strict=True)}
    model: SmoothedClassifier | DualSmoothedClassifier
    if bundle.sigma_e is None:
        (sigma,) = bundle.sigmas
        model = SmoothedClassifier(
            experts[sigma], sigma, bundle.num_classes, backend=backend, device=device, batch_size=batch_size
        )
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # whoever built the model was warned about σ_e
            model = DualSmoothedClassifier(
                bundle.parts["estimator"],
                bundle.sigma_e,
                experts,
                bundle.num_classes,
                backend=backend,
                device=device,
                batch_size=batch_size,
            )
    model.input, model.classes, model.info = bundle.input, bundle.classes, bundle.info
    return model


def _noise_level(what: str, sigma: float) -> float:
    if not 0 < sigma < float("inf"):
        raise ValueError(f"{what} must be positive and finite (a standard deviation in input units); got {sigma!r}")
    return float(sigma)


def _weights_digest(module: nn.Module) -> bytes:
    digest = hashlib.blake2b()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def _part(base: Base | Backend, what: str) -> Part:
    if isinstance(base, nn.Module):
        return base
    if isinstance(base, str | Path):
        return Path(base)
    raise TypeError(
        f"{what} is a {type(base).__name__}, which cannot be saved; a bundle holds networks made by "
        "dualrs.models.build_network and .onnx files"
    )


def _known_classes(num_classes: int | None) -> int:
    if num_classes is None:
        raise ValueError("the number of classes is not known yet: pass num_classes to the constructor before saving")
    return num_classes
