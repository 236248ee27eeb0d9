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
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cache.errors import DptrError, WrongUse
from models.decoders import DecoderConfig, TextDecoder, make
from models.recogniser import Recogniser, RecogniserConfig

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


def load_model(folder: Path, checkpoint: str = "best.pt") -> tuple[TextDecoder | Recogniser, dict[str, Any]]:
    """A run's model in evaluation mode, the decoder of a pre-trained one, and what was saved: step, scores, config.

    Raises WrongUse if there is no such run or checkpoint, DptrError if it is damaged.
    """
    saved = load_checkpoint(folder, checkpoint)
    return _model(folder / checkpoint, saved), saved


def load_run(folder: Path, checkpoint: str = "best.pt") -> tuple[TextDecoder, dict[str, Any], int]:
    """The decoder of a pre-trained run, its configuration, and the step it was saved at.

    Raises WrongUse if there is no such run or checkpoint or it was fine-tuned, DptrError if it is damaged.
    """
    saved = load_checkpoint(folder, checkpoint)
    if "recogniser" in saved["config"]:
        raise _is_finetuned(folder)
    return _model(folder / checkpoint, saved), saved["config"], saved["step"]


def load_recogniser(folder: Path, checkpoint: str = "best.pt") -> tuple[Recogniser, dict[str, Any], int]:
    """The recogniser of a fine-tuned run, its configuration, and the step it was saved at. Raises as `load_run`."""
    saved = load_checkpoint(folder, checkpoint)
    if "recogniser" not in saved["config"]:
        raise WrongUse(f"{folder} is a pre-trained run, which reads text memories only: fine-tune it first.")
    return _model(folder / checkpoint, saved), saved["config"], saved["step"]


def is_finetuned(folder: Path) -> bool:
    """Whether a run reads pictures. WrongUse if there is no run."""
    return "recogniser" in run_config(folder)


def pretrained_config(folder: Path) -> dict[str, Any]:
    """The configuration of a pre-trained run. WrongUse if there is no run, or it was fine-tuned."""
    config = run_config(folder)
    if "recogniser" in config:
        raise _is_finetuned(folder)
    return config


def run_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run. WrongUse if there is no run, DptrError if it is damaged."""
    try:
        return dict(json.loads((folder / "config.json").read_text()))
    except OSError as error:
        raise WrongUse(f"there is no run in {folder}: make one with dptr pretrain --out {folder}.") from error
    except ValueError as error:
        raise _damaged(folder / "config.json", error) from error


def _model(path: Path, saved: dict[str, Any]) -> Any:
    """The model of a checkpoint, whose weights are taken out of `saved`."""
    config = saved["config"]
    try:
        if "recogniser" in config:
            model: nn.Module = Recogniser(RecogniserConfig.of(config["recogniser"]))
        else:
            model = make(DecoderConfig.of(config["decoder"]))
        model.load_state_dict(saved.pop("model"))  # strict: what is missing or unexpected is an error
    except Exception as error:
        raise _damaged(path, error) from error
    return model.eval()


def _is_finetuned(folder: Path) -> WrongUse:
    return WrongUse(f"{folder} is a fine-tuned run, and this wants one of dptr pretrain.")


def _damaged(path: Path, error: Exception) -> DptrError:
    return DptrError(f"{path} is damaged or of another version: {' '.join(str(error).split())}")
