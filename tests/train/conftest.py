"""A short pre-trained run and drawn numbers to fine-tune it on."""

import pytest

from cache.space import open_space
from pipeline.convert import space_tower
from tests.helpers.pictures import NUMBERS, drawn_set
from train.finetune import Material
from train.finetune_options import FinetuneOptions
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions


@pytest.fixture(scope="session")
def init(cache, tmp_path_factory):
    """A short pre-trained run in the space of `cache`. Not to be written to."""
    out = tmp_path_factory.mktemp("init") / "run"
    pretrain(PretrainOptions(["numbers"], out, cache=cache, depth=1, heads=2, batch=32, steps=3, device="cpu"), print)
    return out


@pytest.fixture
def pretraining(cache, tmp_path):
    return PretrainOptions(
        ["numbers"], tmp_path / "run", cache=cache, bank="noise", depth=1, heads=2, batch=32, steps=3, device="cpu"
    )


@pytest.fixture
def finetuning(init, tmp_path):
    return FinetuneOptions(
        init, ["x"], ["y"], tmp_path / "run", batch=16, steps=3, workers=0, device="cpu", precision="fp32"
    )


@pytest.fixture(scope="session")
def material(cache):
    """Not to be trained: a run copies the tower."""
    space = open_space(cache)
    return Material([[drawn_set(NUMBERS)]], [drawn_set(NUMBERS[::7], "val")], space, space_tower(space, (16, 64)))
