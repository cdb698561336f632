"""Make the Fashion-MNIST sample that comes with the package, from the fetched test set.

It takes the first 100 test images of each class and keeps them in the order of the test set. Run it from
the repository root after `dualrs data fetch fashion-mnist`; it prints what the catalogue must record.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from dualrs.data import load

PER_CLASS = 100
FOLDER = Path("src/dualrs/data/fashion_mnist_sample")


def main() -> None:
    """Write `images.png` (the images one below the other) and `index.json` (labels, test-set positions)."""
    test = load("fashion-mnist", "test")
    firsts = [np.flatnonzero(test.labels == label)[:PER_CLASS] for label in range(len(test.classes))]
    sample = test.subset(np.sort(np.concatenate(firsts)))
    indices = np.asarray(sample.indices)

    width = sample.images.shape[2]
    Image.fromarray(sample.images.reshape(-1, width)).save(FOLDER / "images.png", optimize=True)
    index = {"labels": sample.labels.tolist(), "indices": indices.tolist()}
    (FOLDER / "index.json").write_text(json.dumps(index, separators=(",", ":")) + "\n")

    print("size  ", len(sample))
    print("images", hashlib.sha256(sample.images.tobytes()).hexdigest())
    print("labels", hashlib.sha256(sample.labels.astype(np.uint8).tobytes()).hexdigest())


if __name__ == "__main__":
    main()
