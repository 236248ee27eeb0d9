"""Converts the image tower of a space's encoder to the module that fine-tuning trains (models/image_encoder.py).

Whatever the conversion does not recognise is an error: every weight must be used, and the converted tower must give
the same tokens as open_clip's own.
"""

from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from cache.errors import WrongUse
from cache.space import Space
from models.image_encoder import Convolution, ImageEncoder, Pair, VisionConfig
from pipeline.encoder import Encoder, space_encoder
from pipeline.shipped.word_vit import WordReader
from pipeline.towers.grids import has_class_token
from pipeline.towers.image import Visual

AGREE = 1e-3  # largest difference allowed from a value of open_clip's tokens, as a share of the largest value


def space_tower(space: Space, image_size: Pair | None, pretrained: str | None = None) -> ImageEncoder:
    """The image tower of a space's encoder, in fp32 on the CPU, for pictures of `image_size` (its own, if None).

    Raises DptrError, with the differing fields, if the weights are no longer those of the space; WrongUse for a tower
    that cannot be used, or a size that gives no token.
    """
    encoder = space_encoder(space, pretrained, "cpu")
    tower = convert(encoder)
    if image_size is None:
        return tower
    try:
        return tower.resized(image_size)
    except ValueError as error:
        raise WrongUse(f"{error} of {space.fingerprint.model}: choose a larger --image-size.") from error


def convert(encoder: Encoder) -> ImageEncoder:
    """The encoder's image tower in fp32. WrongUse if its kind is not supported or its tokens change."""
    visual, model = encoder.model.visual, encoder.fingerprint.model
    preprocess = encoder.preprocess_config
    look = {"mean": tuple(preprocess.mean), "std": tuple(preprocess.std), "size": tuple(preprocess.input_size[1:])}
    if not has_class_token(visual):
        raise WrongUse(f"{model} has no vision transformer with a class token: fine-tune with --encoder vit.")
    left = {name: tensor.detach().clone() for name, tensor in visual.state_dict().items()}
    known = _open_clip if isinstance(visual, VisionTransformer) else _timm
    config, weights = known(visual, left, look)
    if left:
        raise WrongUse(
            f"the image tower of {model} has parts that dptr does not know ({', '.join(list(left)[:3])}): "
            "use --encoder vit."
        )
    tower = ImageEncoder(config).eval()
    tower.load_state_dict(weights)
    picture = torch.randn(1, 3, *config.image_size, generator=torch.Generator().manual_seed(0))
    theirs_at_work = Visual(visual, preprocess, torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        ours, theirs = tower(picture), theirs_at_work(picture)
    if ours.shape != theirs.shape or not bool((ours - theirs).abs().max() < AGREE * theirs.abs().max()):
        raise WrongUse(f"the image tower of {model} gives other tokens once converted: use --encoder vit.")
    return tower


def _open_clip(visual: Any, left: dict[str, Tensor], look: dict[str, Any]) -> tuple[VisionConfig, dict[str, Tensor]]:
    kernel = visual.conv1.kernel_size
    block = visual.transformer.resblocks[0]
    config = VisionConfig(
        image_size=look["size"],
        stem=(Convolution(visual.conv1.out_channels, kernel, visual.conv1.stride, bias=False),),
        layers=len(visual.transformer.resblocks),
        heads=block.attn.num_heads,
        feed=block.mlp.c_fc.out_features,
        out=visual.proj.shape[1],
        pre_norm=not isinstance(visual.ln_pre, nn.Identity),
        quick_gelu=type(block.mlp.gelu).__name__ == "QuickGELU",
        epsilon=visual.ln_post.eps,
        mean=look["mean"],
        std=look["std"],
    )
    weights = {"stem.0.weight": left.pop("conv1.weight")}
    weights |= {"class_token": left.pop("class_embedding"), "positions": left.pop("positional_embedding")}
    weights |= _norms(left, [("ln_post", "norm"), *([("ln_pre", "pre_norm")] if config.pre_norm else [])])
    for n in range(config.layers):
        theirs, ours = f"transformer.resblocks.{n}.", f"blocks.{n}."
        names = {"ln_1": "norm_attention", "ln_2": "norm_feed", "attn.out_proj": "attention_out"}
        names |= {"mlp.c_fc": "feed_in", "mlp.c_proj": "feed_out"}
        weights |= _norms(left, [(theirs + a, ours + b) for a, b in names.items()])
        for kind in ("weight", "bias"):
            weights[f"{ours}queries_keys_values.{kind}"] = left.pop(f"{theirs}attn.in_proj_{kind}")
        for scale, after in (("ls_1.gamma", "attention_out"), ("ls_2.gamma", "feed_out")):
            _scale(weights, ours + after, left.pop(theirs + scale, None))
    weights |= _projection(left.pop("proj").T.contiguous(), None)
    return config, weights


def _timm(visual: Any, left: dict[str, Tensor], look: dict[str, Any]) -> tuple[VisionConfig, dict[str, Tensor]]:
    trunk = visual.trunk
    stem, weights = _timm_stem(trunk.patch_embed, left)
    block = trunk.blocks[0]
    config = VisionConfig(
        image_size=look["size"],
        stem=stem,
        layers=len(trunk.blocks),
        heads=block.attn.num_heads,
        feed=block.mlp.fc1.out_features,
        out=visual.head.proj.out_features if hasattr(visual.head, "proj") else None,
        pre_norm=not isinstance(trunk.norm_pre, nn.Identity),
        epsilon=trunk.norm.eps,
        queries=len(trunk.asked) if isinstance(trunk, WordReader) else 0,
        query_layers=len(trunk.gather) if isinstance(trunk, WordReader) else 0,
        mean=look["mean"],
        std=look["std"],
    )
    for name in [name for name in left if name.startswith(("trunk.asked", "trunk.gather.", "trunk.norm_queries."))]:
        weights[name.removeprefix("trunk.")] = left.pop(name)  # modules of our own
    weights |= {"class_token": left.pop("trunk.cls_token")[0, 0], "positions": left.pop("trunk.pos_embed")[0]}
    weights |= _norms(left, [("trunk.norm", "norm"), *([("trunk.norm_pre", "pre_norm")] if config.pre_norm else [])])
    for n in range(config.layers):
        theirs, ours = f"trunk.blocks.{n}.", f"blocks.{n}."
        names = {"norm1": "norm_attention", "norm2": "norm_feed", "attn.qkv": "queries_keys_values"}
        names |= {"attn.proj": "attention_out", "mlp.fc1": "feed_in", "mlp.fc2": "feed_out"}
        weights |= _norms(left, [(theirs + a, ours + b) for a, b in names.items()])
        for scale, after in (("ls1.gamma", "attention_out"), ("ls2.gamma", "feed_out")):
            _scale(weights, ours + after, left.pop(theirs + scale, None))
    if config.out is not None:
        weights |= _projection(left.pop("head.proj.weight"), left.pop("head.proj.bias", None))
    return config, weights


def _timm_stem(patches: Any, left: dict[str, Tensor]) -> tuple[tuple[Convolution, ...], dict[str, Tensor]]:
    """The convolutions in order; a batch norm is never trained here, so it is folded into the one before it."""
    stem: list[Convolution] = []
    weights: dict[str, Tensor] = {}
    for name, module in patches.named_modules():
        place = f"trunk.patch_embed.{name}."
        last = f"stem.{len(stem) - 1}."
        if isinstance(module, nn.Conv2d):
            weights[f"stem.{len(stem)}.weight"] = left.pop(place + "weight")
            zeros = torch.zeros(module.out_channels)
            weights[f"stem.{len(stem)}.bias"] = left.pop(place + "bias", zeros)
            shape = (tuple(module.kernel_size), tuple(module.stride), tuple(module.padding))
            stem.append(Convolution(module.out_channels, *shape))  # type: ignore[arg-type]
        elif isinstance(module, nn.BatchNorm2d):
            scale = left.pop(place + "weight") / torch.sqrt(left.pop(place + "running_var") + module.eps)
            shift = left.pop(place + "bias") - left.pop(place + "running_mean") * scale
            left.pop(place + "num_batches_tracked")
            weights[last + "weight"] = weights[last + "weight"] * scale.view(-1, 1, 1, 1)
            weights[last + "bias"] = weights[last + "bias"] * scale + shift
    return tuple(stem), weights


def _norms(left: dict[str, Tensor], names: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Weight and bias of each module under our name for it; load_state_dict notices any that are missing."""
    found = {}
    for theirs, ours in names:
        for kind in ("weight", "bias"):
            if f"{theirs}.{kind}" in left:
                found[f"{ours}.{kind}"] = left.pop(f"{theirs}.{kind}")
    return found


def _scale(weights: dict[str, Tensor], name: str, gamma: Tensor | None) -> None:
    """Folds a layer scale into the linear layer before it."""
    if gamma is not None:
        weights[f"{name}.weight"] = weights[f"{name}.weight"] * gamma[:, None]
        weights[f"{name}.bias"] = weights[f"{name}.bias"] * gamma


def _projection(weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    return {"project.weight": weight, "project.bias": torch.zeros(len(weight)) if bias is None else bias}
