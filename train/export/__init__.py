"""Exports a run's best checkpoint: `dptr export RUN --out DIR --format safetensors|openocr|onnx`.

The safetensors format is written here: model.safetensors holds every weight under this project's module names, and
model.json says how to rebuild and use the model without this project. Such a folder is read like the run. The other
formats have a file each.
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
from train.export.onnx.compare import random_pictures
from train.export.rounding import SAID, rounded
from train.exported import DESCRIPTION, WEIGHTS, restored
from train.run import PERTURBATION, Saved, load_model
from train.shipped import folder_of

Say = Callable[[str], None]
COMPARED = 64  # random pictures or memories that are read with weights as they are and as they are stored


def export(
    run: Path, out: Path, kind: str, say: Say, half: bool = False, int8: bool = False, sets: Sequence[Labelled] = ()
) -> dict[str, Any]:
    """Write a run's best checkpoint to the folder `out`, completely or not at all; returns the summary for --json.

    With `half`, weights are stored in fp16, for safetensors alone. With `int8`, matrices are stored in 8 bits: those of
    safetensors, or for ONNX those of a second file, whose loss of accuracy is measured on `sets`, or on noise.

    Raises WrongUse if there is no such run or format, if `out` is not empty, or if the format does not support the
    run's shape; DptrError for a damaged checkpoint, an export that does not read as the run does, or a failed write.
    """
    writers: dict[str, Callable[..., dict[str, Any]]] = {
        "safetensors": partial(_safetensors, stored="fp16" if half else "int8" if int8 else "fp32"),
        "openocr": openocr.write,
        "onnx": partial(onnx.write, int8=int8, sets=sets),
    }
    if half and kind != "safetensors":
        raise WrongUse(
            f"--half stores the weights of --format safetensors in 16 bits, not those of {kind}: leave it out."
        )
    if kind not in writers:
        raise WrongUse(f"'{kind}' is not an export format: choose one of {', '.join(writers)}.")
    if int8 and (half or kind == "openocr"):
        raise WrongUse("--int8 is for ONNX, and for safetensors without --half: leave out one of them.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise WrongUse(f"{out} already exists: choose another --out, or delete it.")
    source = load_model(run)
    with whole_folder(out) as folder:
        found = writers[kind](source, folder, say)
        files = sorted(path.name for path in folder.iterdir())
    made = {"run": str(run), "out": str(out), "format": kind, "kind": source.kind, "step": source.step, "files": files}
    return {**made, "scores": source.scores, **found}


def _safetensors(source: Saved, folder: Path, say: Say, stored: str) -> dict[str, Any]:
    state = source.model.state_dict()
    weights, parameters = rounded(state, stored), sum(tensor.numel() for tensor in state.values())
    if stored == "fp16" and not all(tensor.isfinite().all() for tensor in weights.values()):
        raise DptrError(f"{source.run} has weights beyond the range of fp16: export it without --half.")
    write_whole(folder / WEIGHTS, save(weights, {"format": "pt", "made_by": f"dptr {__version__}"}))
    write_json(folder / DESCRIPTION, description(source) | {"weights": SAID[stored]})
    statistics = folder_of(source.run) / PERTURBATION
    if statistics.exists():
        write_whole(folder / PERTURBATION, statistics.read_bytes())
    text = f"{source.kind} of step {source.step:,}: {parameters / 1e6:.1f} M parameters in {stored}"
    if stored == "fp32":
        say(text)
        return {"parameters": parameters}
    alike = _read_alike(source, restored(weights))
    inputs = "pictures" if isinstance(source.model, Recogniser) else "memories"
    say(f"{text}; of {COMPARED} random {inputs}, {alike} are read as with fp32")
    return {"parameters": parameters, "compared": COMPARED, "alike": alike}


@torch.inference_mode()
def _read_alike(source: Saved, weights: dict[str, torch.Tensor]) -> int:
    """How many of COMPARED random inputs have the same reading with weights that were rounded."""
    other, generator = deepcopy(source), torch.Generator().manual_seed(0)
    other.model.load_state_dict(weights)
    if isinstance(source.model, Recogniser):
        inputs = random_pictures(source.model, COMPARED, generator)
    else:
        inputs = torch.randn(COMPARED, 8, source.decoder.config.memory_width, generator=generator)
    return sum(a == b for a, b in zip(_texts(source, inputs), _texts(other, inputs), strict=True))


def _texts(source: Saved, inputs: torch.Tensor) -> list[str]:
    """What is read from pictures or, by a decoder alone, from memories."""
    if isinstance(source.model, Recogniser):
        return source.model.read_characters(inputs)[0]
    return source.decoder.charset.decode(source.decoder.read(inputs, None)[0])
