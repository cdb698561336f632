"""The card of a bundle: what it is, what its certificates claim, and how anyone checks that.

A card is Markdown with a YAML header, as the Hugging Face Hub shows it. This one says what the bundle itself says;
`dualrs.sharing.model_card` adds what a run measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import yaml

from dualrs.models.manifest import MANIFEST, Manifest, bundle_digest, read_manifest

_TAGS = ("certified-robustness", "randomized-smoothing", "adversarial-robustness")


@dataclass(frozen=True)
class Check:
    """How to verify what was recorded.

    Attributes:
        python: what comes after ``model`` was loaded.
        imports: what it needs.
        execution: how it is to be loaded, see `dualrs.smoothing.Execution`.
        options: of ``dualrs certify``.
    """

    python: str
    imports: str = ""
    execution: Mapping[str, str | int] = field(default_factory=dict)
    options: str = "--data folder:images --n 10000 --alpha 0.001"


def bundle_card(
    folder: str | Path,
    *,
    repo_id: str | None = None,
    revision: str = "main",
    license: str | None = None,  # noqa: A002
    results: str = "",
    check: Check | None = None,
) -> str:
    """The model card of a bundle, as Markdown.

    Args:
        folder: of the bundle.
        repo_id: where it will be found; USER/MODEL in the examples if None.
        revision: by which the examples load it. They also name the digest, which no server can change.
        license: of the weights, as the Hub abbreviates it ("mit"); none is claimed if None.
        results: a section of Markdown about what was measured.
        check: how to verify a certificate that was recorded; an example on any input if None.

    Raises:
        BundleError: the folder holds no bundle.
    """
    manifest, digest = read_manifest(Path(folder)), bundle_digest(folder)
    name = repo_id or "USER/MODEL"
    header: dict[str, object] = {"library_name": "dualrs"}
    if license:
        header["license"] = license
    if manifest.input is not None and len(manifest.input.shape) == 3:
        header["pipeline_tag"] = "image-classification"
    header["tags"] = ["dualrs", *_TAGS]
    sections = (
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---",
        f"# {markdown(repo_id or Path(folder).resolve().name)}",
        _what(manifest),
        _parts(manifest, digest),
        results.strip(),
        _use(manifest, name, revision, digest, check),
        _claim(),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def markdown(text: str) -> str:
    """Text as Markdown that shows just that, in a table too: names come from files, which may hold anything."""
    return re.sub(r"([\\`*_{}\[\]<>|#!&~])", r"\\\1", " ".join(text.split()))


def markdown_table(rows: Iterable[Iterable[str]], *, right: int = 0) -> str:
    """Rows as a table of Markdown, the first as its head; the last ``right`` columns are aligned right."""
    head, *body = [list(row) for row in rows]
    rule = ["---:" if i >= len(head) - right else "---" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])


def _what(manifest: Manifest) -> str:
    levels = ", ".join(f"{sigma:g}" for sigma in manifest.sigmas)
    if manifest.sigma_e is None:
        kind = (
            "A smoothed classifier: the class that a base classifier gives most often under Gaussian noise, "
            f"σ = {levels}."
        )
    else:
        kind = (
            f"A dual smoothed classifier: a variance estimator, smoothed at σ_e = {manifest.sigma_e:g}, chooses for "
            f"each input one of {len(manifest.sigmas)} experts, Σ = {{{levels}}}, which answers smoothed at its own "
            "noise level."
        )
    lines = [
        f"{kind} Its answers come with certificates: a radius within which no ℓ2 perturbation changes the label. "
        "Noise levels are standard deviations in the units of the input.",
        "",
        f"- Classes: {manifest.num_classes}{_classes(manifest)}",
    ]
    if manifest.input is not None:
        shape, (low, high) = " × ".join(map(str, manifest.input.shape)), manifest.input.range
        lines.append(f"- Inputs: {shape}, values in [{low:g}, {high:g}]; normalisation is part of the networks")
    return "\n".join(lines)


def _classes(manifest: Manifest) -> str:
    return "" if manifest.classes is None else f" ({', '.join(map(markdown, manifest.classes))})"


def _parts(manifest: Manifest, digest: str) -> str:
    roles: dict[str, list[str]] = {part: [] for part in manifest.parts}
    if manifest.sigma_e is not None:
        roles["estimator"].append(f"estimator, σ_e = {manifest.sigma_e:g}")
    names = manifest.names or (None,) * len(manifest.sigmas)
    for part, sigma, name in zip(manifest.experts, manifest.sigmas, names, strict=True):
        named = "" if name is None else f" ({markdown(name)})"
        roles[part].append(
            f"base classifier, σ = {sigma:g}" if manifest.sigma_e is None else f"expert, σ = {sigma:g}{named}"
        )
    rows = [
        [
            "; ".join(roles[part]) or "not used",
            f"`{entry.file}`",
            "ONNX" if entry.network is None else markdown(entry.network),
            f"`{entry.sha256}`",
        ]
        for part, entry in manifest.parts.items()
    ]
    return (
        f"## Files\n\n{markdown_table([['role', 'file', 'network', 'SHA-256'], *rows])}\n\n"
        f"`{MANIFEST}` names these files with their digests, so its own names the model: `{digest}`. dualrs reads no "
        "other file of this repository, checks every digest when it loads, and unpickles nothing."
    )


def _use(manifest: Manifest, name: str, revision: str, digest: str, check: Check | None) -> str:
    kind = "SmoothedClassifier" if manifest.sigma_e is None else "DualSmoothedClassifier"
    check = check or _example(manifest)
    arguments = [json.dumps(name), f"revision={json.dumps(revision)}", f'digest="{digest}"']
    arguments += [f"{key}={json.dumps(value)}" for key, value in check.execution.items()]
    loading = "".join(f"    {argument},\n" for argument in arguments)
    return (
        f"## Use and verify\n\n```python\nimport dualrs\n{check.imports}\n"
        f"model = dualrs.{kind}.from_pretrained(\n{loading})\n"
        f"{check.python.strip()}\n```\n\n"
        "The same seed and settings give the same certificate (a vote may change where two logits tie to the last "
        "bits, which other software rounds otherwise). On the command line:\n\n"
        f"```sh\npip install dualrs\nhf download {quote(name)} --revision {quote(revision)} --local-dir bundle\n"
        f"dualrs certify bundle {check.options} --output run\n"
        "dualrs attack run --images 20  # tries to break the certificates inside their balls\n```"
    )


def _example(manifest: Manifest) -> Check:
    certify = "print(model.certify(x, seed=0, n=10_000, alpha=0.001))"
    if manifest.input is None:
        return Check(f"x = ...  # one input\n{certify}")
    low, high = manifest.input.range
    scale = "" if (low, high) == (0, 1) else f"{low:g} + {high - low:g} * "
    shape = ", ".join(map(str, manifest.input.shape))
    return Check(f"x = {scale}torch.rand({shape})  # or an input that means something\n{certify}", "import torch\n")


def _claim() -> str:
    return (
        "## What a certificate says\n\n"
        "A certificate with label y, radius R and failure probability α says: y is the smoothed classifier's answer at "
        "every input closer than R (ℓ2, strictly). For an input chosen without knowledge of the noise it is wrong with "
        "probability at most α, per input. It speaks of the smoothed classifier, which votes over noise and may "
        "abstain, not of a network alone; it does not say that y is the true class, and nothing of other kinds of "
        "perturbation."
    )
