"""Configurations of runs, for tests that save a model without training it."""

from pathlib import Path

from cache.fingerprint import Fingerprint
from models.recogniser import RecogniserConfig
from train.finetune_options import FinetuneOptions
from train.pretrain_options import PretrainOptions
from train.run_config import RunConfig

FINGERPRINT = Fingerprint(
    "tiny", "untrained:1", {}, "0" * 64, 1, False, "bpe", "a photo of a '{label}'", "compact", {}, "fp32"
)


def run_config(model, space_name="tiny.untrained-1.00000000"):
    """As if a model of this shape had been trained for 100 steps."""
    if isinstance(model, RecogniserConfig):
        options = FinetuneOptions(Path("pre"), ["train"], ["val"], Path("run"))
    else:
        options = PretrainOptions(["words"], Path("run"))
    return RunConfig(options, model, space_name, FINGERPRINT, {"steps": 100, "perturb": {}}, {"versions": {}})
