"""Exports a run's decoder as a checkpoint for OpenOCR's `DptrParseq`, the released decoder of DPTR.

Names and shapes are those of openrec/modeling/decoders/dptr_parseq_clip_b_decoder.py in Topdu/OpenOCR, with the prefix
`decoder.` that its whole model (`BaseRecognizer`) gives them; its `pretrained_model` option loads the file and leaves
unchanged what the file lacks. Ids agree: EOS is 0, characters start at 1, BOS and PAD follow (its `ARLabelEncode`), and
its dictionary of 94 characters, EN_symbol_dict.txt, has the order of models.charset.CHARACTERS_94.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache.errors import WrongUse
from cache.files import write_whole
from models.charset import CHARACTERS_94
from models.decoders.parseq import Decoder, only_parseq
from models.layers import Attention
from models.recogniser import FMU, QUERIES, Recogniser
from train.run import Saved

PREFIX = "decoder."  # of the decoder within BaseRecognizer
DICTIONARY = "openocr_dict.txt"


def write(source: Saved, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Write openocr.pth and its dictionary to `folder`; returns what to put into OpenOCR's configuration.

    Raises WrongUse if the released class does not support the run's shape.
    """
    decoder, fmu = _checked(source), getattr(source.model, "fmu", None)
    weights = decoder_weights(decoder) | (fmu_weights(fmu) if isinstance(fmu, FMU) else {})
    shape = decoder.config
    # In its refinement, content sees what follows; that changes what layers before the last hand on
    refinements = int(shape.depth == 1)
    options = {
        "name": "DptrParseq",
        "max_label_length": shape.max_length,
        "embed_dim": shape.width,
        "dec_num_heads": shape.heads,
        "dec_depth": shape.depth,
        "dropout": shape.dropout,
        "decode_ar": True,
        "refine_iters": refinements,
        "is_pretrain": fmu is None,
    }
    checkpoint = {
        "epoch": 0,
        "global_step": source.step,
        "state_dict": {PREFIX + name: tensor.detach().float().contiguous() for name, tensor in weights.items()},
        "optimizer": None,
        "scheduler": None,
        "config": {
            "Global": {
                "character_dict_path": DICTIONARY,
                "max_text_length": shape.max_length,
                "use_space_char": False,
            },
            "Architecture": {"model_type": "rec", "algorithm": "DPTR", "Decoder": options},
        },
        "metrics": dict(source.scores),
    }
    memory = io.BytesIO()
    torch.save(checkpoint, memory)
    write_whole(folder / "openocr.pth", memory.getbuffer())
    write_whole(folder / DICTIONARY, ("\n".join(shape.characters) + "\n").encode())
    same = shape.characters == CHARACTERS_94
    say(
        f"{len(weights)} tensors, named as in OpenOCR's DptrParseq: give openocr.pth as its pretrained_model"
        + ("" if same else f" and {DICTIONARY} as its character_dict_path")
    )
    if not refinements:
        say(
            "refine_iters is 0, since OpenOCR's class refines differently with more than one layer: it reads what dptr "
            "reads before refining"
        )
    if isinstance(source.model, Recogniser):
        say("the image encoder is not part of this format: export to safetensors or onnx to include it")
    return {"tensors": len(weights), "encoder": False, "fmu": fmu is not None, "openocr": options}


def decoder_weights(decoder: Decoder) -> dict[str, Tensor]:
    """The decoder's parameters under the released names, without the prefix of the whole model."""
    weights = {
        "pos_queries": decoder.positions[None],  # (1, longest + 1, W)
        "text_embed.embedding.weight": decoder.embedding.weight,
        **_pair("decoder.norm", decoder.norm),
        **_pair("head", decoder.head),
    }
    for n, layer in enumerate(decoder.layers):
        at: Any = layer
        name = f"decoder.layers.{n}."
        weights |= _attention(name + "self_attn", at.self_attention) | _attention(
            name + "cross_attn", at.cross_attention
        )
        weights |= _pair(name + "linear1", at.feed[0]) | _pair(name + "linear2", at.feed[3])
        weights |= _pair(name + "norm1", at.norm_cross) | _pair(name + "norm2", at.norm_feed)
        weights |= _pair(name + "norm_q", at.norm_query) | _pair(name + "norm_c", at.norm_content)
    return weights


def fmu_weights(fmu: FMU) -> dict[str, Tensor]:
    """The FMU's parameters under the released names, without the prefix of the whole model."""
    return {
        "token_query": fmu.queries[None],  # (1, queries, W)
        **_attention("fmu.cross_attn", fmu.attention),
        **_pair("fmu.linear1", fmu.feed[0]),
        **_pair("fmu.linear2", fmu.feed[3]),
        **_pair("fmu.norm", fmu.norm),
    }


def _attention(name: str, attention: Attention) -> dict[str, Tensor]:
    """As torch's nn.MultiheadAttention holds it: queries, keys and values in one matrix (3 W, W)."""
    query, both = attention.query, attention.keys_and_values
    return {
        f"{name}.in_proj_weight": torch.cat([query.weight, both.weight]),
        f"{name}.in_proj_bias": torch.cat([query.bias, both.bias]),
        **_pair(f"{name}.out_proj", attention.out),
    }


def _pair(name: str, module: Any) -> dict[str, Tensor]:
    return {f"{name}.weight": module.weight, f"{name}.bias": module.bias}


def _checked(source: Saved) -> Decoder:
    """The run's decoder. Raises WrongUse if the released class does not support its shape."""
    decoder = only_parseq(source.decoder, "OpenOCR", "export to safetensors instead")
    shape, why = decoder.config, ""
    if shape.width != shape.memory_width:
        why = (
            f"has a single width, but this run reads memories of width {shape.memory_width} with a decoder of "
            f"{shape.width}"
        )
    elif isinstance(source.model, Recogniser):
        config = source.model.config
        tokens = config.vision.tokens_width
        if tokens != shape.width:
            why = f"has a single width, but this run adapts tokens of width {tokens} to a decoder of {shape.width}"
        elif config.queries != QUERIES:
            why = f"always has an FMU of {QUERIES} queries, but this run has {config.queries or 'none'}"
    if why:
        raise WrongUse(
            f"{source.run} cannot be exported to OpenOCR, whose DptrParseq {why}: "
            "export to safetensors or onnx instead."
        )
    return decoder
