"""Attention maps: where the FMU and the decoder looked for each character they read.

Shape letters: B batch, Q queries, S places of a source; H rows and W columns of a picture.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from models.decoders.parseq import Decoder, only_parseq
from models.recogniser import FMU, Recogniser


def attention_maps(recogniser: Recogniser, pixels: Tensor) -> tuple[list[str], list[Tensor]]:
    """The texts read from pixels (B, 3, H, W) uint8, and the maps of each, (characters, rows, columns) float32.

    Each map sums to 1. The weights are those that produced the text: the decoder's cross-attention for the queries of
    the last refinement, averaged over heads and layers, times the FMU's, averaged over heads. Attention is not traced
    through the residual connections between layers. The class token has no place in the picture, so its share is left
    out. The recogniser must be in evaluation mode.
    """
    texts, _, maps = zip(*_looked(recogniser, pixels), strict=True)
    return list(texts), list(maps)


@torch.inference_mode()
def _looked(recogniser: Recogniser, pixels: Tensor) -> list[tuple[str, float, Tensor]]:
    """Text, confidence and maps of each picture."""
    decoder: list[Any] = [layer.cross_attention for layer in _drawable(recogniser).layers]
    fmu: list[Any] = [recogniser.fmu.attention] if isinstance(recogniser.fmu, FMU) else []
    config, found = recogniser.config.vision, []
    gather: list[Any] = [recogniser.encoder.gather[-1]] if config.queries else []
    for one in pixels.split(1):  # one by one: the words of a batch are not all refined in the same call
        with _last_calls([*decoder, *fmu, *gather]) as calls:
            (text,), (sure,) = recogniser.read(one)
        queries = calls[decoder[-1]][0].shape[1]  # in the layers before the last, content may follow the queries
        looked = torch.stack([_weights(layer, calls)[:, :queries] for layer in decoder]).mean(0)
        for layer in fmu:
            looked = looked @ _weights(layer, calls)
        looked = looked[0, : len(text), int(config.class_token) :]
        for layer in gather:
            looked = looked @ layer.weights(*calls[layer])[0]
        maps = (looked / looked.sum(-1, keepdim=True)).unflatten(-1, config.grid)
        found.append((text, sure, maps.float().cpu()))
    return found


def has_attention(recogniser: Recogniser) -> bool:
    """Whether its decoder is of the kind whose attention can be drawn."""
    return isinstance(recogniser.decoder, Decoder)


def _drawable(recogniser: Recogniser) -> Decoder:
    return only_parseq(recogniser.decoder, "drawing attention", "read without --attention")


def _weights(attention: Any, calls: dict[nn.Module, tuple[Any, ...]]) -> Tensor:
    """The weights (B, Q, S) of the last call, averaged over heads."""
    return torch.as_tensor(attention.weights(*calls[attention]).mean(1))


@contextmanager
def _last_calls(modules: Sequence[Any]) -> Iterator[dict[nn.Module, tuple[Any, ...]]]:
    """Record what each module was last called with; when a decoder reads, that is the last refinement."""
    calls: dict[nn.Module, tuple[Any, ...]] = {}
    hooks = [module.register_forward_pre_hook(calls.__setitem__) for module in modules]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
