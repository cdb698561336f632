"""A smoothed classifier as a classifier of scikit-learn (extra ``dualrs[sklearn]``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dualrs.certificates import Certificate
from dualrs.extras import missing
from dualrs.smoothing import Smoothed

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_array, check_consistent_length
except ImportError as error:
    raise missing("scikit-learn is not installed here", "sklearn") from error


class SmoothedEstimator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A smoothed classifier for scikit-learn's pipelines and model selection; each answer is right but for α.

    The model is trained already, so ``fit`` changes nothing and is not needed; clones share the model. Radii are in the
    units of what reaches this step: steps before it in a pipeline change them.

    Args:
        model: what answers.
        classes: the labels that ``y`` has, in the order of the model's classes; 0, 1, … if None.
        abstention: what ``predict`` gives where the model abstains; no class, and of the same type as they.
        input_shape: of one input, to which rows of a flat ``X`` are brought; if None, that of ``model.input``, and
            where nothing is known of it rows stay as they are.
        n0: selection samples of each stage.
        n: the most estimation samples of each base classifier.
        alpha: failure probability of each answer, over the noise.
        seed: of the noise; the same input and settings give the same answer. Where inputs may be adversarial, draw a
            secret one (`secrets.randbits(63)`).

    Attributes:
        classes_: the labels of the classes; there once their number is known.
        n_features_in_: the values of one input; there if the shape of inputs is known.
    """

    def __init__(
        self,
        model: Smoothed,
        *,
        classes: Sequence[Any] | None = None,
        abstention: Any = -1,
        input_shape: Sequence[int] | None = None,
        n0: int = 100,
        n: int = 10_000,
        alpha: float = 0.001,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.classes = classes
        self.abstention = abstention
        self.input_shape = input_shape
        self.n0 = n0
        self.n = n
        self.alpha = alpha
        self.seed = seed

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:  # noqa: N803
        """Changes nothing: the model is trained already. Checks the settings, and returns the estimator.

        Raises:
            ValueError: the inputs have a shape that the model does not take, there are not as many labels, or
                ``classes`` or ``abstention`` do not fit the model.
        """
        inputs = self._inputs(X)
        if y is not None:
            check_consistent_length(inputs, y)
        if self.model.num_classes is not None:
            self._labels()
        return self

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels of the classes, in the order of the model's."""
        if self.classes is not None:
            return np.asarray(self.classes)
        if self.model.num_classes is None:
            raise AttributeError(
                "the number of classes is not known before the first answer: give the model num_classes"
            )
        return np.arange(self.model.num_classes)

    @property
    def n_features_in_(self) -> int:
        """The values of one input."""
        shape = self._shape
        if shape is None:
            raise AttributeError("the shape of inputs is not known: give input_shape")
        return int(np.prod(shape))

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """The label of each input, each right with probability at least 1 − α, or ``abstention``.

        Raises:
            ValueError: inputs that the model does not take, or impossible settings.
        """
        return self._answers(self._predict(X))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """The share of votes that each class got from the base classifier that answered: an estimate, no guarantee.

        The shares are over the noise, of the votes by which ``predict`` decided. They say how often the base classifier
        gives a class under noise, not how likely the class is true: use them to rank inputs, not as calibrated
        probabilities. Where it abstains a class may lead that ``predict`` does not give. A row is NaN if no base
        classifier was chosen, or no vote named a class.

        Raises:
            ValueError: see ``predict``.
        """
        certificates = self._predict(X)
        rows = np.full((len(certificates), len(self._labels())), np.nan)
        for row, certificate in zip(rows, certificates, strict=True):
            votes = [stage.counts for stage in certificate.stages if stage.model == certificate.expert]
            counts = np.sum(votes, axis=0) if votes else np.zeros(1)
            if certificate.expert is not None and counts.sum() > 0:
                row[:] = counts / counts.sum()
        return rows

    def certificates(self, X: ArrayLike) -> list[Certificate]:  # noqa: N803
        """The certificate of each input, with all that it rests on; α holds for each.

        Raises:
            ValueError: see ``predict``.
        """
        return self.model.certify_batch(self._inputs(X), seed=self.seed, n0=self.n0, n=self.n, alpha=self.alpha)

    def certify(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """The certified radius of each input: no closer input gets another label. 0 where the model abstains.

        Raises:
            ValueError: see ``predict``.
        """
        return np.array([certificate.radius for certificate in self.certificates(X)])

    def score(
        self,
        X: ArrayLike,  # noqa: N803
        y: ArrayLike,
        radius: float = 0.0,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Certified accuracy: the share of inputs with the true label and a certified radius above this one.

        At radius 0 this is the share of right predictions; an abstention counts as wrong. Sampling stops as soon as it
        is decided whether an input's radius is larger, so few more votes are taken than that needs.

        Args:
            X: inputs.
            y: their true labels.
            radius: at least 0, in the units of the inputs.
            sample_weight: of each input, 1 if None.

        Raises:
            ValueError: see ``predict``; or a negative radius, or another number of labels than of inputs.
        """
        if not radius >= 0:
            raise ValueError(f"a radius is at least 0; got {radius!r}")
        truth = np.asarray(y)
        certificates = self.model.certify_batch(
            self._inputs(X), seed=self.seed, n0=self.n0, n=self.n, alpha=self.alpha, target=float(radius)
        )
        if truth.shape != (len(certificates),):
            raise ValueError(f"{len(certificates)} inputs need as many labels; got y of shape {truth.shape}")
        reached = np.array([certificate.radius > radius for certificate in certificates], dtype=bool)
        right = reached & (self._answers(certificates) == truth)
        return float(np.average(right, weights=None if sample_weight is None else np.asarray(sample_weight)))

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> Self:
        return type(self)(**self.get_params(deep=False))  # nothing alters the model, and copies would take its memory

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.three_d_array = True
        tags.classifier_tags.poor_score = True  # it has learned what it has learned, whatever data it meets
        return tags

    @property
    def _shape(self) -> tuple[int, ...] | None:
        if self.input_shape is not None:
            return tuple(self.input_shape)
        return None if self.model.input is None else self.model.input.shape

    def _inputs(self, given: ArrayLike) -> NDArray[np.float32]:
        inputs: NDArray[np.float32] = check_array(
            given, dtype=np.float32, allow_nd=True, estimator=self, input_name="X"
        )
        shape = self._shape
        if shape is None or inputs.shape[1:] == shape:
            return inputs
        if inputs.ndim == 2 and inputs.shape[1] == np.prod(shape):
            return inputs.reshape(len(inputs), *shape)
        raise ValueError(
            f"X has shape {inputs.shape}, but SmoothedEstimator is expecting {int(np.prod(shape))} features as input, "
            f"flat or of shape {shape}"
        )

    def _predict(self, given: ArrayLike) -> list[Certificate]:
        inputs = self._inputs(given)
        # As `score` does at radius 0, so that the two agree; this is what the model's own predict does, but for n0.
        return self.model.certify_batch(inputs, seed=self.seed, n0=self.n0, n=self.n, alpha=self.alpha, target=0.0)

    def _answers(self, certificates: Sequence[Certificate]) -> NDArray[Any]:
        labels = np.append(self._labels(), self.abstention)
        return labels[[-1 if certificate.label is None else certificate.label for certificate in certificates]]

    def _labels(self) -> NDArray[Any]:
        """The labels, when it is certain that they and the abstention can be told apart."""
        labels = self.classes_
        if len(labels) != self.model.num_classes or labels.ndim != 1 or len(set(labels.tolist())) < len(labels):
            raise ValueError(
                f"the model has {self.model.num_classes} classes, each with a label; got {labels.tolist()}"
            )
        is_text, abstains_in_text = labels.dtype.kind in "US", isinstance(self.abstention, str)
        if labels.dtype.kind != "O" and is_text != abstains_in_text:
            raise ValueError(
                f"abstention has to be of the type of the labels, such as {'abstained' if is_text else -1!r}; got "
                f"{self.abstention!r}"
            )
        if self.abstention in labels.tolist():
            raise ValueError(f"abstention is {self.abstention!r}, which is a label: choose a value that is none")
        return labels
