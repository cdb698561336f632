"""What smoothed classifiers have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from dualrs.certificates import Certificate, Procedure, Watch
from dualrs.models import Bundle, InputSpec, Part, at_sigma, save_bundle, weights_digest
from dualrs.sampling import Backend, Base, Engine, Job, make_backend, make_noise
from dualrs.smoothing.hub import HubMethods
from dualrs.smoothing.options import USUAL, CertifyOptions, Execution

CLASSIFIER = "classifier"
"""The name by which procedures ask for the one base classifier of a `SmoothedClassifier`."""


ESTIMATOR = "estimator"
"""The name by which procedures ask for the variance estimator of a `DualSmoothedClassifier`."""


class Smoothed(HubMethods):
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
        execution: Execution,
    ) -> None:
        if unknown := sorted(execution.keys() - Execution.__annotations__.keys()):
            raise TypeError(f"unknown arguments {', '.join(unknown)}; known: {', '.join(Execution.__annotations__)}")
        self.num_classes = num_classes
        self.input: InputSpec | None = None
        self.classes: tuple[str, ...] | None = None
        self.info: Mapping[str, Any] = {}
        self._bases, self._outputs = dict(bases), dict(outputs)
        how: Execution = {**USUAL, **execution}
        self._backend_name, self._device = how["backend"], how["device"]
        self._batch_size, self._precision = how["batch_size"], how["precision"]
        self._noise = make_noise(how["arithmetic"], how["generator"])
        self._backends: dict[tuple[int, torch.Size], tuple[str, Backend]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_backends": {}}  # they are made anew where the model goes

    @property
    def bases(self) -> Mapping[str, Base | Backend]:
        """The base classifiers, by the names that procedures ask for."""
        return MappingProxyType(self._bases)

    def engine(self, *, at_once: int = 1) -> Engine:
        """A fresh engine over the base classifiers; backends are made once and kept until weights change.

        Args:
            at_once: see `dualrs.sampling.Engine`.
        """
        return Engine(
            self.backend, batch_size=self._batch_size, outputs=self._outputs, noise=self._noise, at_once=at_once
        )

    def backend(self, name: str, shape: torch.Size) -> Backend:
        """What certificates speak of: the very function that `engine` asks for votes, up to date with the weights.

        Args:
            name: of the base classifier, see `bases`.
            shape: of one input.

        Raises:
            KeyError: there is no such base classifier.
            NotAFixedFunctionError: it is a module in training mode.
            TypeError, ValueError: it is no base classifier, or cannot run as asked.
        """
        base, which = self._bases[name], (id(self._bases[name]), shape)
        held = self._backends.get(which)
        # "torch" runs the module itself; whatever else runs a module holds a copy of its weights, perhaps outdated.
        is_copy = isinstance(base, nn.Module) and self._backend_name != "torch"
        is_copy = is_copy and (held is None or held[1].name != "torch")
        weights = weights_digest(base) if is_copy and isinstance(base, nn.Module) else ""
        if held is None or (is_copy and held[0] != weights):
            backend = make_backend(
                base,
                input_shape=shape,
                batch_size=self._batch_size,
                backend=self._backend_name,
                device=self._device,
                precision=self._precision,
            )
            held = self._backends[which] = weights, backend
        return held[1]

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

    def certify(
        self,
        x: Tensor | ArrayLike,
        *,
        seed: int = 0,
        rule: str | None = None,
        watch: Watch | None = None,
        **options: Unpack[CertifyOptions],
    ) -> Certificate:
        """With probability at least 1 − α, the label holds at every x' with ‖x' − x‖₂ < radius, or it abstains.

        Args:
            x: one input, of any shape.
            seed: of the noise; the same input, seed and settings give the same certificate. Where inputs may be
                adversarial, draw a fresh secret one for each (`secrets.randbits(63)`).
            rule: how to certify, see `procedure`; None takes the one with the largest radii.
            watch: is shown, while votes come in, every certificate that holds by then (all of them together with the
                confidence of one), and ends the sampling by returning True. The bounds then hold at every look, for
                which they are a little wider.
            **options: see `CertifyOptions`.

        Raises:
            ValueError: an impossible argument, or an input that the model does not take.
        """
        return self._run([x], lambda: self.procedure(rule, watch=watch, **options), seed)[0]

    def certify_batch(
        self,
        xs: Iterable[Tensor | ArrayLike],
        *,
        seed: int = 0,
        rule: str | None = None,
        **options: Unpack[CertifyOptions],
    ) -> list[Certificate]:
        """The certificates that `certify` gives for each input (α holds for each), with full batches throughout."""
        return self._run(xs, lambda: self.procedure(rule, **options), seed)

    def predict(self, x: Tensor | ArrayLike, *, n: int = 10_000, alpha: float = 0.001, seed: int = 0) -> Certificate:
        """With probability at least 1 − α, the label is the smoothed classifier's at x, or it abstains.

        This is certification that stops as soon as any radius is proved, or hardly can be any more.

        Args:
            x: one input, of any shape.
            n: the most samples of each model.
            alpha: failure probability α, over the noise.
            seed: of the noise, as for `certify`.

        Raises:
            ValueError: an impossible argument, or an input that the model does not take.
        """
        return self.predict_batch([x], n=n, alpha=alpha, seed=seed)[0]

    def predict_batch(
        self, xs: Iterable[Tensor | ArrayLike], *, n: int = 10_000, alpha: float = 0.001, seed: int = 0
    ) -> list[Certificate]:
        """The predictions that `predict` gives for each input."""
        return self.certify_batch(xs, seed=seed, n=n, alpha=alpha, target=0.0)

    @abstractmethod
    def procedure(
        self, rule: str | None = None, *, watch: Watch | None = None, **options: Unpack[CertifyOptions]
    ) -> Procedure:
        """A fresh procedure that certifies one input, for the engine.

        Raises:
            ValueError: there is no such rule, or an option is impossible.
        """

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
            if stage.model != ESTIMATOR
        }
        if self.num_classes is None and found:
            if len(found) > 1:
                raise ValueError(f"the experts give different numbers of logits: {sorted(found)}")
            (self.num_classes,) = found
            self._outputs |= {name: self.num_classes for name in self._bases if name != ESTIMATOR}

    def _save(
        self,
        folder: str | Path,
        *,
        half: bool,
        sigmas: tuple[float, ...],
        experts: tuple[str, ...],
        parts: Mapping[str, Part],
        names: tuple[str, ...] | None = None,
        sigma_e: float | None = None,
    ) -> Path:
        """Writes a bundle of these parts, see `dualrs.models.Bundle`, with what else is known of the model."""
        if self.num_classes is None:
            raise ValueError(
                "the number of classes is not known yet: pass num_classes to the constructor before saving"
            )
        bundle = Bundle(
            sigmas=sigmas,
            experts=experts,
            names=names,
            parts=parts,
            num_classes=self.num_classes,
            sigma_e=sigma_e,
            classes=self.classes,
            input=self.input,
            info=self.info,
        )
        return save_bundle(bundle, folder, half=half)


def at_noise_level(base: Base | Backend, sigma: float) -> Base | Backend:
    """Returns the base classifier; one that is to be told σ comes back with σ told."""
    return at_sigma(base, sigma) if isinstance(base, nn.Module) else base


def check_noise_level(what: str, sigma: float) -> float:
    """Returns a noise level as a float; raises ValueError unless it is positive and finite."""
    if not 0 < sigma < float("inf"):
        raise ValueError(f"{what} must be positive and finite (a standard deviation in input units); got {sigma!r}")
    return float(sigma)


def to_part(base: Base | Backend, what: str) -> Part:
    """A base classifier as a bundle can hold it; raises TypeError if it cannot."""
    if isinstance(base, nn.Module):
        return base
    if isinstance(base, str | Path):
        return Path(base)
    raise TypeError(
        f"{what} is a {type(base).__name__}, which cannot be saved; a bundle holds networks made by "
        "dualrs.models.build_network and .onnx files"
    )
