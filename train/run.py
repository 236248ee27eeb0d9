"""A run: a folder with one training run, as it is read; recorder.py writes it.

RUN/
    config.json       the resolved configuration: options as used, cache identity, decoder shape, software versions
    metrics.jsonl     one line a report: training loss and rate, or scores on held-out words
    best.pt           weights that read held-out words best, with step, scores and configuration
    step-00000500.pt  the last checkpoints: the same and all that it takes to go on
    held-out.tsv      held-out words and what best.pt reads, the worst first
    curves.png        the figures of metrics.jsonl, drawn at the end
    tensorboard/      the same figures for TensorBoard
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cache.errors import DptrError, WrongUse
from models.decoders import TextDecoder, make
from models.recogniser import Recogniser, RecogniserConfig
from train.run_config import RunConfig

LAST = "last.pt"  # asks for the newest of the checkpoints to go on from


def steps_of(folder: Path) -> list[Path]:
    """The checkpoints to go on from, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def step_of(path: Path) -> int:
    """The step a checkpoint to go on from was written at."""
    return int(path.stem.removeprefix("step-"))


def load_checkpoint(folder: Path, checkpoint: str = "best.pt") -> dict[str, Any]:
    """What a run saved: model, step, scores, config. WrongUse if there is none, DptrError if it is damaged.

    LAST is the newest of those it goes on from.
    """
    if not (folder / "config.json").exists():
        raise WrongUse(f"there is no run in {folder}: make one with dptr pretrain --out {folder}.")
    path = next(reversed(steps_of(folder)), folder / LAST) if checkpoint == LAST else folder / checkpoint
    if not path.exists():
        raise WrongUse(f"{folder} has no checkpoint {checkpoint}: the run ended before its first evaluation.")
    return load_file(path)


def load_file(path: Path) -> dict[str, Any]:
    """The same of a file that exists, with "training" if it can be gone on from."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"model", "step", "scores", "config"} - set(saved)
        if missing:
            raise KeyError(f"it has no {', '.join(missing)}")
        return dict(saved)
    except Exception as error:  # zip, pickle and key errors all mean the same to a person
        raise _damaged(path, error) from error


@dataclass(frozen=True)
class Saved:
    """A checkpoint of a run: its model in evaluation mode on the CPU (of a pre-trained run, the decoder alone)."""

    run: Path
    model: TextDecoder | Recogniser
    config: RunConfig
    step: int
    scores: dict[str, float]

    @property
    def decoder(self) -> TextDecoder:
        """What writes the text."""
        return self.model.decoder if isinstance(self.model, Recogniser) else self.model

    @property
    def kind(self) -> str:
        """What the model is, for a person."""
        return "recogniser" if isinstance(self.model, Recogniser) else "pre-trained decoder"


def load_model(folder: Path, checkpoint: str = "best.pt") -> Saved:
    """A run's checkpoint. WrongUse if there is no such run or checkpoint, DptrError if it is damaged."""
    saved = load_checkpoint(folder, checkpoint)
    try:
        config = RunConfig.of(saved["config"])
        shape = config.model
        model = Recogniser(shape) if isinstance(shape, RecogniserConfig) else make(shape)
        model.load_state_dict(saved["model"])  # strict: what is missing or unexpected is an error
    except Exception as error:
        raise _damaged(folder / checkpoint, error) from error
    return Saved(folder, model.eval(), config, saved["step"], saved["scores"])


def load_run(folder: Path, checkpoint: str = "best.pt") -> tuple[TextDecoder, RunConfig, int]:
    """The decoder of a pre-trained run, its configuration, and the step it was saved at.

    Raises as `load_model`, and WrongUse if the run was fine-tuned.
    """
    saved = load_model(folder, checkpoint)
    if isinstance(saved.model, Recogniser):
        raise WrongUse(f"{folder} is a fine-tuned run, and this wants one of dptr pretrain.")
    return saved.model, saved.config, saved.step


def load_recogniser(folder: Path, checkpoint: str = "best.pt") -> tuple[Recogniser, RunConfig, int]:
    """The recogniser of a fine-tuned run, its configuration, and the step it was saved at.

    Raises as `load_model`, and WrongUse if the run was not fine-tuned.
    """
    saved = load_model(folder, checkpoint)
    if not isinstance(saved.model, Recogniser):
        raise WrongUse(f"{folder} is a pre-trained run, which reads text memories only: fine-tune it first.")
    return saved.model, saved.config, saved.step


def pretrained_config(folder: Path) -> RunConfig:
    """The configuration of a pre-trained run. WrongUse if there is no run, or it was fine-tuned."""
    config = run_config(folder)
    if config.reads_pictures:
        raise WrongUse(f"{folder} is a fine-tuned run, and this wants one of dptr pretrain.")
    return config


def run_config(folder: Path) -> RunConfig:
    """The configuration of a run. WrongUse if there is no run, DptrError if it is damaged."""
    try:
        return RunConfig.of(json.loads((folder / "config.json").read_text()))
    except OSError as error:
        raise WrongUse(f"there is no run in {folder}: make one with dptr pretrain --out {folder}.") from error
    except Exception as error:  # not JSON, or other keys
        raise _damaged(folder / "config.json", error) from error


def _damaged(path: Path, error: Exception) -> DptrError:
    return DptrError(f"{path} is damaged or of another version: {' '.join(str(error).split())}")
