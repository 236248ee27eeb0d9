"""Export to ONNX: one file from pictures to character ids, with resizing left to the program that uses it.

The exported model reads as the run does, step by step if its decoder does; all rows of a batch go on until the last one
ends, which changes no row. onnxruntime compares both on random pictures before the export is kept. With `int8` there is
a smaller file beside it.
"""

import contextlib
import io
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from cache.errors import DptrError, WrongUse
from models.decoders import StepDecoder, TextDecoder
from models.recogniser import Recogniser
from sources.labelled import Labelled
from train.export.description import description, write_json
from train.export.onnx.compare import compare
from train.export.onnx.forms import OPSET
from train.export.onnx.graph import reader
from train.export.onnx.int8 import loss, quantise
from train.run import Saved

ONE_FILE = 1_900_000_000  # bytes of weights, at most; protobuf's limit is 2 GiB
FILE, SMALL = "model.onnx", "model.int8.onnx"
Say = Callable[[str], None]


def write(source: Saved, folder: Path, say: Say, int8: bool, sets: Sequence[Labelled]) -> dict[str, Any]:
    """Write model.onnx and model.json to `folder`; returns the largest difference from the run and the time it took.

    With `int8` also model.int8.onnx, and what it reads otherwise, on `sets` or, without any, on random pictures. Raises
    WrongUse for a pre-trained run, a decoder that has no form in ONNX, or if onnx is not installed; DptrError if the
    model cannot be converted, or if the export does not read as the run does.
    """
    if not isinstance(source.model, Recogniser):
        raise WrongUse(
            f"{source.run} is a pre-trained run, which cannot read pictures: fine-tune it, then export to onnx."
        )
    _needs("onnxruntime", "onnx")
    recogniser = source.model.float().requires_grad_(False).eval()
    _check(recogniser.decoder)
    fields = {**description(source), "onnx": _interface(recogniser)}
    started, path = time.perf_counter(), folder / FILE
    convert(recogniser, path, fields)
    seconds = time.perf_counter() - started
    write_json(folder / "model.json", fields)
    difference, compared = compare(recogniser, path)
    say(
        f"{FILE}: converted in {seconds:.1f} s; onnxruntime reads {compared} random pictures as the run does, "
        f"probabilities differ by at most {difference:.1g}"
    )
    done = {"seconds": round(seconds, 1), "pictures_compared": compared, "largest_difference": difference}
    return {**done, "int8": _small(source, path, folder / SMALL, sets, say)} if int8 else done


def _small(source: Saved, path: Path, to: Path, sets: Sequence[Labelled], say: Say) -> dict[str, Any]:
    """Write the quantised file, and say what it costs."""
    assert isinstance(source.model, Recogniser)
    with _quietly():
        quantise(path, to)
    found = loss(source.model, path, to, sets, getattr(source.config.options, "blank", False))
    sizes = f"{to.name}: {to.stat().st_size / 1e6:.1f} MB instead of {path.stat().st_size / 1e6:.1f};"
    if sets:
        names = ", ".join(found["sets"])
        say(
            f"{sizes} word accuracy {found['int8']:.1%} instead of {found['fp32']:.1%} on {found['words']:,} words of "
            f"{names}, {found['equal']:,} read alike"
        )
    else:
        say(
            f"{sizes} {found['equal']} of {found['random_pictures']} pictures of noise are read alike. Give --data for "
            "what it costs on words"
        )
    return found


def _check(decoder: TextDecoder) -> None:
    """WrongUse if values decide what a decoder computes. Tensors without values find out."""
    if isinstance(decoder, StepDecoder):
        return
    try:
        deepcopy(decoder).to("meta").read(torch.empty(2, 3, decoder.config.memory_width, device="meta"), None)
    except (RuntimeError, NotImplementedError) as error:
        raise WrongUse(
            f"the decoder {decoder.config.kind} decides while it reads what to compute, and has no form in ONNX: "
            "export to safetensors instead."
        ) from error


def _interface(recogniser: Recogniser) -> dict[str, Any]:
    height, width = recogniser.config.vision.image_size
    positions = recogniser.config.decoder.max_length + 1
    return {
        "input": {
            "pictures": f"uint8 (B, 3, {height}, {width}), resized RGB; the model subtracts mean and divides by std"
        },
        "outputs": {
            "ids": f"int64 (B, {positions}): character ids, EOS from the end of the text on",
            "probabilities": f"float32 (B, {positions}): of these ids up to and including the first EOS, 1 after it",
        },
        "opset": OPSET,
    }


def convert(recogniser: Recogniser, path: Path, fields: dict[str, Any]) -> None:
    """Write a recogniser in evaluation mode, fp32, with its description. DptrError if torch cannot convert it."""
    import onnx

    try:
        with _quietly():
            made = reader(recogniser)
    except Exception as error:  # whatever torch raises, there is one remedy
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DptrError(
            f"torch {torch.__version__} could not convert the recogniser to ONNX ({reason}): "
            "install the versions listed in constraints.txt."
        ) from error
    held = {"characters": fields["characters"], "model": json.dumps(fields, ensure_ascii=False)}
    onnx.helper.set_model_props(made, held)
    apart = sum(p.numel() * p.element_size() for p in recogniser.parameters()) > ONE_FILE
    onnx.save_model(made, path, save_as_external_data=apart, location=f"{path.name}.data" if apart else None)


def _needs(*names: str) -> None:
    """Raises WrongUse if one of these modules is not installed."""
    try:
        for name in names:
            import_module(name)
    except ImportError as error:
        raise WrongUse(f"export to onnx needs {error.name or 'onnx'}: pip install 'dptr[onnx]'.") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence what exporters print, log and warn of."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
