"""An off-the-shelf classifier that never saw noise, certified as it is and behind a denoiser trained for it.

The classifier, a ResNet-20 for CIFAR-10, is not part of the repository; benchmarks/denoised-cifar10.yaml says where it
is from. The training goes on where an interrupted one stopped; its checkpoints are under runs/.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
CONFIG = ROOT / "benchmarks" / "denoised-cifar10.yaml"
DATA = "cifar10"
N, ALPHA, SEED = 1000, 0.001, 0


def train(config: Any, classifier: Any, folder: Path) -> Any:
    """The classifier behind its denoiser, with weights as they would be stored."""
    import dualrs
    from dualrs.data import load
    from dualrs.training.denoisers import train_denoiser

    data = load(DATA, "train")
    (sigma,) = config.sigmas
    chain = train_denoiser(config.denoiser, data, classifier, config.sigmas, folder=folder / "training", seed=SEED)
    model = dualrs.SmoothedClassifier(chain[sigma], sigma, len(data.classes))
    return dualrs.load(model.save(folder / "bundle", half=True))


def certify(model: Any, images: int) -> dict[str, Any]:
    """CERTIFY of Cohen et al. 2019 on evenly spaced test images: the share certified beyond each radius."""
    from dualrs.data import load
    from dualrs.evaluation import evaluate
    from dualrs.evaluation.config import evenly_spaced

    data = load(DATA, "test")
    indices = evenly_spaced(images, len(data))
    summary = evaluate(model, data, indices=indices, seed=SEED, rules=["cohen"], n=N, alpha=ALPHA).summary
    (method,) = summary["certified_accuracy"]
    figures = ("certified_accuracy", "confidence_95", "average_certified_radius", "abstention_rate")
    return {"images": summary["inputs"], **{name: summary[name][method] for name in figures}}


def table(record: Mapping[str, Any]) -> str:
    """Certified accuracy with and without the denoiser, as Markdown."""
    radii = ["0.00", "0.25", "0.50"]
    rows = [["certified accuracy", *(f"r = {radius}" for radius in radii)], ["---", *("--:" for _ in radii)]]
    for name, found in record["certified"].items():
        rows.append([name, *(f"{100 * found['certified_accuracy'][radius]:.1f} %" for radius in radii)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Trains, certifies, prints the table, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classifier", type=Path, help="its file, if it is not where the configuration says")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "denoised-cifar10")
    parser.add_argument("--output", type=Path, default=RESULTS / "denoised.json")
    options = parser.parse_args()

    from record import write

    import dualrs
    from dualrs.config import parse_section, read_yaml
    from dualrs.models import load_classifier
    from dualrs.training.config import OffTheShelfConfig

    config = parse_section(OffTheShelfConfig, read_yaml(CONFIG), source=str(CONFIG))
    classifier = load_classifier(options.classifier or ROOT / config.classifier, **config.options)
    chain = train(config, classifier, options.folder)
    (sigma,) = config.sigmas
    certified = {
        "classifier": certify(dualrs.SmoothedClassifier(classifier, sigma, chain.num_classes), options.images),
        "classifier behind denoiser": certify(chain, options.images),
    }
    logs = sorted((options.folder / "training").glob("stage-*/metrics.jsonl"))
    record = {
        "settings": {"data": DATA, "sigma": sigma, "n": N, "alpha": ALPHA, "config": config.model_dump(mode="json")},
        "training": {path.parent.name: [json.loads(line) for line in path.open()] for path in logs},
        "certified": certified,
    }
    print(table(record))
    write(options.output, record)


if __name__ == "__main__":
    main()
