"""Exports a run's best checkpoint: `dptr export RUN --out DIR --format safetensors|openocr|onnx`.

The safetensors format is written here: model.safetensors holds every weight in fp32 under this project's module names,
and model.json says how to rebuild and use the model without this project. The other formats have a file each.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from cache import __version__
from cache.errors import WrongUse
from cache.files import whole_folder, write_whole
from sources.labelled import Labelled
from train.export import onnx, openocr
from train.export.description import description, write_json
from train.run import Saved, load_model

Say = Callable[[str], None]


def export(
    run: Path, out: Path, kind: str, say: Say, int8: bool = False, sets: Sequence[Labelled] = ()
) -> dict[str, Any]:
    """Write a run's best checkpoint to the folder `out`, completely or not at all; returns the summary for --json.

    `int8` adds a smaller ONNX file, whose loss of accuracy is measured on `sets`, or on noise if there are none.
    Raises WrongUse if there is no such run or format, if `out` is not empty, or if the format does not support the
    run's shape; DptrError for a damaged checkpoint, an export that does not read as the run does, or a failed write.
    """
    writers: dict[str, Callable[..., dict[str, Any]]] = {
        "safetensors": _safetensors,
        "openocr": openocr.write,
        "onnx": partial(onnx.write, int8=int8, sets=sets),
    }
    if kind not in writers:
        raise WrongUse(f"'{kind}' is not an export format: choose one of {', '.join(writers)}.")
    if int8 and kind != "onnx":
        raise WrongUse("--int8 is for ONNX: add --format onnx.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WrongUse(f"{out} already exists: choose another --out, or delete it.")
    source = load_model(run)
    with whole_folder(out) as folder:
        found = writers[kind](source, folder, say)
        files = sorted(path.name for path in folder.iterdir())
    made = {"run": str(run), "out": str(out), "format": kind, "kind": source.kind, "step": source.step, "files": files}
    return {**made, "scores": source.scores, **found}


def _safetensors(source: Saved, folder: Path, say: Say) -> dict[str, Any]:
    weights = {name: tensor.to(torch.float32).contiguous() for name, tensor in source.model.state_dict().items()}
    write_whole(folder / "model.safetensors", save(weights, {"format": "pt", "made_by": f"dptr {__version__}"}))
    write_json(folder / "model.json", description(source))
    parameters = sum(tensor.numel() for tensor in weights.values())
    say(f"{source.kind} of step {source.step:,}: {parameters / 1e6:.1f} M parameters in fp32")
    return {"parameters": parameters}
