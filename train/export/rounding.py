"""Weights in fewer bytes: all in fp16, or matrices in int8 with a scale for each of their rows."""

from torch import Tensor, float16, float32, int8

from train.exported import SCALE

SAID = {
    "fp32": "as they were trained",
    "fp16": "rounded to fp16; compute in fp32",
    "int8": f"a tensor NAME of int8 stands for NAME times NAME{SCALE}, one number for each row (its first dimension); "
    "the rest is in fp32; compute in fp32",
}


def rounded(weights: dict[str, Tensor], stored: str) -> dict[str, Tensor]:
    """Weights as they are `stored`: fp32, fp16 or int8. Those beyond the range of fp16 become infinite in it."""
    if stored == "int8":
        return {name: part for pair in weights.items() for name, part in _in_bytes(*pair).items()}
    return {name: tensor.to(float16 if stored == "fp16" else float32).contiguous() for name, tensor in weights.items()}


def _in_bytes(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A matrix or convolution in int8 and its scale, so that the largest weight of a row is 127; a vector as it is."""
    if tensor.dim() < 2:
        return {name: tensor.float().contiguous()}
    rows = tensor.float().flatten(1)
    scale = (rows.abs().amax(1) / 127).clamp(min=1e-12)
    return {name: (rows / scale[:, None]).round().to(int8).view(tensor.shape), name + SCALE: scale}
