"""A frozen CLIP as this project uses it: token states of prompts, and all image tokens, not just the pooled one.

Shape letters: B batch, D text width, P tokens that all prompts share, T image tokens, E embedding width.
"""

import copy
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn
from torchvision.transforms import Compose, PILToTensor

from cache.errors import DptrError, WrongUse
from cache.fingerprint import Fingerprint
from cache.space import Space
from models.device import choose_devices, choose_precision
from pipeline.prompt import PROMPT, Prompt
from pipeline.tokenizer import Characters, tokenizer_of
from pipeline.towers.causal_text import CausalTower, Done, is_causal
from pipeline.towers.grids import said_of_tokens
from pipeline.towers.image import Visual, visual_tower
from pipeline.towers.plain_text import PlainTower
from pipeline.towers.replicas import Replicas
from pipeline.unfinished import Unfinished
from pipeline.weights import build_model, model_config, untrained_seed, weights_digest
from sources.pictures import decode

LAYOUTS = ("compact", "shared", "full")
L = TypeVar("L")


class Encoder:
    """An open_clip model, its prompt and its layout. Its `fingerprint` covers all that decides what it computes.

    `model` is open_clip's own, in fp32 on the CPU; copies of it on each of `devices` do the computing.
    """

    def __init__(
        self,
        model: str,
        pretrained: str,
        *,
        prompt: str = PROMPT,
        layout: str | None = None,
        precision: str = "auto",
        device: str = "auto",
    ) -> None:
        """Without `layout`, it is the one that the model was made for: shared if its rows are aligned, else compact.

        Raises WrongUse for a model, weights or layout that cannot be used, DptrError if a download fails.
        """
        if layout not in (None, *LAYOUTS):
            raise WrongUse(f"there is no layout '{layout}': choose {', '.join(LAYOUTS)}.")
        self.devices = choose_devices(device)
        self.device = self.devices[0]
        self.precision = choose_precision(precision, self.device)
        self.dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.model = build_model(model, pretrained)
        self.tower = text_module(self.model, model)
        self.causal = is_causal(self.tower)
        tokens = tokenizer_of(model)
        self.context = tokens.context
        self.layout = layout = layout or ("shared" if isinstance(tokens, Characters) else "compact")
        self.prompt = Prompt(prompt, tokens, shares=self.causal)
        self.preprocess_config = _preprocess_config(self.model.visual.preprocess_cfg)
        *steps, _, _ = image_transform_v2(self.preprocess_config, is_train=False).transforms  # no ToTensor, Normalize
        self.preprocess = Compose([*steps, PILToTensor()])  # a PIL picture to pixels (3, H, W) uint8
        config = model_config(model)
        self.fingerprint = Fingerprint(
            model=model,
            pretrained=pretrained,
            config=config,
            weights=weights_digest(self.model),
            untrained_seed=untrained_seed(pretrained),
            quick_gelu=bool(config.get("quick_gelu", False)),
            tokenizer=tokens.name,
            prompt=prompt,
            layout=layout,
            preprocess=_plain({**asdict(self.preprocess_config), "jpeg": "at the least scale that is large enough"})
            | said_of_tokens(self.model.visual),
            compute=self.precision,
        )
        self.states_width = text_width(self.tower)  # D
        self.text_projection = projection(self.tower, self.states_width)  # (D, E) fp32
        self.width = self.text_projection.shape[1] if layout == "shared" else self.states_width  # of stored rows
        if layout == "shared" and not self.width:
            raise WrongUse(f"{model} has no text projection, so its rows cannot be shared: use --layout compact.")
        if layout == "full" and (not self.causal or self.text_projection.shape[1] != self.width):
            raise WrongUse(
                f"the full layout needs a causal text tower with states and projections of one width, and {model} has "
                f"states of width {self.width} and projections of {self.text_projection.shape[1]}"
                f"{'' if self.causal else ', and looks ahead'}: use --layout compact."
            )

    def at(self, precision: str) -> "Encoder":
        """The same encoder computing in fp32 or bf16; its fingerprint is another one."""
        twin = copy.copy(self)
        for name in ("text", "visual"):  # made when first used, for one precision
            vars(twin).pop(name, None)
        twin.precision, twin.dtype = precision, torch.bfloat16 if precision == "bf16" else torch.float32
        twin.fingerprint = replace(self.fingerprint, compute=precision)
        return twin

    @cached_property
    def text(self) -> CausalTower | PlainTower:
        """The text tower on the devices."""
        if self.causal:
            return CausalTower(self.tower, self.prompt.prefix, self.devices, self.dtype)
        return PlainTower(self.tower, self.prompt.tokens, self.states_width, self.devices, self.dtype)

    @cached_property
    def visual(self) -> Replicas[Visual]:
        """The image tower on the devices. WrongUse if it cannot give its tokens."""
        tower = visual_tower(self.model.visual, self.fingerprint.model)
        return Replicas(self.devices, lambda device: Visual(tower, self.preprocess_config, device, self.dtype))

    def rows(self, ids: Sequence[int]) -> int:
        """Number of rows in the memory of a prompt, in this layout."""
        return self.context + 1 if self.layout == "full" else len(ids) - len(self.prompt.prefix)

    def text_states(
        self, ids: Sequence[Sequence[int]], done: Done = lambda prompts: None, unfinished: Unfinished | None = None
    ) -> NDArray[np.float16]:
        """The rows of all memories, end to end in the order of `ids` (token ids of prompts): (Σ rows, width) float16.

        Compact: the states after the common prefix, up to and including the end token. Shared: the same rows projected
        to where the image tower's tokens are. Full: the projected end-token row, then the states of every position.

        How prompts are batched depends on `ids` alone; `done` is called with the number of prompts just finished.
        `unfinished` keeps the results of batches, and has those of a run that was stopped.
        """
        if self.layout != "full":
            states = self.text.states(ids, done, unfinished)
            return self._projected(states) if self.layout == "shared" else states
        padded = [[*i, *([0] * (self.context - len(i)))] for i in ids]
        states = self.text.states(padded, done, unfinished).reshape(len(ids), -1, self.width)
        shared = np.broadcast_to(self.text.shared_states(), (len(ids), len(self.prompt.prefix), self.width))
        states = np.concatenate([shared, states], 1)
        projected = self._projected(states[np.arange(len(ids)), [len(i) - 1 for i in ids]])
        return np.concatenate([projected[:, None], states], 1).reshape(-1, self.width)

    def _projected(self, states: NDArray[np.float16]) -> NDArray[np.float16]:
        return (torch.from_numpy(states).float() @ self.text_projection).half().numpy()

    def prefix_states(self) -> NDArray[np.float16]:
        """States (P, D) of the positions that all prompts share; (0, D) in the layouts that do without them."""
        return self.text.shared_states() if self.layout == "compact" else np.empty((0, self.width), np.float16)

    def pixels(self, data: bytes) -> Tensor:
        """Pixels (3, H, W) uint8 of an encoded picture. Raises ValueError as `decode` does."""
        _, height, width = self.preprocess_config.input_size
        return torch.as_tensor(self.preprocess(decode(data, (width, height))))

    def image_shape(self) -> tuple[int, int]:
        """(T, E) of one picture. Raises as `image_tokens` does."""
        _, height, width = self.preprocess_config.input_size
        _, T, E = self.image_tokens(torch.zeros(1, 3, height, width, dtype=torch.uint8)).shape
        return T, E

    def image_tokens(self, pictures: Tensor) -> NDArray[np.float16]:
        """All tokens of pictures after the final norm and the projection, class token first: (B, T, E).

        In a tower without one the pooled feature takes its place, see `pipeline.towers.grids`.
        Pictures are pixels (B, 3, H, W) uint8, or floats already normalised. Raises WrongUse if the image tower cannot
        give its tokens.
        """
        ((_, tokens),) = self.encoded([(None, pictures)])
        return tokens

    def encoded(self, batches: Iterable[tuple[L, Tensor]]) -> Generator[tuple[L, NDArray[np.float16]], None, None]:
        """(label, `image_tokens`) of each (label, pictures), in order, while the caller prepares the next."""
        for label, tokens in self.visual.map((label, (pictures,)) for label, pictures in batches):
            yield label, tokens.numpy()


def space_encoder(space: Space, pretrained: str | None = None, device: str = "auto") -> Encoder:
    """The encoder that made a space, from space.json; `pretrained` says where to find its weights now.

    Raises DptrError naming the fields that differ if it is no longer the same encoder.
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


def _preprocess_config(fields: dict[str, Any]) -> PreprocessCfg:
    """open_clip's own, but a tower that is not square sees the whole picture: a crop would cut the ends off words."""
    config = PreprocessCfg(**fields)
    if isinstance(config.size, int):
        return config
    height, width = config.size
    return replace(config, size=(height, width), resize_mode=config.resize_mode if height == width else "squash")


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, which is what JSON gives back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def text_module(model: Any, name: str) -> Any:
    """The module of an open_clip model that holds its text transformer. WrongUse if there is none."""
    tower = model.text if hasattr(model, "text") else model
    if not hasattr(tower, "transformer"):
        raise WrongUse(f"{name} has no text transformer: choose another --model.")
    return tower


def text_width(tower: Any) -> int:
    """D of a text module."""
    return int(tower.config.hidden_size if hasattr(tower, "config") else tower.ln_final.weight.shape[0])


def projection(tower: Any, width: int) -> Tensor:
    """The matrix (D, E) fp32 from the end token's state to the text feature; (D, 0) if the model has none."""
    if not hasattr(tower, "text_projection"):
        return torch.empty(width, 0)
    weight = tower.text_projection
    if weight is None:
        return torch.eye(width)
    return (weight.weight.T if isinstance(weight, nn.Linear) else weight).detach().float().clone()
