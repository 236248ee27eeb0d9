"""A run: a folder with one training run.

RUN/
    config.json       the resolved configuration: options as used, cache identity, decoder shape, software versions
    metrics.jsonl     one line a report: training loss and rate, or scores on held-out words
    best.pt last.pt   checkpoints: weights, step, scores, configuration
    tensorboard/      the same figures for TensorBoard
"""

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cache.errors import DptrError, WrongUse
from cache.files import cannot_write, make_folder, write_whole
from train.decoder import Decoder, DecoderConfig
from train.recogniser import Recogniser, RecogniserConfig


class Run:
    """A run folder being written."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """Make the folder. WrongUse if it already holds a run: a finished run is never written over."""
        if (folder / "config.json").exists():
            raise WrongUse(f"{folder} already holds a run: choose another --out, or delete it.")
        make_folder(folder)
        self.folder, self.config = folder, config
        write_whole(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, group: str, figures: dict[str, float]) -> None:
        """Append figures to metrics.jsonl and TensorBoard under `group` ("train" or "held_out")."""
        try:
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "group": group, **figures}) + "\n")
        except OSError as error:
            raise cannot_write(self.folder / "metrics.jsonl", error) from error
        for name, value in figures.items():
            self._board.add_scalar(f"{group}/{name}", value, step)

    def save(self, name: str, model: nn.Module, step: int, scores: dict[str, float]) -> None:
        """Write a checkpoint, whole or not at all."""
        memory = io.BytesIO()
        weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        torch.save({"model": weights, "step": step, "scores": scores, "config": self.config}, memory)
        write_whole(self.folder / name, memory.getbuffer())

    def close(self) -> None:
        self._board.close()


def load_checkpoint(folder: Path, checkpoint: str = "best.pt") -> dict[str, Any]:
    """What `Run.save` wrote: model, step, scores, config. WrongUse if there is none, DptrError if it is damaged."""
    path = folder / checkpoint
    if not (folder / "config.json").exists():
        raise WrongUse(f"there is no run in {folder}: make one with dptr pretrain --out {folder}.")
    if not path.exists():
        raise WrongUse(f"{folder} has no checkpoint {checkpoint}: the run ended before its first evaluation.")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return {name: saved[name] for name in ("model", "step", "scores", "config")}
    except Exception as error:  # zip, pickle and key errors all mean the same to a person
        raise _damaged(path, error) from error


def load_model(folder: Path, checkpoint: str = "best.pt") -> tuple[Decoder | Recogniser, dict[str, Any]]:
    """A run's model in evaluation mode, the decoder of a pre-trained one, and what was saved: step, scores, config.

    Raises WrongUse if there is no such run or checkpoint, DptrError if it is damaged.
    """
    saved = load_checkpoint(folder, checkpoint)
    return _model(folder / checkpoint, saved), saved


def load_run(folder: Path, checkpoint: str = "best.pt") -> tuple[Decoder, dict[str, Any], int]:
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
            model = Decoder(DecoderConfig(**config["decoder"]))
        model.load_state_dict(saved.pop("model"))  # strict: what is missing or unexpected is an error
    except Exception as error:
        raise _damaged(path, error) from error
    return model.eval()


def _is_finetuned(folder: Path) -> WrongUse:
    return WrongUse(f"{folder} is a fine-tuned run, and this wants one of dptr pretrain.")


def _damaged(path: Path, error: Exception) -> DptrError:
    return DptrError(f"{path} is damaged or of another version: {' '.join(str(error).split())}")
