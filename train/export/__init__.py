"""A run's best checkpoint for other programs: `dptr export RUN --out DIR --format safetensors|openocr|onnx`.

safetensors, here: model.safetensors, every weight in fp32 under the names of this project's modules, and model.json,
which says how to rebuild and use the model without this project. The other formats have a file each.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from cache import __version__
from cache.errors import WrongUse
from cache.files import whole_folder, write_whole
from train.export import onnx, openocr
from train.export.description import description, write_json
from train.run import Saved, load_model

Say = Callable[[str], None]


def export(run: Path, out: Path, kind: str, say: Say) -> dict[str, Any]:
    """Write a run's best checkpoint to the folder `out`, whole or not at all; what was written, for --json.

    Raises WrongUse if there is no such run or format, if `out` holds something, or if the run's shape does not go into
    the format; DptrError for a damaged checkpoint, an export that reads otherwise than the run, or a failed write.
    """
    writers = {"safetensors": _safetensors, "openocr": openocr.write, "onnx": onnx.write}
    if kind not in writers:
        raise WrongUse(f"'{kind}' is no format to export to: choose one of {', '.join(writers)}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WrongUse(f"{out} exists already: choose another --out, or delete it.")
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
