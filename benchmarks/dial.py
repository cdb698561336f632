"""One training, a family of trade-offs: the shipped CIFAR-10 estimator at other settings of its dial.

The settings are some of those that the training offered, from forecasts on training images that the estimator never
saw. Here each is certified on test images, with real votes; `results_page.py` renders the record.
"""

from __future__ import annotations

import argparse

from ablations import CONFIG, ROOT, figures
from ablations_rows import Row
from ablations_study import MODEL, RULES, Scale, Study
from record import RESULTS, write

from dualrs.evaluation import write_parquet
from dualrs.models import Biased, find_bundle, load_bundle
from dualrs.smoothing import ESTIMATOR
from dualrs.training.config import load_config

SETTINGS = (
    (0.75, 0.15, 0.0),
    (0.38, 0.15, 0.0),
    (-0.75, 0.46, 0.0),
    (-0.75, -0.31, 0.0),
)
"""Biases of the candidates' logits, σ ascending, from those that favour small radii to those that favour large ones."""


def main() -> None:
    """Votes, certifies, and writes the record; votes are kept under runs/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=Scale.images, help="test images, evenly spaced")
    options = parser.parse_args()
    bundle = load_bundle(find_bundle(MODEL))
    shipped = bundle.parts[ESTIMATOR]
    assert isinstance(shipped, Biased)
    study = Study(load_config(CONFIG), Scale(images=options.images), ROOT / "runs" / "dial")
    own = tuple(shipped.bias.tolist())
    lines, reference = [], None
    for bias in (own, *SETTINGS):
        row = Row(" ".join(f"{one:.2f}" for one in bias), "")
        table = study.certificates(row, Biased(shipped.network, bias).eval())
        write_parquet(table, study.folder / row.name / "certificates.parquet")
        found = {rule: figures(table, rule, reference) for rule in RULES}
        lines.append({"bias": bias, **found})
        reference = table if bias == own else reference
    write(RESULTS / "dial.json", {"settings": study.settings, "lines": lines})


if __name__ == "__main__":
    main()
