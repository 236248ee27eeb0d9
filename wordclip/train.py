"""Trains the two towers for a number of minutes, on a CPU or a GPU; if stopped, it goes on where it was."""

import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cache.files import write_whole
from models.device import autocast, choose_device, choose_precision, differentiable_attention
from pipeline.encoder import Encoder
from wordclip.batches import Batch, Batches, augmented
from wordclip.crops import Crops
from wordclip.measure import find, picture_features, word_features
from wordclip.model import Heads, contrast, image_features, text_features

SAVE_EVERY = 5.0  # minutes


@dataclass(frozen=True)
class Recipe:
    """How to train. Shares of the time are shares of `minutes`."""

    minutes: float
    batch: int = 64  # small at first, for many steps; later larger, for more words to tell apart
    double: float = 0.4  # share of the time after which the batch is twice as large
    reading: float = 0.03  # share of the time in which the stem alone learns to read
    stem_lr: float = 3e-3  # during that time
    lr: float = 1e-3
    table_lr: float = 3e-3  # of the token embeddings: a row is used once in hundreds of steps
    weight_decay: float = 0.05
    warmup: float = 0.02  # share of the time
    ctc: float = 1.0
    spelling: float = 0.5
    early: float = 0.3  # share of the time over which the evenly spaced letters lose their weight
    seed: int = 0
    device: str = "auto"


class Training:
    """Model, heads, optimisers and their progress. `minutes` counts training only, over all restarts."""

    def __init__(self, encoder: Encoder, heads: Heads, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.device = choose_device(recipe.device)
        self.precision = choose_precision("auto", self.device)
        self.preprocess = encoder.preprocess_config
        self.prompt = encoder.prompt
        self.model: Any = encoder.model.float().requires_grad_(True).to(self.device, memory_format=torch.channels_last)
        self.heads = heads.to(self.device)
        self.model.token_embedding.sparse = True
        table = self.model.token_embedding.weight
        others = [p for p in [*self.model.parameters(), *heads.parameters()] if p is not table]
        decayed = [p for p in others if p.ndim > 1]
        plain = [p for p in others if p.ndim < 2]
        self.weights = others
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
                lr=recipe.lr,
                betas=(0.9, 0.98),
                fused=True,
            ),
            torch.optim.SparseAdam([table], lr=recipe.table_lr, betas=(0.9, 0.98)),
        ]
        self.step, self.minutes = 0, 0.0
        self.read, self.paired = 0, 0  # pictures seen by the stem alone; pictures seen together with their words

    def run(self, batches: Batches, watched: Crops, fillers: list[str], say: Callable[[str], None]) -> None:
        """Trains until the minutes are used up; saves and measures on `watched` every five of them and at the end."""
        saved, batches.batch = self.minutes, self._batch()
        torch.manual_seed(self.recipe.seed + self.step)
        start = time.monotonic() - 60 * self.minutes
        sums: dict[str, float] = {}
        for batch in batches.ahead(self.step):
            self.minutes = (time.monotonic() - start) / 60
            if self.minutes >= self.recipe.minutes:
                break
            for name, value in self._step(batch).items():
                sums[name] = sums.get(name, 0.0) + value / 50
            batches.batch = self._batch()
            if self.step % 50 == 0:
                self._log({**sums, "paired": self.paired, "minutes": self.minutes})
                sums = {}
            if self.minutes - saved >= SAVE_EVERY:
                pause = time.monotonic()
                self.save()
                saved = self.minutes
                say(self.watch(watched, fillers))
                start += time.monotonic() - pause  # saving and measuring are not training
        self.save()
        say(self.watch(watched, fillers))

    def _batch(self) -> int:
        return self.recipe.batch * (2 if self.minutes > self.recipe.double * self.recipe.minutes else 1)

    def _step(self, batch: Batch) -> dict[str, float]:
        r, done = self.recipe, min(1.0, self.minutes / self.recipe.minutes)
        self.model.train()
        pictures = augmented(batch.pictures.to(self.device), batch.real, self.preprocess.mean, self.preprocess.std)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with differentiable_attention(self.device), autocast(self.device, self.precision):
            if done < r.reading:
                losses = self._reading(pictures, batch)
                self.read += len(pictures)
            else:
                losses = self._losses(pictures, batch)
                self.paired += len(pictures)
        early = max(0.0, 1 - done / r.early)
        weights = {"ctc": r.ctc, "evenly": early, "spelling_image": r.spelling, "spelling_text": r.spelling}
        torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum().backward()
        self._set_lr(done)
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def _reading(self, pictures: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Losses of the stem alone, which learns the letters first: six times as fast as with the towers."""
        tokens, numbers = self.model.visual.trunk.patch_embed(pictures), self.heads.numbers(batch.words)
        return {"ctc": self.heads.ctc(tokens, numbers), "evenly": self.heads.evenly(tokens, numbers)}

    def _losses(self, pictures: Tensor, batch: Batch) -> dict[str, Tensor]:
        numbers = self.heads.numbers(batch.words)
        tokens, images = image_features(self.model, pictures)
        texts = text_features(self.model, [*batch.ids, *batch.other_ids])
        return {
            "contrast": contrast(images, texts[: len(images)], self.model.logit_scale.exp()),
            "ctc": self.heads.ctc(tokens, numbers),
            "evenly": self.heads.evenly(tokens, numbers),
            "spelling_image": self.heads.spelling(images, numbers),
            "spelling_text": self.heads.spelling(texts, numbers + self.heads.numbers(batch.others)),
        }

    def _set_lr(self, done: float) -> None:
        """The stem's own rate at first; then a short warm-up and a cosine decay to zero. By time, not by steps."""
        r = self.recipe
        rest = (done - r.reading) / (1 - r.reading)
        if done < r.reading:
            rates = (r.stem_lr * min(1.0, (self.step + 1) / 100), r.table_lr)
        else:
            scale = min(1.0, rest / r.warmup) * 0.5 * (1 + math.cos(math.pi * rest)) + 1e-3
            rates = (r.lr * scale, r.table_lr * scale)
        for optimiser, rate in zip(self.optimisers, rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate

    def watch(self, crops: Crops, fillers: list[str]) -> str:
        """Measures and logs on crops that are not trained on; returns a line about it for the user."""
        self.model.eval()
        images = picture_features(self.model, crops.pictures, self.preprocess)
        texts = word_features(self.model, [*crops.labels, *fillers], self.prompt)
        shares = find(images, crops.labels, fillers, texts).shares()
        self._log({"watched": shares, "paired": self.paired, "minutes": self.minutes})
        return (
            f"{self.minutes:.0f} min, {self.paired:,} pairs: right word of 1,000 for {100 * shares['word']:.1f} % "
            f"of {len(crops)} pictures, {100 * shares['any_case']:.1f} % ignoring case"
        )

    def _log(self, entry: dict[str, Any]) -> None:
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as metrics:
            metrics.write(json.dumps(entry) + "\n")

    def save(self) -> None:
        """Writes all that is needed to go on, in one file that is never half written."""
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimisers": [o.state_dict() for o in self.optimisers],
            "step": self.step,
            "minutes": self.minutes,
            "read": self.read,
            "paired": self.paired,
        }
        packed = io.BytesIO()
        torch.save(state, packed)
        write_whole(self.folder / "training.pt", packed.getbuffer())

    def load(self) -> bool:
        """Loads what `save` wrote, to go on from it; whether there was anything."""
        path = self.folder / "training.pt"
        if not path.is_file():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.step, self.minutes = state["step"], state["minutes"]
        self.read, self.paired = state["read"], state["paired"]
        return True
