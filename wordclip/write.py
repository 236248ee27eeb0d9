"""The weights as dptr ships them."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from cache.errors import DptrError
from cache.files import write_whole


def write_weights(model: nn.Module, path: Path) -> str:
    """Writes the state dict in fp16 as safetensors; returns its sha256. DptrError if a value does not fit."""
    state = {}
    for name, tensor in model.state_dict().items():
        state[name] = (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        if not torch.isfinite(state[name]).all():
            raise DptrError(f"{name} is not finite in fp16: the training has diverged.")
    data = save(state)
    write_whole(path, data)
    return hashlib.sha256(data).hexdigest()
