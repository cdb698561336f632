"""What processes do together in the tests: each runs this file, with a device, a folder and the tasks to do there.

The trainings are those that the stand-in for a GPU runs, one of each kind, with batches that no number of processes
divides. What comes of them the first process writes down; what each process has to say of itself, it writes.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from timm.layers import BatchNormAct2d

from dualrs.config import parse_section
from dualrs.progress import console
from dualrs.training import loop, selection
from dualrs.training.checkpoint import Checkpoint
from dualrs.training.config import Optimization, TrainingConfig
from dualrs.training.pipeline import Pipeline
from dualrs.training.processes import join, led, one_of_each_machine_first, team


def neighbour(name):
    """A file beside this one, as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


devices, conftest = neighbour("test_devices"), neighbour("conftest")
data = conftest.make_data(96, "train", 0)

# Plain descent: Adam divides the rounding of a gradient that ought to be zero by its own size.
devices.PLAN.update(epochs=1, batch_size=25, optimizer="sgd", learning_rate=0.01)


def own(folder):
    """Where a process would keep its results: no other process than the first is to need or make any."""
    return folder if team().leads else folder / "elsewhere"


def train(folder, name):
    """The loss of every step of a training, and its weights at the end."""
    values, steps, kept = loop._values, [], own(folder) / name
    loop._values = lambda *arguments: steps.append(values(*arguments)) or steps[-1]
    try:
        network = devices.TRAININGS[name](data, folder=kept, seed=5, device=device)
    finally:
        loop._values = values
    led(torch.save)({"steps": steps, "weights": network.state_dict()}, folder / f"{name}.pt")


def trainings(folder):
    for name in devices.TRAININGS:
        train(folder, name)


def twice(folder):
    """Two epochs, with Adam's momenta to go on with."""
    given = dict(devices.PLAN)
    devices.PLAN.update(epochs=2, optimizer="adamw", learning_rate=0.002)
    try:
        train(folder, "gaussian")
    finally:
        devices.PLAN.update(given)


def once(folder):
    """The same, interrupted after the first epoch."""
    save = Checkpoint.save

    def interrupted(self, epochs_done):
        save(self, epochs_done)
        raise KeyboardInterrupt

    Checkpoint.save = interrupted
    try:
        twice(folder)
    except KeyboardInterrupt:
        return
    finally:
        Checkpoint.save = save


class Odd(torch.nn.Module):
    """A normalised layer, one that nothing uses, and one that only images with an even number use."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), BatchNormAct2d(3), torch.nn.Flatten())
        self.head, self.unused, self.even = torch.nn.Linear(108, 2), torch.nn.Linear(2, 2), torch.nn.Linear(108, 2)


def odd(folder):
    """Three epochs of 25 images and one: a batch that cannot be shared."""
    model = Odd()

    def objective(model, batch):
        features = model.layers(batch.images)
        losses = model.head(features).square().mean(1)
        even = batch.rows % 2 == 0
        if even.any():
            losses[even] = losses[even] + model.even(features[even]).square().mean(1)
        spread = batch.variance(features.detach()) * batch.mean(features).square().mean()
        return losses.mean() + spread, {"size": torch.tensor(float(batch.size))}

    plan = Optimization(epochs=3, batch_size=25, learning_rate=0.01, precision="fp32", crop_padding=1)
    loop.fit(model, objective, data.images, plan, rows=np.arange(26), folder=folder / "odd", seed=0, settings={},
             description="odd")  # fmt: skip
    led(torch.save)({"steps": [], "weights": model.state_dict()}, folder / "odd.pt")


def failures(folder):
    """What each process is told where something goes wrong in one of them."""
    said = {}

    def diverging(model, batch):
        loss = model.weight.sum() * 0 + (float("nan") if team().rank == team().size - 1 else 1.0)
        return loss, {}

    def try_to(what, work):
        try:
            work()
        except (RuntimeError, ValueError) as error:
            said[what] = f"{type(error).__name__}: {error}"

    plan = Optimization(epochs=1, batch_size=25, crop_padding=0)
    model = torch.nn.Linear(1, 1)
    options = {"folder": folder / "diverging", "seed": 0, "settings": {}, "description": "test"}
    try_to("diverging", lambda: loop.fit(model, diverging, data.images, plan, **options))
    try_to("led", led(lambda: json.loads("no JSON")))
    try_to("stale", lambda: stale(folder))
    said["after"] = led(lambda: (team().size, torch.ones(2)))()[0]
    said["quiet"] = console.quiet
    (folder / f"said-{team().rank}.json").write_text(json.dumps(said))


def stale(folder):
    plan = Optimization(epochs=1, batch_size=96, crop_padding=0)
    options = {"folder": folder / "stale", "seed": 0, "description": "test"}
    for settings in ({"a": 1}, {"a": 2}):
        model = torch.nn.Linear(1, 1)
        loop.fit(model, lambda m, b: (m.weight.sum(), {}), data.images, plan, settings=settings, **options)


def fetched(folder):
    """One process finds nothing and makes it; the others find it."""
    with one_of_each_machine_first():
        found = (folder / "fetched").exists()
        (folder / "fetched").touch()
    (folder / f"found-{team().rank}").write_text(str(found))


def pipeline(folder):
    """Every step of a training, from experts to the bundle."""
    selection._LEAST_STEPS = 20
    plan = {**devices.PLAN, "batch_size": 48}
    front = {"network": devices.UNET, "stages": [{"mse": 1, "optimization": plan}]}
    network, dial = devices.NETWORK, {"votes": 20, "images": 16}
    expert = {"network": network, "optimization": plan}
    content = {
        "name": "toy", "data": "bright", "sigmas": [0.25, 0.5], "sigma_e": 0.5, "output": own(folder) / "out",
        "experts": [{**expert, "sigmas": [0.25]}, {**expert, "sigmas": [0.5], "start_from": 0.25}],
        "labels": {"n": 30}, "selection": {"copies": 2, "images": 40}, "dial": dial,
        "estimator": {**expert, "start_from": 0.5, "utility": {}, "denoiser": front},
        "fine_tuning": {"optimization": plan, "votes": 20},
    }  # fmt: skip
    config = parse_section(TrainingConfig, content, source="test")
    made = Pipeline(config, data, conftest.make_data(32, "test", 1))
    bundle = made.run()
    (folder / f"made-{team().rank}.json").write_text(json.dumps([str(bundle), made.plan().seconds_left]))


def killed(folder):
    """The first process dies while the others wait for it."""
    led(os._exit)(9)


if __name__ == "__main__":
    device, target, *tasks = sys.argv[1:]
    torch.backends.cudnn.allow_tf32 = False  # which rounds more coarsely than the tests allow
    join(device)
    for task in tasks:
        name, _, part = task.partition("=")
        globals()[name](Path(target) / part)
