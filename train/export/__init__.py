"""Exports a run's best checkpoint: `dptr export RUN --out DIR --format safetensors|openocr|onnx`.

The safetensors format is written here: model.safetensors holds every weight under this project's module names, in fp32
or fp16, and model.json says how to rebuild and use the model without this project. Such a folder is read like the run.
The other formats have a file each.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from cache import __version__
from cache.errors import DptrError, WrongUse
from cache.files import whole_folder, write_whole
from models.recogniser import Recogniser
from sources.labelled import Labelled
from train.export import onnx, openocr
from train.export.description import description, write_json
from train.exported import DESCRIPTION, WEIGHTS
from train.run import PERTURBATION, Saved, load_model
from train.shipped import folder_of

Say = Callable[[str], None]
COMPARED = 64  # random pictures or memories that are read with weights in fp32 and in fp16


def export(
    run: Path, out: Path, kind: str, say: Say, half: bool = False, int8: bool = False, sets: Sequence[Labelled] = ()
) -> dict[str, Any]:
    """Write a run's best checkpoint to the folder `out`, completely or not at all; returns the summary for --json.

    With `half`, weights are stored in fp16, for safetensors alone. `int8` adds a smaller ONNX file, whose loss of
    accuracy is measured on `sets`, or on noise if there are none.

    Raises WrongUse if there is no such run or format, if `out` is not empty, or if the format does not support the
    run's shape; DptrError for a damaged checkpoint, an export that does not read as the run does, or a failed write.
    """
    writers: dict[str, Callable[..., dict[str, Any]]] = {
        "safetensors": _half if half else _whole,
        "openocr": openocr.write,
        "onnx": partial(onnx.write, int8=int8, sets=sets),
    }
    if half and kind != "safetensors":
        raise WrongUse(
            f"--half stores the weights of --format safetensors in 16 bits, not those of {kind}: leave it out."
        )
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


def _whole(source: Saved, folder: Path, say: Say) -> dict[str, Any]:
    parameters = _safetensors(source, folder, torch.float32)
    say(f"{source.kind} of step {source.step:,}: {parameters / 1e6:.1f} M parameters in fp32")
    return {"parameters": parameters}


def _half(source: Saved, folder: Path, say: Say) -> dict[str, Any]:
    rounded = {name: tensor.half() for name, tensor in source.model.state_dict().items()}
    if not all(tensor.isfinite().all() for tensor in rounded.values()):
        raise DptrError(f"{source.run} has weights beyond the range of fp16: export it without --half.")
    parameters = _safetensors(source, folder, torch.float16)
    alike = _read_alike(source, rounded)
    say(
        f"{source.kind} of step {source.step:,}: {parameters / 1e6:.1f} M parameters in fp16; of {COMPARED} random "
        f"{'pictures' if isinstance(source.model, Recogniser) else 'memories'}, {alike} are read as with fp32"
    )
    return {"parameters": parameters, "compared": COMPARED, "alike": alike}


def _safetensors(source: Saved, folder: Path, stored: torch.dtype) -> int:
    """Write weights and description; returns the number of parameters."""
    weights = {name: tensor.to(stored).contiguous() for name, tensor in source.model.state_dict().items()}
    write_whole(folder / WEIGHTS, save(weights, {"format": "pt", "made_by": f"dptr {__version__}"}))
    write_json(folder / DESCRIPTION, description(source))
    statistics = folder_of(source.run) / PERTURBATION
    if statistics.exists():
        write_whole(folder / PERTURBATION, statistics.read_bytes())
    return sum(tensor.numel() for tensor in weights.values())


@torch.inference_mode()
def _read_alike(source: Saved, rounded: dict[str, torch.Tensor]) -> int:
    """How many of COMPARED random inputs have the same reading with weights that were rounded."""
    other, generator = deepcopy(source), torch.Generator().manual_seed(0)
    other.model.load_state_dict(rounded)
    if isinstance(source.model, Recogniser):
        shape = (COMPARED, 3, *source.model.config.vision.image_size)
        inputs = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    else:
        inputs = torch.randn(COMPARED, 8, source.decoder.config.memory_width, generator=generator)
    return sum(a == b for a, b in zip(_texts(source, inputs), _texts(other, inputs), strict=True))


def _texts(source: Saved, inputs: torch.Tensor) -> list[str]:
    """What is read from pictures or, by a decoder alone, from memories."""
    if isinstance(source.model, Recogniser):
        return source.model.read_characters(inputs)[0]
    return source.decoder.charset.decode(source.decoder.read(inputs, None)[0])
