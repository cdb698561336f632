"""An off-the-shelf classifier that never saw noise, certified as it is and behind a denoiser trained for it.

The classifier, a ResNet-20 for CIFAR-10, is not part of the repository; benchmarks/denoised-cifar10.yaml says where it
is from. The training goes on where an interrupted one stopped; its checkpoints are under runs/.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from record import RESULTS, write

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "benchmarks" / "denoised-cifar10.yaml"
DATA = "cifar10"
N, ALPHA, SEED = 1000, 0.001, 0
EXECUTION: dict[str, Any] = {"backend": "compile", "precision": "bfloat16"}


def train(config: Any, classifier: Any, folder: Path) -> Any:
    """The classifier behind its denoiser, with weights as they would be stored."""
    import dualrs
    from dualrs.data import load
    from dualrs.training.denoisers import train_denoiser

    data = load(DATA, "train")
    (sigma,) = config.sigmas
    chain = train_denoiser(config.denoiser, data, classifier, config.sigmas, folder=folder / "training", seed=SEED)
    model = dualrs.SmoothedClassifier(chain[sigma], sigma, len(data.classes))
    return dualrs.load(model.save(folder / "bundle", half=True), **EXECUTION)


def certify(model: Any, images: int, n: int, info: dict[str, Any], path: Path) -> None:
    """CERTIFY of Cohen et al. 2019 on evenly spaced test images: prints the table and writes the record."""
    from dualrs.data import load
    from dualrs.evaluation import evaluate, render
    from dualrs.evaluation.config import evenly_spaced
    from dualrs.progress import console

    data = load(DATA, "test")
    indices = evenly_spaced(images, len(data))
    found = evaluate(model, data, indices=indices, seed=SEED, rules=["cohen"], n=n, alpha=ALPHA, info=info)
    console.print(render(found.summary))
    write(path, found.summary)


def main() -> None:
    """Trains, and certifies the classifier with and without its denoiser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classifier", type=Path, help="its file, if it is not where the configuration says")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--n", type=int, default=N, help="votes; with another number the chain alone is recorded")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "denoised-cifar10")
    parser.add_argument("--output", type=Path, default=RESULTS / "denoised-cifar10")
    options = parser.parse_args()

    import dualrs
    from dualrs.config import parse_section, read_yaml
    from dualrs.models import load_classifier
    from dualrs.training.config import OffTheShelfConfig

    config = parse_section(OffTheShelfConfig, read_yaml(CONFIG), source=str(CONFIG))
    classifier = load_classifier(options.classifier or ROOT / config.classifier, **config.options)
    chain = train(config, classifier, options.folder)
    (sigma,) = config.sigmas
    alone = dualrs.SmoothedClassifier(classifier, sigma, chain.num_classes, **EXECUTION)
    logs = sorted((options.folder / "training").glob("stage-*/metrics.jsonl"))
    info = {
        "config": config.model_dump(mode="json"),
        "training": {path.parent.name: [json.loads(line) for line in path.open()] for path in logs},
    }
    name = "classifier-behind-denoiser"
    if options.n == N:
        certify(alone, options.images, N, {}, options.output / "classifier.json")
    else:
        name += f"-{options.n}"
    certify(chain, options.images, options.n, info, options.output / f"{name}.json")


if __name__ == "__main__":
    main()
