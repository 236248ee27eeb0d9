"""Exports a fine-tuned run as one ONNX file: pictures in, character ids and their probabilities out.

Reading left to right is one ONNX Scan whose body is a single step, with fixed space for the keys and values of all
steps. Unrolled, the released decoder's 26 steps of 6 layers take over eight minutes to convert; the Scan takes half a
minute. Before the export gets its final name, onnxruntime reads it and the result is compared with the run's.
"""

import contextlib
import io
import json
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.nn import functional as F

from cache.errors import DptrError, WrongUse
from models.charset import EOS
from models.decoders import ended_at_eos
from models.decoders.parseq import Decoder, only_parseq
from models.layers import KeysValues
from models.recogniser import Recogniser
from train.export.description import description, write_json
from train.run import Saved

OPSET = 20  # the first with GELU
BATCHES = (1, 3, 3, 1)  # sizes of the batches of random pictures to compare
TIE = 1e-3  # another program may rank logits differently if they are closer than this
TOLERANCE = 1e-3  # for probabilities
ONE_FILE = 1_900_000_000  # bytes of weights, at most; protobuf's limit is 2 GiB


class OnnxReader(nn.Module):
    """`Decoder.read` for a recogniser's pictures, without branches in Python: finished rows are masked instead."""

    def __init__(self, recogniser: Recogniser, decoder: Decoder) -> None:
        """`decoder` is the recogniser's own."""
        super().__init__()
        self.recogniser, self.decoder = recogniser, decoder
        self.steps = recogniser.config.decoder.max_length + 1

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, H, W) uint8 to ids (B, steps) int64, EOS after the text, and probabilities, 1 after it."""
        memory = self.memory(pictures)
        logits = self.logits(self.left_to_right(memory), memory, cloze=True)
        shares, ids = logits.softmax(-1).max(-1)
        return ended_at_eos(ids, shares)

    def memory(self, pictures: Tensor) -> list[KeysValues]:
        """Each layer's keys and values; copies, because a scan does not accept two views of one tensor."""
        found = self.decoder.memory_keys_values(self.recogniser.memory(pictures))
        return [(keys.clone(), values.clone()) for keys, values in found]

    def left_to_right(self, memory: list[KeysValues]) -> Tensor:
        """Ids (B, steps); whatever follows the first EOS of a row is meaningless."""
        decoder, S = self.decoder, self.steps
        depth, W, heads = len(decoder.layers), decoder.config.width, decoder.config.heads
        B = memory[0][0].shape[0]
        before = torch.ones(S, S, dtype=torch.bool).tril(-1)  # row n: the inputs that step n finds in `past`
        now = torch.eye(S, dtype=torch.bool)
        moved = F.pad(decoder.positions[:-1], (0, 0, 1, 0))  # input n has position n - 1, BOS has none
        past = [torch.zeros(B, heads, S, W // heads) for _ in range(2 * depth)]

        def step(state: Any, of_step: Any) -> Any:
            (last, past), (position, position_before, seen, here) = state, of_step
            content = (decoder.embedding(last) * math.sqrt(W) + position_before)[:, None, None]  # (B, 1, 1, W)
            query = position.expand_as(content)
            mask = F.pad(seen, (0, 1), value=True)[None, None, None].expand(1, 1, 2, -1)  # its own input comes last
            kept = []
            for n, (layer, keys_values) in enumerate(zip(decoder.layers, memory, strict=True)):
                old = past[2 * n], past[2 * n + 1]
                query, content, new = layer(query, content, keys_values, mask, None, old, n + 1 == depth)
                kept += [torch.where(here[:, None], a[:, :, -1:], b) for a, b in zip(new, old, strict=True)]
            found = decoder.head(decoder.norm(query))[:, 0, 0].argmax(-1)
            return (found, kept), found.clone()

        start = torch.full((B,), decoder.charset.bos), past
        _, ids = scan(step, start, (decoder.positions, moved, before, now))
        return torch.as_tensor(ids.transpose(0, 1))

    def logits(self, ids: Tensor, memory: list[KeysValues], cloze: bool) -> Tensor:
        """(B, steps, head) for ids read before; each position sees those before it or, with `cloze`, all but itself."""
        S = self.steps
        inputs = F.pad(ids[:, :-1], (1, 0), value=self.decoder.charset.bos)
        content_mask = torch.ones(S, S, dtype=torch.bool).tril()
        query_mask = ~torch.ones(S, S, dtype=torch.bool).triu(1).tril(1) if cloze else content_mask
        readable = (inputs == EOS).cumsum(-1) == 0
        mask = torch.cat([query_mask, content_mask])[None, None] & readable[:, None, None]
        query = self.decoder.positions.expand(ids.shape[0], 1, -1, -1)
        return self.decoder._run(query, self.decoder._embed(inputs)[:, None], memory, mask, None)[:, 0]


def write(source: Saved, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Write model.onnx and model.json to `folder`; returns the largest difference from the run and the time it took.

    Raises WrongUse for a pre-trained run, a decoder other than parseq, or if onnx is not installed; DptrError if the
    model cannot be converted, or if the export does not read as the run does.
    """
    if not isinstance(source.model, Recogniser):
        raise WrongUse(
            f"{source.run} is a pre-trained run, which cannot read pictures: fine-tune it, then export to onnx."
        )
    decoder = only_parseq(source.decoder, "export to onnx", "export to safetensors instead")
    runtime = _needs("onnxruntime", "onnxscript", "onnx")
    recogniser = source.model.float().requires_grad_(False)  # with gradients a scan is exported for training
    reader = OnnxReader(recogniser, decoder).eval()
    fields = {**description(source), "onnx": _interface(recogniser)}
    started, path = time.perf_counter(), folder / "model.onnx"
    say("converting to ONNX (about half a minute) ...")
    _convert(reader, path, fields)
    seconds = time.perf_counter() - started
    write_json(folder / "model.json", fields)
    difference, compared = _compare(reader, path, runtime)
    say(
        f"model.onnx: converted in {seconds:.0f} s; onnxruntime reads {compared} random pictures as the run does, "
        f"probabilities differ by at most {difference:.1g}"
    )
    return {"seconds": round(seconds, 1), "pictures_compared": compared, "largest_difference": difference}


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


def _convert(reader: OnnxReader, path: Path, fields: dict[str, Any]) -> None:
    size = reader.recogniser.config.vision.image_size
    example = torch.zeros(2, 3, *size, dtype=torch.uint8)
    batch = {"pictures": {0: torch.export.Dim("B")}}
    try:
        with _quietly(), torch.no_grad():
            program = torch.export.export(reader, (example,), dynamic_shapes=batch, strict=False)
            names: dict[str, Any] = {"input_names": ["pictures"], "output_names": ["ids", "probabilities"]}
            how: dict[str, Any] = {"dynamo": True, "optimize": False, "verbose": False}  # onnxruntime optimises itself
            made: Any = torch.onnx.export(program, (), **names, opset_version=OPSET, **how)
            _forget_where_it_was_made(made.model)
            _name_the_batch(made.model, "B")
            made.model.metadata_props["characters"] = fields["characters"]
            made.model.metadata_props["model"] = json.dumps(fields, ensure_ascii=False)
            weights = sum(p.numel() * p.element_size() for p in reader.parameters())
            made.save(path, external_data=weights > ONE_FILE)
    except OSError:
        raise  # a full disk is reported as one
    except Exception as error:  # whatever torch and onnxscript raise, there is one remedy
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DptrError(
            f"torch {torch.__version__} could not convert the recogniser to ONNX ({reason}): "
            "install the versions listed in constraints.txt."
        ) from error


def _forget_where_it_was_made(model: Any) -> None:
    """Remove what the exporter adds to each node: source lines and local paths, which are larger than the graph."""
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
        for attribute in node.attributes.values():
            if attribute.type.name == "GRAPH":
                attribute.value.metadata_props.clear()


def _name_the_batch(model: Any, name: str) -> None:
    """Give the batch dimension this name wherever it has the one that torch made up."""
    made_up = str(model.graph.inputs[0].shape[0])
    values = {id(v): v for n in model.graph.all_nodes() for v in (*n.inputs, *n.outputs) if v is not None}
    values |= {id(v): v for v in (*model.graph.inputs, *model.graph.outputs)}
    for value in values.values():
        for place, size in enumerate(value.shape or ()):
            if str(size) == made_up:
                value.shape[place] = name


def _compare(reader: OnnxReader, path: Path, runtime: Any) -> tuple[float, int]:
    """Compare readings of random pictures: the largest difference of probabilities, and how many were compared.

    Pictures with a tie are left out. Raises DptrError if ids or probabilities differ on any of the others.
    """
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    largest, compared = 0.0, 0
    for B in BATCHES:
        size = (B, 3, *reader.recogniser.config.vision.image_size)
        pictures = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        ids, shares = (torch.from_numpy(found) for found in session.run(None, {"pictures": pictures.numpy()}))
        expected_ids, expected = reader.decoder.read(reader.recogniser.memory(pictures), None)
        sure = ~_ties(reader, pictures)
        compared += int(sure.sum())
        largest = max([largest, *(shares - expected)[sure].abs().amax(-1).tolist()])
        if not torch.equal(ids[sure], expected_ids[sure]) or not largest < TOLERANCE:
            raise DptrError(
                f"{path.name} was not kept: onnxruntime {runtime.__version__} does not read random pictures as the run "
                f"does (probabilities differ by {largest:.2g}): install the versions listed in constraints.txt."
            )
    return largest, compared


@torch.inference_mode()
def _ties(reader: OnnxReader, pictures: Tensor) -> Tensor:
    """(B,): whether, at any point while a picture was read, two ids were almost equally probable."""
    decoder, memory = reader.decoder, reader.memory(pictures)
    first, _ = decoder.read(reader.recogniser.memory(pictures), None, refinements=0)
    tied = torch.zeros(len(pictures), dtype=torch.bool)
    for cloze in (False, True):
        logits = reader.logits(first, memory, cloze)
        best = logits.topk(min(2, logits.shape[-1])).values
        ended = F.pad((logits.argmax(-1) == EOS).cumsum(-1)[:, :-1] > 0, (1, 0))
        tied |= ((best[..., 0] - best[..., -1] < TIE) & ~ended).any(-1)
    return tied


def _needs(*names: str) -> Any:
    """Import these modules and return the first. Raises WrongUse if one is not installed."""
    try:
        first, *_ = [import_module(name) for name in names]
        return first
    except ImportError as error:
        raise WrongUse(f"export to onnx needs {error.name or 'onnx'}: pip install 'dptr[onnx]'.") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence what torch's exporter prints, logs and warns of."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
