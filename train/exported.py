"""An exported folder as a run: `read`, `evaluate`, `serve` and `finetune --init` need nothing else.

model.safetensors has the weights; model.json has the shape, the space, and of the configuration what is asked of a run
later, without the paths of the machine that trained it.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, int8

from train.run_config import RunConfig

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
SCALE = ".scale"  # ends the name of what a tensor of int8 is multiplied by, row by row
OPTIONS = ("blank", "corpus", "bank", "held_out", "zero_memory", "perturb")
RESOLVED = ("perturb", "pretrained")


def is_exported(folder: Path) -> bool:
    """Whether `dptr export --format safetensors` wrote this folder."""
    return (folder / WEIGHTS).is_file() and (folder / DESCRIPTION).is_file()


def kept(config: RunConfig) -> dict[str, Any]:
    """What model.json has of a run's options and of what followed from them."""
    options = {name: getattr(config.options, name) for name in OPTIONS if hasattr(config.options, name)}
    resolved = {name: config.resolved[name] for name in RESOLVED if name in config.resolved}
    return {"options": options, "resolved": {"steps": config.steps, **resolved}}


def exported_config(folder: Path) -> RunConfig:
    """The configuration of the run that was exported; `train` and `val` are empty. OSError, KeyError or ValueError."""
    return _config(folder, _described(folder))


def exported_checkpoint(folder: Path) -> dict[str, Any]:
    """What best.pt held: model, step, scores, config; weights as they were rounded. Raises as `exported_config`."""
    made = _described(folder)
    config = _config(folder, made).to_dict()
    return {
        "model": restored(load_file(folder / WEIGHTS)),
        "step": made["run"]["step"],
        "scores": made["run"]["scores"],
        "config": config,
    }


def restored(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights to compute with, from those that `train.export.rounding` made."""
    made = {}
    for name, tensor in weights.items():
        if tensor.dtype == int8:
            made[name] = tensor.float() * weights[name + SCALE].view(-1, *[1] * (tensor.dim() - 1))
    scales = {name + SCALE for name in made}
    return {name: made.get(name, tensor) for name, tensor in weights.items() if name not in scales}


def _described(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / DESCRIPTION).read_text("utf-8")))


def _config(folder: Path, made: dict[str, Any]) -> RunConfig:
    shape, space = made["shape"], made["space"]
    finetuned = "vision" in shape
    elsewhere = {"init": folder, "train": [], "val": []} if finetuned else {}
    return RunConfig.of(
        {
            "options": {**made["training"]["options"], **elsewhere, "out": folder},
            "resolved": made["training"]["resolved"],
            "recogniser" if finetuned else "decoder": shape if finetuned else shape["decoder"],
            "space": space["name"],
            "fingerprint": space["fingerprint"],
            "machine": {},
        }
    )
