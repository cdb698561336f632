"""Certifies toy inputs on a cluster: ``python drive.py FOLDER ADDRESS``; prints a line for each that is finished."""

import sys
import time
from pathlib import Path

import numpy as np
import torch

from dualrs.data import ArrayDataset
from dualrs.evaluation import evaluate, store
from dualrs.smoothing import DualSmoothedClassifier

INPUTS = 400
BUDGET = {"n0": 16, "n": 200, "alpha": 0.05, "rules": ["routed", "min"]}


class Watched(ArrayDataset):
    """Says which labels are asked for: one for each input that is finished."""

    def label(self, i):
        print(i, flush=True)
        return super().label(i)


def half_space(axis, pause=None):
    def logits(batch):
        if pause is not None and pause.exists():
            time.sleep(0.02)
        margin = batch.flatten(1)[:, axis] - 0.5
        return torch.stack([-margin, margin], dim=1)

    return logits


def certify(folder, runner=None, pause=None):
    """Certifies all inputs; slowly, which changes nothing else, as long as the file ``pause`` is there."""
    images = np.random.default_rng(0).integers(0, 256, (INPUTS, 1, 2, 1), dtype=np.uint8)
    dataset = Watched("toy", "test", images, np.zeros(INPUTS, dtype=np.int64), ("low", "high"))
    experts = dict.fromkeys((0.25, 0.5), half_space(0, pause))
    model = DualSmoothedClassifier(half_space(1, pause), 0.5, experts, 2, batch_size=32)
    return evaluate(model, dataset, folder=folder, runner=runner, model_digest="toy", **BUDGET)


if __name__ == "__main__":
    from dualrs.distributed import RayRunner

    store.FLUSH_SECONDS = 0.2
    runner = RayRunner(address=sys.argv[2], workers=2, patience=60.0)
    folder = Path(sys.argv[1])
    sys.exit(0 if certify(folder, runner, folder.with_name("pause")).complete else 1)
