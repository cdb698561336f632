"""Draws the figures of docs/idea.md into docs/figures/, from shipped models, embedded images and a committed run.

``docs/figures/figures.json`` holds every number that is drawn. Takes about a minute; the same machine draws the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.signal import fftconvolve

import dualrs
from dualrs.data import ArrayDataset, load
from dualrs.evaluation import certified_accuracy, read_parquet

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"
RUN = ROOT / "benchmarks" / "results" / "curves-cifar10"

IMAGE = 54
"""Of the embedded Fashion-MNIST sample: a pullover, for which all three experts matter."""

N = 2_000
COLOURS = {0.25: "#0072b2", 0.5: "#009e73", 1.0: "#d55e00"}
GREY, DARK = "#999999", "#333333"
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "savefig.dpi": 144, "figure.dpi": 144}


def noise(model: dualrs.DualSmoothedClassifier, data: ArrayDataset) -> tuple[Figure, Any]:
    """Noisy copies at each σ, and how the expert there votes on each."""
    copies, x = 3, data.image(IMAGE)
    figure, axes = plt.subplots(copies, len(model.sigmas) + 1, figsize=(6.4, 4.6), layout="constrained")
    generator, votes = torch.Generator().manual_seed(0), {}
    for ax in axes.flat:
        ax.axis("off")
    axes[copies // 2, 0].imshow(x[0], cmap="gray", vmin=0, vmax=1)
    axes[copies // 2, 0].set_title(f"the input: {data.classes[data.label(IMAGE)]}")
    for column, expert in enumerate(model.experts, start=1):
        noisy = x + expert.sigma * torch.randn((copies, *x.shape), generator=generator)
        with torch.inference_mode():
            named = [data.classes[int(label)] for label in expert.base(noisy).argmax(1)]
        votes[f"{expert.sigma:g}"] = named
        for row, (copy, name) in enumerate(zip(noisy, named, strict=True)):
            axes[row, column].imshow(copy[0].clip(0, 1), cmap="gray", vmin=0, vmax=1)
            axes[row, column].set_title(f"σ = {expert.sigma:g}: {name}" if row == 0 else name)
    return figure, votes


def votes(model: dualrs.DualSmoothedClassifier, data: ArrayDataset) -> tuple[Figure, Any]:
    """How each expert's votes on the input are shared among the classes, and the radius that they certify."""
    figure, axes = plt.subplots(1, len(model.sigmas), figsize=(7.2, 2.9), layout="constrained", sharey=True)
    found = {}
    for ax, expert in zip(axes, model.experts, strict=True):
        smoothed = dualrs.SmoothedClassifier(expert.base, expert.sigma)
        certificate = smoothed.certify(data.image(IMAGE), n=N, rule="cohen")
        counts = certificate.stages[-1].counts
        found[f"{expert.sigma:g}"] = {"counts": list(counts), "radius": certificate.radius, "text": str(certificate)}
        ax.barh(data.classes, [count / N for count in counts], color=COLOURS[expert.sigma])
        ax.axvline(0.5, color=DARK, linewidth=0.8, linestyle="--")
        ax.invert_yaxis()
        proved = "abstains" if certificate.abstained else f"radius {_cut(certificate.radius)}"
        ax.set(title=f"σ = {expert.sigma:g}: {proved}", xlim=(0, 1), xlabel="share of the votes")
    return figure, found


def ball() -> tuple[Figure, Any]:
    """A world of two dimensions: a ragged classifier, the smoothed one, and a certified ball."""
    sigma, point = 0.5, np.array([-0.15, -0.35])
    side = np.linspace(-3, 3, 481)
    xs, ys = np.meshgrid(side, side)

    def ragged(x: Any, y: Any) -> Any:
        hole = (x + 0.55) ** 2 + (y + 0.1) ** 2 < 0.02
        return (y < 0.55 + 0.35 * np.sin(9 * x) * np.cos(3 * x) + 0.25 * x) & ~hole

    def base(batch: torch.Tensor) -> torch.Tensor:
        inside = torch.from_numpy(ragged(batch[:, 0].numpy(), batch[:, 1].numpy()))
        return torch.stack([inside, ~inside], dim=1).float()

    certificate = dualrs.SmoothedClassifier(base, sigma).certify(point.astype(np.float32), n=10_000)
    step = side[1] - side[0]
    around = np.arange(-3 * sigma, 3 * sigma + step / 2, step)
    kernel = np.exp(-(around[:, None] ** 2 + around[None, :] ** 2) / (2 * sigma**2))
    share = fftconvolve(ragged(xs, ys).astype(float), kernel / kernel.sum(), mode="same")
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.4), layout="constrained", sharey=True)
    copies = point + sigma * np.random.default_rng(0).standard_normal((150, 2))
    right = ragged(copies[:, 0], copies[:, 1])
    axes[0].contourf(xs, ys, ragged(xs, ys), levels=[-0.5, 0.5, 1.5], colors=["#f3d9c9", "#cfe3f1"])
    axes[0].scatter(*copies[right].T, s=6, color=COLOURS[0.25], label="vote for the answer")
    axes[0].scatter(*copies[~right].T, s=9, color=COLOURS[1.0], marker="x", linewidth=0.8, label="another vote")
    axes[0].set_title("the base classifier, and noisy copies of x")
    axes[1].contourf(xs, ys, share, levels=[-1, 0.5, 2], colors=["#f3d9c9", "#cfe3f1"])
    axes[1].add_patch(plt.Circle(tuple(point), certificate.radius, fill=False, color=DARK, linewidth=1.4))
    axes[1].annotate(
        f"radius {_cut(certificate.radius)}: one answer, proved",
        [*point, 0, -certificate.radius],
        xytext=(0, -9),
        textcoords="offset points",
        ha="center",
        va="top",
    )
    axes[1].set_title("the smoothed classifier, and the certified ball")
    for ax in axes:
        ax.plot(*point, "o", color=DARK, markersize=4)
        ax.annotate("x", point, xytext=(5, 3), textcoords="offset points")
        ax.set(xlim=(-1.9, 1.9), ylim=(-1.6, 1.4), aspect="equal", xticks=[], yticks=[])
    axes[0].legend(loc="lower right", frameon=True, fontsize=8)
    return figure, {"sigma": sigma, "radius": certificate.radius, "text": str(certificate)}


def routing(model: dualrs.DualSmoothedClassifier, data: ArrayDataset) -> tuple[Figure, Any]:
    """What the estimator votes, and the two radii of each expert from which the routed radius follows."""
    certificate = model.certify(data.image(IMAGE), n=N)
    routes = certificate.routes or ()
    estimator = next(stage for stage in certificate.stages if stage.name == "estimator/estimation")
    names = [f"σ = {route.sigma:g}" for route in routes]
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.0), layout="constrained", width_ratios=(1, 2))
    shares = [count / estimator.trials for count in estimator.counts]
    axes[0].barh(names, shares, color=[COLOURS[route.sigma] for route in routes])
    axes[0].set(title="the estimator's votes", xlabel="share of the votes", xlim=(0, 1))
    places = np.arange(len(routes))
    excluded = [route.exclusion_radius for route in routes]
    agreed = [route.agreement_radius or 0.0 for route in routes]
    axes[1].barh(places - 0.19, excluded, 0.36, color=GREY, label="not chosen within (X)")
    axes[1].barh(places + 0.19, agreed, 0.36, color=[COLOURS[route.sigma] for route in routes])
    axes[1].barh([0], [0], color=COLOURS[0.5], label="answers the label within (R)")
    for place, route in zip(places, routes, strict=True):
        axes[1].plot([route.radius] * 2, [place - 0.42, place + 0.42], color=DARK, linewidth=2)
    axes[1].axvline(certificate.radius, color=DARK, linestyle="--", linewidth=1)
    title = f"certified radius {_cut(certificate.radius)}: the least of the larger ones"
    axes[1].set(title=title, xlabel="radius", yticks=places, yticklabels=names)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower right", ncols=2, fontsize=8, frameon=False)
    for ax in axes:
        ax.invert_yaxis()
    return figure, certificate.to_dict()


def curves() -> tuple[Figure, Any]:
    """Certified accuracy against radius, of the committed run on CIFAR-10."""
    figure, ax = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    drawn = curve_points()
    radii = drawn.pop("radii")
    looks = {
        "dual": ("dual, routed", "#000000", "-", 2.2),
        "dual-min": ("dual, min rule", "#000000", ":", 1.4),
        "oracle": ("oracle σ (knows the label)", GREY, "-", 1.2),
        **{f"global-{s:g}": (f"σ = {s:g}", colour, "--", 1.2) for s, colour in COLOURS.items()},
    }
    for method, shares in drawn.items():
        label, colour, dashes, width = looks[method]
        ax.plot(radii, [100 * share for share in shares], dashes, label=label, color=colour, linewidth=width)
    _labelled(ax)
    return figure, {"radii": radii, **drawn}


def curve_points() -> dict[str, list[float]]:
    """Certified accuracy of each method of the committed run, at each radius that is drawn."""
    table = read_parquet(RUN / "certificates.parquet")
    radii = [round(float(r), 3) for r in np.arange(0, 2.6, 0.025)]
    methods = ["dual", "dual-min", *(f"global-{s:g}" for s in COLOURS), "oracle"]
    accuracy = certified_accuracy(table, radii)
    return {"radii": radii, **{method: [round(float(share), 4) for share in accuracy[method]] for method in methods}}


def _labelled(ax: Axes) -> None:
    ax.set(xlabel="radius r, ℓ2", ylabel="certified accuracy, %", ylim=(0, 82), xlim=(0, 2.5))
    ax.grid(alpha=0.25)
    ax.legend(fontsize=8)


def _cut(radius: float) -> str:
    return f"{int(radius * 1000) / 1000:.3f}"  # a printed radius claims no more than was proved


def main() -> None:
    """Draws all figures."""
    model, data = dualrs.load("fashion-mnist"), load("fashion-mnist-sample")
    if not isinstance(model, dualrs.DualSmoothedClassifier):
        raise TypeError("the shipped model is dual")
    FIGURES.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {}
    with plt.rc_context(STYLE):
        drawn = {
            "noise": noise(model, data),
            "votes": votes(model, data),
            "ball": ball(),
            "routing": routing(model, data),
            "curves": curves(),
        }
        for name, (figure, numbers) in drawn.items():
            figure.savefig(FIGURES / f"{name}.png", metadata={"Software": None})
            plt.close(figure)
            record[name] = numbers
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (FIGURES / "figures.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
