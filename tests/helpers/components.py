"""The smallest generator of components and layers, and a discriminator that compares images; and states of them."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from gtool.runtime.device import make_compute
from gtool.train import gan as engine
from tests.helpers.tiny import tiny_recipe

RESOLUTION, COMPONENTS, WIDTH, LAYERS, GROUP = 8, 3, 4, 5, 2
SETTINGS = [
    f"data.resolution={RESOLUTION}",
    "augment.policy=none",
    "loss.kind=non-saturating",
    "loss.gradient_penalty=0.0",
    "loss.drift=0.0",
    "train.n_critic=1",
    "train.batch_size=16",
    # Adam turns a gradient of rounding noise into a full step; a large eps keeps such parameters where they are.
    "optim.eps=1e-3",
]
EVERYTHING = [
    "augment.policy=ada,cutout:1",
    "augment.target=0.6",
    "augment.kimg=0.2",
    "loss.r1_gamma=1.0",
    "loss.penalty_interval=2",
    "loss.path_length=2.0",
    "loss.path_length_interval=2",
    "loss.path_length_decay=0.3",
    "loss.style_mixing=0.7",
    "loss.component_mixing=0.5",
    "optim.lazy_rescale=true",
]


class Generator(nn.Module):
    """Images that are linear in ws; it remembers what it was given."""

    z_shape = (COMPONENTS, WIDTH)
    noise_shapes = ((1, RESOLUTION, RESOLUTION),)
    num_ws = LAYERS
    num_classes = 0

    def __init__(self, _config=None):
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.paint = nn.Linear(LAYERS * COMPONENTS * WIDTH, 3 * RESOLUTION**2)
        self.strength = nn.Parameter(torch.tensor(0.1))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.seen = []

    def forward(self, z, noise=None, *, second=None, from_layer=None, from_component=None, with_ws=False):
        if not self.calls.is_meta:
            self.calls += 1
        self.seen.append({"z": z, "second": second, "layer": from_layer, "component": from_component})
        ws = self.mapping(z).unsqueeze(1).expand(-1, LAYERS, -1, -1)  # (N, L, K, d)
        if second is not None:
            other = self.mapping(second).unsqueeze(1)
            if from_layer is not None:
                ws = torch.where(
                    torch.arange(LAYERS).view(1, -1, 1, 1) >= from_layer.view(-1, 1, 1, 1), other, ws
                )
            if from_component is not None:
                places = torch.arange(COMPONENTS).view(1, 1, -1, 1)
                ws = torch.where(places >= from_component.view(-1, 1, 1, 1), other, ws)
        images = self.paint(ws.flatten(1)).view(-1, 3, RESOLUTION, RESOLUTION)
        if noise is not None:
            images = images + self.strength * noise[0]
        return (images, ws) if with_ws else images


class Discriminator(nn.Module):
    """A logit that also sees how much the images of a group differ."""

    noise_shapes = ()
    group_size = GROUP

    def __init__(self, _config=None):
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(3 * RESOLUTION**2, 8), nn.Tanh())
        self.logit = nn.Linear(9, 1)

    def forward(self, images, noise=None, *, with_features=False):
        features = self.features(images)
        groups = features.view(-1, GROUP, 8)
        spread = (groups.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=1)  # (N / GROUP,)
        spread = spread.repeat_interleave(GROUP).unsqueeze(1)
        logits = self.logit(torch.cat([features, spread], dim=1)).squeeze(1)
        return (logits, features) if with_features else logits


class Batches:
    """Shares of images that are a function of their position alone."""

    def __init__(self, compute):
        self.position, self.rank, self.world_size = 0, compute.rank, compute.world_size

    def next(self, batch_size):
        places = torch.arange(self.position, self.position + batch_size)
        self.position += batch_size
        places = places.view(self.world_size, -1)[self.rank]
        pixels = torch.arange(3 * RESOLUTION**2).reshape(1, 3, RESOLUTION, RESOLUTION)
        return ((places.view(-1, 1, 1, 1) * 37 + pixels * 11) % 256).to(torch.uint8)


NETWORKS = SimpleNamespace(build=lambda config: (Generator(config), Discriminator(config)))


def make_state(*settings, compute=None):
    """Return a state at step 0; `registry.network_module` has to give NETWORKS."""
    recipe = tiny_recipe(*SETTINGS, *settings)
    compute = compute or make_compute("cpu", "fp32")
    return engine.init_state(recipe, None, Batches(compute), compute)
