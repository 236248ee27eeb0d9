"""A frozen CLIP as this project uses it: token states of prompts, and all image tokens, not only the pooled ones.

Shape letters: B batch, L positions, D text width, T image tokens, E embedding width.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.timm_model import TimmModel
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import TextTransformer, VisionTransformer
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn

from cache.errors import DptrError, WrongUse
from cache.fingerprint import Fingerprint
from cache.space import Space
from machine import choose_device, choose_precision
from pipeline.prompt import PROMPT, Prompt
from pipeline.weights import build_model, model_config, untrained_seed, weights_digest

LAYOUTS = ("compact", "full")
BATCH_POSITIONS = 2048  # text positions in one forward pass; more is no faster on a CPU and gains little on a GPU


class Encoder:
    """An open_clip model, its prompt and its layout. All that it computes is decided by its `fingerprint`."""

    def __init__(
        self,
        model: str,
        pretrained: str,
        *,
        prompt: str = PROMPT,
        layout: str = "compact",
        precision: str = "auto",
        device: str = "auto",
    ) -> None:
        """Raises WrongUse for a model, weights or layout that cannot be used, DptrError if a download fails."""
        if layout not in LAYOUTS:
            raise WrongUse(f"there is no layout '{layout}': choose {' or '.join(LAYOUTS)}.")
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self.layout = layout
        self.model = build_model(model, pretrained)
        self.tower = _text_tower(self.model, model)
        self.context = int(self.tower.context_length)
        tokenizer = open_clip.get_tokenizer(model)
        if not isinstance(tokenizer, SimpleTokenizer):
            raise WrongUse(f"{model} has a tokenizer that is not CLIP's byte-pair encoding: choose another --model.")
        self.prompt = Prompt(prompt, tokenizer, self.context)
        self.preprocess_config = _preprocess_config(self.model.visual.preprocess_cfg)
        self.preprocess = image_transform_v2(self.preprocess_config, is_train=False)
        config = model_config(model)
        self.fingerprint = Fingerprint(
            model=model,
            pretrained=pretrained,
            config=config,
            weights=weights_digest(self.model),
            untrained_seed=untrained_seed(pretrained),
            quick_gelu=bool(config.get("quick_gelu", False)),
            tokenizer=f"clip-bpe {tokenizer.vocab_size} {getattr(tokenizer.clean_fn, '__name__', '')}",
            prompt=prompt,
            layout=layout,
            preprocess=_plain(asdict(self.preprocess_config)),
            compute=self.precision,
        )
        self.text_projection = _projection(self.tower)  # (D, E) fp32
        self.width = int(self.tower.ln_final.weight.shape[0])  # D
        if layout == "full" and self.text_projection.shape[1] != self.width:
            raise WrongUse(
                f"the full layout puts the projected row (width {self.text_projection.shape[1]}) on top of the states "
                f"(width {self.width}), so the two must be equal: use --layout compact with {model}."
            )
        self.model.to(self.device, torch.bfloat16 if self.precision == "bf16" else torch.float32)

    def rows(self, ids: Sequence[int]) -> int:
        """How many rows the memory of a prompt has in this layout."""
        return self.context + 1 if self.layout == "full" else len(ids) - len(self.prompt.prefix)

    @torch.inference_mode()
    def text_states(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float16]:
        """Rows of memories end to end, (Σ rows, D) float16, in the order of `ids` (token ids of prompts).

        Compact: `ln_final(x)` from the end of the common prefix to the end token. Full: the projected end-token row,
        then `ln_final(x)` of every position. Prompts are batched by length; attention is causal, so cutting a batch
        behind its longest end token changes nothing.
        """
        rows = np.array([self.rows(i) for i in ids])
        starts = np.cumsum(rows) - rows
        states = np.empty((int(rows.sum()), self.width), np.float16)
        first = 0 if self.layout == "full" else len(self.prompt.prefix)
        order = sorted(range(len(ids)), key=lambda n: len(ids[n]))
        while order:
            longest = self.context if self.layout == "full" else len(ids[order[-1]])
            size = max(1, BATCH_POSITIONS // longest)
            batch, order = order[-size:], order[:-size]
            tokens = np.zeros((len(batch), longest), np.int64)
            for row, n in enumerate(batch):
                tokens[row, : len(ids[n])] = ids[n]
            x = self._ln_final(torch.from_numpy(tokens).to(self.device))
            if self.layout == "full":
                end = x[torch.arange(len(batch)), [len(ids[n]) - 1 for n in batch]]
                x = torch.cat([(end @ self.text_projection.to(end))[:, None], x], 1)
            found = x[:, first:].half().cpu().numpy()
            for row, n in enumerate(batch):
                states[starts[n] : starts[n] + rows[n]] = found[row, : rows[n]]
        return states

    def prefix_states(self) -> NDArray[np.float16]:
        """States (P, D) of the positions that all prompts share; (0, D) in the full layout."""
        if self.layout == "full":
            return np.empty((0, self.width), np.float16)
        with torch.inference_mode():
            tokens = torch.tensor([self.prompt.prefix], device=self.device)
            return np.asarray(self._ln_final(tokens)[0].half().cpu().numpy())

    def image_shape(self) -> tuple[int, int]:
        """(T, E) of one picture. Raises as `image_tokens` does."""
        _, height, width = self.preprocess_config.input_size
        _, T, E = self.image_tokens(torch.zeros(1, 3, height, width)).shape
        return T, E

    @torch.inference_mode()
    def image_tokens(self, pictures: Tensor) -> NDArray[np.float16]:
        """All tokens of preprocessed pictures (B, 3, H, W), class token first, normed and projected: (B, T, E)."""
        visual = self.model.visual
        x = pictures.to(self.device, next(visual.parameters()).dtype)
        if isinstance(visual, VisionTransformer) and visual.attn_pool is None and visual.pool_type == "tok":
            x = visual.ln_post(visual.transformer(visual._embeds(x))) @ visual.proj
        elif isinstance(visual, TimmModel) and _reads_its_class_token(visual.trunk):
            x = visual.head(visual.trunk.forward_features(x))
        else:
            raise WrongUse(f"{self.fingerprint.model} has no vision transformer with a class token: choose another.")
        return np.asarray(x.half().cpu().numpy())

    def _ln_final(self, tokens: Tensor) -> Tensor:
        """States after the last layer norm, (B, L, D), of token ids (B, L), L up to the context."""
        tower, L = self.tower, tokens.shape[1]
        x = tower.token_embedding(tokens) + tower.positional_embedding[:L]
        x = tower.transformer(x, attn_mask=tower.attn_mask[:L, :L])
        return torch.as_tensor(tower.ln_final(x))


def space_encoder(space: Space, pretrained: str | None = None, device: str = "auto") -> Encoder:
    """The encoder that made a space, as space.json names it; `pretrained` says where its weights lie now.

    Raises DptrError, with the differing fields, if what is found there is another one.
    """
    made = space.fingerprint
    weights = pretrained or made.pretrained
    encoder = Encoder(
        made.model, weights, prompt=made.prompt, layout=made.layout, precision=made.compute, device=device
    )
    if encoder.fingerprint.digest != made.digest:
        differing = "; ".join(made.differences(encoder.fingerprint))
        raise DptrError(f"{space.name} was made by another encoder (the space's / this one's): {differing}.")
    return encoder


def _text_tower(model: Any, name: str) -> Any:
    """The module that holds the text transformer. WrongUse if it is not causal, pooled at its end token."""
    tower = model.text if hasattr(model, "text") else model
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    known = isinstance(tower, TextTransformer) or hasattr(tower, "token_embedding")
    if not known or tower.attn_mask is None or getattr(tower, "cls_emb", None) is not None or pool != "argmax":
        raise WrongUse(f"the text tower of {name} is not a causal transformer read at its end token: choose another.")
    return tower


def _reads_its_class_token(trunk: Any) -> bool:
    """Whether a timm tower pools by taking its first token, and that is all that comes before the projection."""
    return (
        isinstance(trunk, TimmVisionTransformer)
        and trunk.global_pool == "token"
        and trunk.num_prefix_tokens == 1
        and isinstance(trunk.fc_norm, nn.Identity)
        and isinstance(trunk.head, nn.Identity)
    )


def _projection(tower: Any) -> Tensor:
    weight = tower.text_projection
    if weight is None:
        return torch.eye(tower.ln_final.weight.shape[0])
    return (weight.weight.T if isinstance(weight, nn.Linear) else weight).detach().float().clone()


def _preprocess_config(fields: dict[str, Any]) -> PreprocessCfg:
    """open_clip's own, but a tower that is not square gets the whole picture: a centre crop cuts the ends off words."""
    config = PreprocessCfg(**fields)
    if isinstance(config.size, int):
        return config
    height, width = config.size
    return replace(config, size=(height, width), resize_mode=config.resize_mode if height == width else "squash")


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, as JSON gives them back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
