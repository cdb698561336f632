"""A smoothed classifier as a classifier of the Adversarial Robustness Toolbox (extra ``dualrs[art]``)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NoReturn, get_args

import numpy as np
from numpy.typing import NDArray

from dualrs.certificates import Certificate
from dualrs.extras import missing
from dualrs.smoothing import Smoothed

try:
    from art.estimators.classification.classifier import ClassifierMixin
    from art.estimators.estimator import BaseEstimator
except ImportError as error:
    raise missing("the Adversarial Robustness Toolbox is not installed here", "art") from error

Scores = Literal["decision", "votes"]


class ARTSmoothedClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A smoothed classifier for the toolbox's black-box attacks; each answer is right but for α.

    An abstention is a class of its own, the last, so that no attack takes it for another label: of K classes of the
    model it makes ``nb_classes`` = K + 1. An attack that ends in that class made the model abstain, which it may do at
    any input; it broke no certificate. Every input has noise of its own, so close to a decision boundary answers change
    back and forth: an attack that searches until it succeeds, as HopSkipJump does, needs a limit on its questions.

    Args:
        model: what answers; the number of its classes must be known.
        input_shape: of one input; that of ``model.input`` if None.
        clip_values: the range that inputs keep to under attack; that of ``model.input`` if None.
        n0: selection samples of each stage.
        n: the most estimation samples of each base classifier.
        alpha: failure probability of each answer, over the noise.
        seed: of the noise; a fresh secret one if None. An attacker who knows it meets a model that α says nothing of.
        scores: what ``predict`` gives: "decision", 1 for the answer and 0 for the others, or "votes", the shares of
            votes of the base classifier that answered, which attacks by scores can follow.

    Raises:
        ValueError: the shape of inputs or the number of classes is not known, or there are no such scores.
    """

    estimator_params: ClassVar[list[str]] = [
        *BaseEstimator.estimator_params,
        *(name for name in ClassifierMixin.estimator_params if name not in BaseEstimator.estimator_params),
        *("input_shape", "n0", "n", "alpha", "seed", "scores"),
    ]

    def __init__(
        self,
        model: Smoothed,
        *,
        input_shape: Sequence[int] | None = None,
        clip_values: tuple[float, float] | None = None,
        n0: int = 100,
        n: int = 10_000,
        alpha: float = 0.001,
        seed: int | None = None,
        scores: Scores = "decision",
    ) -> None:
        if model.num_classes is None:
            raise ValueError("the number of classes is not known yet: give the model num_classes")
        if input_shape is None:
            if model.input is None:
                raise ValueError("the shape of the model's inputs is not known: give input_shape, such as (3, 32, 32)")
            input_shape = model.input.shape
        if scores not in get_args(Scores):
            raise ValueError(f"unknown scores {scores!r}; known: {', '.join(get_args(Scores))}")
        if clip_values is None and model.input is not None:
            clip_values = model.input.range
        super().__init__(model=model, clip_values=clip_values)
        self.nb_classes = model.num_classes + 1
        self._input_shape = tuple(input_shape)
        self.n0, self.n, self.alpha, self.scores = n0, n, alpha, scores
        self.seed = secrets.randbits(63) if seed is None else seed

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input."""
        return self._input_shape

    @property
    def abstention(self) -> int:
        """The class that stands for an abstention: the last."""
        return int(self.nb_classes) - 1

    def predict(self, x: NDArray[Any], batch_size: int = 128, **kwargs: Any) -> NDArray[np.float32]:
        """Scores of shape (inputs, K + 1) whose largest is the answer, each right with probability at least 1 − α.

        Args:
            x: inputs.
            batch_size: the toolbox gives one; how many inputs are certified at once changes no answer here.
            **kwargs: others that the toolbox may give, likewise.

        Raises:
            ValueError: inputs that the model does not take.
        """
        certificates = self._certify(x, target=0.0)
        scores = np.zeros((len(certificates), self.nb_classes), dtype=np.float32)
        for row, certificate in zip(scores, certificates, strict=True):
            answer = self.abstention if certificate.label is None else certificate.label
            row[answer] = 1
            if self.scores == "votes" and certificate.label is not None:
                votes = [stage.counts for stage in certificate.stages if stage.model == certificate.expert]
                shares = np.sum(votes, axis=0) / max(np.sum(votes), 1)
                if shares.argmax() == answer:  # votes for the selection count too, and could turn a close decision
                    row[:-1] = shares
        return scores

    def certify(
        self,
        x: NDArray[Any],
        n: int | None = None,
        batch_size: int = 32,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The label and the certified radius of each input, as the toolbox's own `RandomizedSmoothing` gives them.

        Args:
            x: inputs.
            n: the most estimation samples of each base classifier; the estimator's own if None.
            batch_size: the toolbox gives one; it changes no answer here.

        Returns:
            The labels, -1 where the model abstains, and the radii, 0 there.

        Raises:
            ValueError: inputs that the model does not take, or `n` too small for α.
        """
        certificates = self._certify(x, n=self.n if n is None else n)
        labels = [-1 if certificate.label is None else certificate.label for certificate in certificates]
        return np.array(labels, dtype=np.int64), np.array([certificate.radius for certificate in certificates])

    def fit(self, x: NDArray[Any], y: NDArray[Any], **kwargs: Any) -> NoReturn:
        """Raises NotImplementedError: experts and estimator are trained by ``dualrs train``."""
        raise NotImplementedError("a smoothed classifier is trained by `dualrs train`, not through the toolbox")

    def _certify(self, x: NDArray[Any], **options: Any) -> list[Certificate]:
        inputs, _ = self._apply_preprocessing(np.asarray(x, dtype=np.float32), y=None, fit=False)
        settings = {"n0": self.n0, "n": self.n, "alpha": self.alpha, **options}
        model: Smoothed = self.model
        return model.certify_batch(inputs, seed=self.seed, **settings)
