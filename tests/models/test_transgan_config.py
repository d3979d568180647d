"""TransGAN: what a recipe can ask for, and the layouts of other resolutions."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from gtool.models.transgan.config import PRESETS, RESOLUTIONS, TransGANConfig


def test_defaults_are_the_cifar10_release():
    assert TransGANConfig() == TransGANConfig.preset("cifar10")


@pytest.mark.parametrize("name", PRESETS)
def test_config_survives_json(name):
    config = TransGANConfig.preset(name)
    assert TransGANConfig(**json.loads(config.model_dump_json())) == config
    assert TransGANConfig(**config.model_dump(mode="json", exclude_none=True)) == config


def test_a_preset_gives_way_to_the_keys_beside_it():
    config = TransGANConfig(preset="stl10", generator={"norm": "ln"})
    assert config.generator.norm == "ln"
    assert config.generator.stages == TransGANConfig.preset("stl10").generator.stages


STAGES = [{"side": 8, "channels": 64, "depth": 1}, {"side": 16, "channels": 16, "depth": 1}]
REFUSED = {
    "resolution 64 cannot be made: generator.stages of sides 8, 16, 32 make 32 x 32": {"resolution": 64},
    "preset = 'church' does not exist; known: cifar10": {"preset": "church"},
    "side 24 after 8; each doubles": {"generator": {"stages": [STAGES[0], {**STAGES[1], "side": 24}]}},
    "24 channels cannot be shared by heads": {
        "generator": {"stages": [{"side": 32, "channels": 24, "depth": 1}], "head_width": 32}
    },
    "channels cannot fall": {
        "discriminator": {"stages": [{**STAGES[1]}, {"side": 8, "channels": 8, "depth": 1}]}
    },
    "cannot be cut into 12 x 12": {"discriminator": {"stages": [{"side": 12, "channels": 384, "depth": 3}]}},
    "full_blocks exceeds depth": {"discriminator": {"stages": [{**STAGES[0], "full_blocks": 2}]}},
    "overlap needs an even patch": {
        "discriminator": {"stages": [{**STAGES[1], "side": 32, "overlap": True}]}
    },
    "generator.smooth filters patches": {"generator": {"smooth": True}},
    "head_side = 3": {"discriminator": {"head": "pooled", "head_side": 3}},
    "needs a norm per token": {"generator": {"modulation": "gain", "norm": "none"}},
    "nothing below it": {"generator": {"stages": [{**STAGES[0], "side": 32, "upsample": "bicubic"}]}},
    "pixelshuffle needs a multiple of 4": {
        "generator": {"heads": 2, "stages": [{**STAGES[0], "channels": 18}, STAGES[1]]}
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_impossible_networks_are_refused_with_a_reason(message):
    with pytest.raises(ValidationError) as refused:
        TransGANConfig(**REFUSED[message])
    assert message in str(refused.value)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("name", ["cifar10", "stl10", "church256", "cpu32"])
def test_any_networks_can_be_laid_out_for_any_usual_resolution(name, resolution):
    config = TransGANConfig.preset(name).at_resolution(resolution)
    assert config.resolution == config.generator.resolution == resolution
    assert config.discriminator.stages[0].side <= 64
    assert resolution // config.discriminator.stages[0].side >= 2
    assert config.discriminator.stages[-1].side >= 8


def test_at_resolution_keeps_what_it_can():
    config = TransGANConfig.preset("cpu32").at_resolution(64)
    assert config.generator.stages[:3] == TransGANConfig.preset("cpu32").generator.stages
    assert config.generator.stages[3].channels == 32
    assert [stage.side for stage in config.discriminator.stages] == [16, 8]


@pytest.mark.parametrize("resolution", [40, 31, 1024])
def test_at_resolution_refuses_with_one_line(resolution):
    with pytest.raises(ValueError, match=f"resolution {resolution} cannot be made") as refused:
        TransGANConfig().at_resolution(resolution)
    assert "\n" not in str(refused.value)


def test_schema_needs_no_torch():
    code = "import sys, gtool.models.transgan.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
