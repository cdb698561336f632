"""Hyper-parameters of the training methods, one section of the configuration each.

Defaults are the papers' for CIFAR-10. Lengths are ℓ2 norms in the units of the images, which are in [0, 1].
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, Tag, model_validator

from dualrs.config import Section

_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Draws = Annotated[int, Field(ge=1, description="noisy copies of each image in a step (m)")]
_SeveralDraws = Annotated[int, Field(ge=2, description="noisy copies of each image in a step (m)")]
_Steps = Annotated[int, Field(ge=1, description="steps of the attack (T)")]
_Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]

_TEN_OF_150_EPOCHS = 1 / 15


class Gaussian(Section):
    """Gaussian augmentation: cross-entropy on one noisy copy.

    Source: Cohen et al. 2019 (arXiv 1902.02918), section 3.3.
    """

    name: Literal["gaussian"] = "gaussian"
    noise_vectors: ClassVar[int] = 1


class Stability(Section):
    """Stability training: cross-entropy on the clean image, and of the noisy prediction against the clean one.

    Source: Li et al. 2019 (arXiv 1809.03113), stability training with cross-entropy as the distance.
    """

    name: Literal["stability"] = "stability"
    weight: _Weight = Field(default=2.0, description="of the stability term (λ)")
    noise_vectors: ClassVar[int] = 1


class SmoothAdv(Section):
    """SmoothAdv: cross-entropy on noisy copies of an image that is adversarial to the soft smoothed classifier.

    Source: Salman et al. 2019 (arXiv 1906.04584), Pseudocode 1; values as its authors and Jeong et al. use at σ = 0.25.
    """

    name: Literal["smoothadv"] = "smoothadv"
    noise_vectors: _Draws = 4
    epsilon: _Positive = Field(default=1.0, description="radius of the attack")
    steps: _Steps = 10
    warmup: _Share = Field(
        default=_TEN_OF_150_EPOCHS, description="share of the training in which epsilon grows from 0"
    )


class Macer(Section):
    """MACER: cross-entropy of the soft smoothed classifier, and a hinge on its certified radius.

    Source: Zhai et al. 2020 (arXiv 2001.02378), Algorithm 1.
    """

    name: Literal["macer"] = "macer"
    noise_vectors: _Draws = 16
    weight: _Weight = Field(default=12.0, description="of the robustness loss (λ)")
    deferred: _Share = Field(
        default=0.0, description="share of the training before weight counts; at σ = 1 it needs some, or may not learn"
    )
    beta: _Positive = Field(default=16.0, description="inverse temperature of the softmax in the robustness loss")
    gamma: _Positive = Field(default=8.0, description="margin from which on a radius is large enough; it is σγ/2")


class Consistency(Section):
    """Consistency regularisation: cross-entropy on noisy copies, whose predictions are pulled together.

    Source: Jeong & Shin 2020 (arXiv 2006.04062), eq. 8.
    """

    name: Literal["consistency"] = "consistency"
    noise_vectors: _SeveralDraws = 2
    weight: _Weight = Field(default=10.0, description="of the divergence from the mean prediction (λ)")
    entropy: _Weight = Field(default=0.5, description="of the mean prediction's entropy (η)")


class SmoothMix(Section):
    """SmoothMix: cross-entropy on noisy copies, and labels that fade to uniform on the way to an adversarial image.

    Source: Jeong et al. 2021 (arXiv 2111.09277), section 3.
    """

    name: Literal["smoothmix"] = "smoothmix"
    noise_vectors: _Draws = 2
    weight: _Weight = Field(default=5.0, description="of the mixed images' loss (η)")
    warmup: _Share = Field(
        default=_TEN_OF_150_EPOCHS, description="share of the training in which weight and one_step grow from 0"
    )
    steps: _Steps = 4
    step_size: _Positive = Field(
        default=2.0, description="length of a step (α), in multiples of the image's σ: the paper's 0.5 at σ = 0.25"
    )
    max_norm: _Positive | None = Field(default=None, description="radius of the attack; none: the image box alone")
    one_step: bool = Field(default=False, description="train on the image after one step instead of the clean one")

    @model_validator(mode="after")
    def _ends_differ(self) -> SmoothMix:
        if self.one_step and self.steps < 2:
            raise ValueError(f"one_step uses up the first step, so steps must be at least 2, not {self.steps}")
        return self


class CatRS(Section):
    """CAT-RS: the easier of the noisy copies for unsure images, the worst of the attacked copies for sure ones.

    Source: Jeong et al. 2023 (arXiv 2212.09000), the combined loss of bottom-K and worst-case Gaussian training.
    """

    name: Literal["catrs"] = "catrs"
    noise_vectors: _SeveralDraws = 4
    weight: _Weight = Field(default=1.0, description="of the worst-case loss (λ)")
    epsilon: _Positive = Field(default=1.0, description="radius of the attack on each draw of noise")
    steps: _Steps = 4


Method = Annotated[
    Annotated[Gaussian, Tag("gaussian")]
    | Annotated[Stability, Tag("stability")]
    | Annotated[SmoothAdv, Tag("smoothadv")]
    | Annotated[Macer, Tag("macer")]
    | Annotated[Consistency, Tag("consistency")]
    | Annotated[SmoothMix, Tag("smoothmix")]
    | Annotated[CatRS, Tag("catrs")],
    Field(discriminator="name"),
]
"""How an expert is trained; ``name`` says which. The tags are for messages about mistakes in a configuration."""
