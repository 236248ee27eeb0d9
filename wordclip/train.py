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
from pipeline.prompt import Prompt
from pipeline.tokenizer import Characters
from wordclip.crops import Crops
from wordclip.measure import find, picture_features, read_rows, word_features, word_rows
from wordclip.model import Heads, alignment, contrast, look, pointing, prefixes, read, row_contrast
from wordclip.pool import Batch, Pool, augmented, batch_of
from wordclip.write import write_weights

MODEL = "wordclip2"  # open_clip's name of what is trained


@dataclass(frozen=True)
class Recipe:
    """How to train. Shares of the time are shares of `minutes`."""

    minutes: float
    batch: int = 64  # small at first, for many steps; later larger, for more words to tell apart
    double: float = 0.4  # share of the time after which the batch is twice as large
    real: float = 0.16  # share of real crops in a batch
    reading: float = 0.03  # share of the time in which the stem alone learns to read
    stem_lr: float = 3e-3  # during that time
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.02  # share of the time
    early: float = 0.4  # share of the time over which `evenly` and `pointing` lose their weight
    seed: int = 0
    device: str = "auto"


WEIGHTS = {
    "contrast": 0.5,
    "row_contrast": 0.5,
    "alignment": 1.0,
    "ctc": 1.0,
    "spelling_image": 1.0,
    "spelling_text": 0.5,
}  # of the losses; those of `evenly` and `pointing` fall from 1 to 0 and 0.1


class Training:
    """Model, heads, optimiser and their progress. `minutes` counts training only, over all restarts."""

    def __init__(self, encoder: Encoder, tokens: Characters, recipe: Recipe, folder: Path) -> None:
        """`tokens` is the encoder's tokenizer."""
        self.recipe, self.folder = recipe, folder
        self.device = choose_device(recipe.device)
        self.precision = choose_precision("auto", self.device)
        self.preprocess = encoder.preprocess_config
        self.prompt, self.tokens = encoder.prompt, tokens
        self.frame = frame(encoder.prompt)
        self.model: Any = encoder.model.float().requires_grad_(True).to(self.device, memory_format=torch.channels_last)
        self.heads = Heads(tokens.size, self.model).to(self.device)
        self.weights = [*self.model.parameters(), *self.heads.parameters()]
        groups = [
            {"params": [p for p in self.weights if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in self.weights if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), fused=True)
        self.step, self.minutes = 0, 0.0
        self.read, self.paired = 0, 0  # pictures seen by the stem alone; pictures seen together with their words

    def run(
        self,
        drawn: Pool,
        real: Pool,
        watched: Crops,
        fillers: list[str],
        say: Callable[[str], None],
        save_every: float,
    ) -> None:
        """Trains until the minutes are used up; saves and measures on `watched` every `save_every` of them."""
        saved = self.minutes
        torch.manual_seed(self.recipe.seed + self.step)
        start = time.monotonic() - 60 * self.minutes
        sums: dict[str, Tensor] = {}
        while self.minutes < self.recipe.minutes:
            batch = batch_of(drawn, real, self._batch(), self.recipe.real)
            for name, value in self._step(batch).items():
                sums[name] = sums.get(name, 0.0) + value.detach() / 50
            if self.step % 50 == 0:
                told = {name: float(value) for name, value in sums.items()}
                self._log({**told, "drawn": drawn.filled, "paired": self.paired, "minutes": self.minutes})
                sums = {}
            self.minutes = (time.monotonic() - start) / 60
            if self.minutes - saved >= save_every:
                pause = time.monotonic()
                self.save()
                saved = self.minutes
                say(self.watch(watched, fillers))
                start += time.monotonic() - pause  # saving and measuring are not training
        self.save()
        say(self.watch(watched, fillers))

    def _batch(self) -> int:
        return self.recipe.batch * (2 if self.minutes > self.recipe.double * self.recipe.minutes else 1)

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        r, done = self.recipe, min(1.0, self.minutes / self.recipe.minutes)
        self.model.train()
        pictures = augmented(batch.pictures, batch.real, self.preprocess.mean, self.preprocess.std)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with differentiable_attention(self.device), autocast(self.device, self.precision):
            if done < r.reading:
                losses = self._reading(pictures, batch)
                self.read += len(pictures)
            else:
                losses = self._losses(pictures, batch)
                self.paired += len(pictures)
        early = max(0.0, 1 - done / r.early)
        weights = {**WEIGHTS, "evenly": early, "pointing": max(0.1, early)}
        torch.stack([weights[name] * loss for name, loss in losses.items()]).sum().backward()
        self._set_lr(done)
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, math.log(100))
        self.step += 1
        return losses

    def _reading(self, pictures: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Losses of the stem alone, which learns the letters first: several times as fast as with the towers."""
        tokens = self.model.visual.trunk.patch_embed(pictures)
        return {"ctc": self.heads.ctc(tokens, batch), "evenly": self.heads.evenly(tokens, batch)}

    def _losses(self, pictures: Tensor, batch: Batch) -> dict[str, Tensor]:
        seen = look(self.model, pictures, looks=True)
        rows = read(self.model, *self.frame, batch.letters, batch.lengths)
        words, whole = prefixes(batch.letters, batch.lengths)[:, -1], rows[:, -1]
        return {
            "contrast": contrast(seen.pooled, whole, words, self.model.logit_scale.exp()),
            "row_contrast": row_contrast(seen.rows, rows, batch),
            "alignment": alignment(seen, rows, batch.lengths),
            "ctc": self.heads.ctc(seen.tokens, batch),
            "evenly": self.heads.evenly(seen.tokens, batch),
            "pointing": pointing(seen.looks, batch),
            "spelling_image": self.heads.spelling(seen.rows, batch),
            "spelling_text": self.heads.spelling(rows, batch),
        }

    def _set_lr(self, done: float) -> None:
        """The stem's own rate at first; then a short warm-up and a cosine decay to zero. By time, not by steps."""
        r = self.recipe
        rest = (done - r.reading) / (1 - r.reading)
        if done < r.reading:
            rate = r.stem_lr * min(1.0, (self.step + 1) / 100)
        else:
            rate = r.lr * (min(1.0, rest / r.warmup) * 0.5 * (1 + math.cos(math.pi * rest)) + 1e-3)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def watch(self, crops: Crops, fillers: list[str]) -> str:
        """Measures and logs on crops that are not trained on; returns a line about it for the user."""
        self.model.eval()
        pooled, rows = picture_features(self.model, crops.pictures, self.preprocess)
        texts = word_features(self.model, [*crops.labels, *fillers], self.prompt)
        shares = find(pooled, crops.labels, fillers, texts).shares()
        heard = read_rows(self.heads, rows, self.tokens)
        right = [a.casefold() == b.casefold() for a, b in zip(heard, crops.labels, strict=True)]
        shares["read"] = sum(right) / len(right)
        shares["rows"] = word_rows(self.model, self.prompt, rows, crops.labels)
        self._log({"watched": shares, "paired": self.paired, "minutes": self.minutes})
        return (
            f"{self.minutes:.1f} min, {self.paired:,} pairs: right word of 1,000 for {100 * shares['word']:.1f} % "
            f"of {len(crops)} pictures; {100 * shares['read']:.1f} % read by the head, case ignored; "
            f"cosine of paired rows {shares['rows']:.3f}"
        )

    def _log(self, entry: dict[str, Any]) -> None:
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as metrics:
            metrics.write(json.dumps(entry) + "\n")

    def save(self) -> None:
        """Writes all that is needed to go on, in one file that is never half written."""
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "minutes": self.minutes,
            "read": self.read,
            "paired": self.paired,
        }
        packed = io.BytesIO()
        torch.save(state, packed)
        write_whole(self.folder / "training.pt", packed.getbuffer())
        self.write()

    def write(self) -> str:
        """Writes the encoder's weights and the heads' as they are now; returns the sha256 of the first file."""
        write_weights(self.heads, self.folder / "heads.safetensors")
        return write_weights(self.model, self.folder / f"{MODEL}.safetensors")

    def load(self) -> bool:
        """Loads what `save` wrote, to go on from it; whether there was anything."""
        path = self.folder / "training.pt"
        if not path.is_file():
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.minutes = state["step"], state["minutes"]
        self.read, self.paired = state["read"], state["paired"]
        return True


def frame(prompt: Prompt) -> tuple[list[int], list[int]]:
    """The token ids before and after a word in every prompt."""
    ids = prompt.ids("x")
    return prompt.prefix, ids[len(prompt.prefix) + 1 :]
