"""The shape of ImageNet end to end: a folder of photographs of many sizes, 224 x 224 pixels, 1,000 classes."""

import numpy as np
import pytest
import torch
from PIL import Image

import dualrs
from dualrs import SmoothedClassifier
from dualrs.data import load_folder
from dualrs.models import InputSpec, NetworkSpec

BRIGHTNESS = {"n01440764": 60, "n01443537": 200}  # two of the names of ImageNet's folders
DARK, BRIGHT = 17, 901


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    for number, (name, brightness) in enumerate(BRIGHTNESS.items()):
        (tmp_path / name).mkdir()
        pixels = rng.integers(
            brightness - 20, brightness + 20, (260 - 20 * number, 300 + 40 * number, 3), dtype=np.uint8
        )
        Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return load_folder(tmp_path, size=224)


@pytest.fixture
def network(photographs):
    """A small network of timm whose last layer was fitted to tell the two photographs apart, among 1,000 classes."""
    torch.manual_seed(0)
    spec = NetworkSpec(name="timm:test_resnet")
    network = spec.build(num_classes=1000, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)).eval()
    body, noise = network.body, 0.25 * torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        images = torch.stack([photographs.image(0), photographs.image(1)])
        dark, bright = body.forward_head(body.forward_features(network.normalize(images + noise)), pre_logits=True)
        direction = (bright - dark) / (bright - dark).norm()
        body.fc.weight.mul_(0.0)
        body.fc.weight[DARK], body.fc.weight[BRIGHT] = -direction, direction
        middle = direction @ (dark + bright) / 2
        body.fc.bias.fill_(-1e3)
        body.fc.bias[DARK], body.fc.bias[BRIGHT] = middle, -middle
    return network


def test_photographs_are_certified_among_a_thousand_classes(photographs, network, tmp_path):
    model = SmoothedClassifier(network, 0.25, 1000, backend="torch", batch_size=16)
    model.input = InputSpec((3, 224, 224))
    options = {"n": 16, "alpha": 0.05}
    certificates = model.certify_batch([photographs.image(i) for i in range(2)], **options)
    assert [certificate.label for certificate in certificates] == [DARK, BRIGHT]
    assert all(certificate.radius > 0 for certificate in certificates)
    assert all(len(stage.counts) == 1000 for certificate in certificates for stage in certificate.stages)
    loaded = dualrs.load(model.save(tmp_path / "model"), backend="torch", batch_size=16)
    assert loaded.certify(photographs.image(1), **options) == certificates[1]
