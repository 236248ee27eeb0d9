"""A run: a folder with one training run.

RUN/
    config.json       the resolved configuration: options as used, cache identity, decoder shape, software versions
    metrics.jsonl     one line a report: training loss and rate, or scores on held-out words
    best.pt last.pt   checkpoints: decoder weights, step, scores, configuration
    tensorboard/      the same figures for TensorBoard
"""

import io
import json
from pathlib import Path
from typing import Any

import torch

from cache.errors import DptrError, WrongUse
from cache.files import cannot_write, make_folder, write_whole
from train.decoder import Decoder, DecoderConfig


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

    def save(self, name: str, decoder: Decoder, step: int, scores: dict[str, float]) -> None:
        """Write a checkpoint, whole or not at all."""
        memory = io.BytesIO()
        weights = {name: tensor.detach().cpu() for name, tensor in decoder.state_dict().items()}
        torch.save({"decoder": weights, "step": step, "scores": scores, "config": self.config}, memory)
        write_whole(self.folder / name, memory.getbuffer())

    def close(self) -> None:
        self._board.close()


def load_run(folder: Path, checkpoint: str = "best.pt") -> tuple[Decoder, dict[str, Any], int]:
    """The decoder of a finished run, its configuration, and the step it was saved at.

    Raises WrongUse if there is no such run or checkpoint, DptrError if it is damaged.
    """
    path = folder / checkpoint
    if not (folder / "config.json").exists():
        raise WrongUse(f"there is no run in {folder}: make one with dptr pretrain --out {folder}.")
    if not path.exists():
        raise WrongUse(f"{folder} has no checkpoint {checkpoint}: the run ended before its first evaluation.")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        decoder = Decoder(DecoderConfig(**saved["config"]["decoder"]))
        decoder.load_state_dict(saved["decoder"])
    except Exception as error:  # zip, pickle, key and shape errors all mean the same to a person
        raise DptrError(f"the checkpoint {path} is damaged or of another version: {error}") from error
    return decoder.eval(), saved["config"], saved["step"]
