import pytest
import torch

from dualrs.certificates import certify
from dualrs.models import Recipe, build_network
from dualrs.sampling import Engine, Job
from dualrs.smoothing import DualSmoothedClassifier

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
OPTIONS = {"n0": 32, "n": 512, "alpha": 0.01, "seed": 3}


def network(outputs):
    torch.manual_seed(0)
    arguments = {"num_classes": outputs, "width": 8, "mean": [0.5] * 3, "std": [0.2] * 3}
    return build_network(Recipe("resnet9", arguments)).eval()


@pytest.mark.parametrize("backend", ["torch", "compile"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_votes_on_a_gpu_are_those_on_the_processor_but_for_ties(backend, precision):
    """Few votes change: logits differ by rounding alone."""
    found = {}
    for device in ("cpu", "cuda"):
        experts = {0.25: network(10), 0.5: network(10)}
        model = DualSmoothedClassifier(
            network(2), 0.5, experts, 10, device=device, backend=backend, precision=precision, batch_size=128
        )
        found[device] = [model.certify(torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1)), **OPTIONS)]
    for here, there in zip(found["cpu"], found["cuda"], strict=True):
        for one, other in zip(here.stages, there.stages, strict=True):
            assert abs(torch.tensor(one.counts) - torch.tensor(other.counts)).sum() <= 0.05 * one.trials


def test_the_same_input_has_the_same_votes_again_and_in_company():
    model = DualSmoothedClassifier(network(2), 0.5, {0.25: network(10), 0.5: network(10)}, 10, device="cuda")
    xs = list(torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    alone = [model.certify(x, **OPTIONS) for x in xs]
    assert alone == model.certify_batch(xs, **OPTIONS)


def test_batches_lie_in_pinned_memory():
    seen = []

    def classifier(batch):
        seen.append(batch.is_pinned())
        return batch.flatten(1)[:, :2]

    classifier.name, classifier.device, classifier.batch_size = "mine", "cuda:0", None
    classifier.logits = classifier
    list(Engine(lambda name, shape: classifier).run([Job(0, torch.zeros(1, 2), {"a": certify(0.5, n=100)})]))
    assert all(seen)
