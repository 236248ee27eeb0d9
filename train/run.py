"""Reads a run: a folder that holds one training run; recorder.py writes it.

RUN/
    config.json       the resolved configuration: options as used, cache identity, decoder shape, software versions
    metrics.jsonl     one line per report: training loss and speed, or scores on held-out words
    best.pt           the weights that read held-out words best, with step, scores and configuration
    step-00000500.pt  the latest checkpoints: the same, and all that is needed to resume
    held-out.tsv      held-out words and what best.pt reads, worst first
    curves.png        metrics.jsonl plotted, drawn at the end
    tensorboard/      the same metrics for TensorBoard
    perturbation.safetensors  statistics that reading needs, if the perturbation says so

What `dptr export` writes is read like a run, and so are the readers of train/shipped, by their names.
"""

import json
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file as load_tensors
from torch import Tensor, nn

from cache.errors import DptrError, WrongUse, not_loaded
from models.decoders import TextDecoder, make
from models.image_encoder import ImageEncoder
from models.recogniser import Recogniser, RecogniserConfig
from train.exported import DESCRIPTION, exported_checkpoint, exported_config, is_exported
from train.perturb import Perturbation, perturbation
from train.run_config import RunConfig
from train.shipped import folder_of

LAST = "last.pt"  # stands for the newest checkpoint to resume from
PERTURBATION = "perturbation.safetensors"


def steps_of(folder: Path) -> list[Path]:
    """The checkpoints to resume from, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def step_of(path: Path) -> int:
    """The step at which a checkpoint to resume from was written."""
    return int(path.stem.removeprefix("step-"))


def load_checkpoint(folder: Path, checkpoint: str = "best.pt") -> dict[str, Any]:
    """Load a run's checkpoint: model, step, scores, config. LAST is the newest one to resume from.

    An exported folder has a single one. Raises WrongUse if there is none, DptrError if it is damaged or holds more than
    weights.
    """
    folder = folder_of(folder)
    if is_exported(folder):
        try:
            return exported_checkpoint(folder)
        except Exception as error:  # not JSON, unexpected keys, or a file of weights that is cut off
            raise _damaged(folder, error) from error
    path = next(reversed(steps_of(folder)), folder / LAST) if checkpoint == LAST else folder / checkpoint
    if not path.exists():
        raise WrongUse(f"{folder} has no checkpoint {checkpoint}: the run ended before its first evaluation.")
    return load_file(path)


def load_file(path: Path) -> dict[str, Any]:
    """The same from a file that exists; it has "training" as well if it can be resumed from."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles that are refused anyway
            saved = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"model", "step", "scores", "config"} - set(saved)
        if missing:
            raise ValueError(f"it has no {', '.join(missing)}")
        return dict(saved)
    except pickle.UnpicklingError as error:
        raise not_loaded(path, error) from error
    except Exception as error:  # zip, pickle and key errors all mean the same to the user
        raise _damaged(path, error) from error


@dataclass(frozen=True)
class Saved:
    """A run's checkpoint, with its model in evaluation mode on the CPU (for a pre-trained run, the decoder alone)."""

    run: Path
    model: TextDecoder | Recogniser
    config: RunConfig
    step: int
    scores: dict[str, float]

    @property
    def decoder(self) -> TextDecoder:
        """The decoder: the model itself, or the recogniser's."""
        return self.model.decoder if isinstance(self.model, Recogniser) else self.model

    @property
    def kind(self) -> str:
        """What the model is, in words."""
        return "recogniser" if isinstance(self.model, Recogniser) else "pre-trained decoder"


def load_model(folder: Path, checkpoint: str = "best.pt") -> Saved:
    """Load a run's model. Raises WrongUse if there is no such run or checkpoint, DptrError if it is damaged."""
    saved = load_checkpoint(folder, checkpoint)
    try:
        config = RunConfig.of(saved["config"])
        shape = config.model
        model = Recogniser(shape) if isinstance(shape, RecogniserConfig) else make(shape)
        model.load_state_dict(saved["model"])  # strict: missing or unexpected weights are an error
    except Exception as error:
        path = folder / checkpoint
        raise _damaged(path if path.exists() else folder, error) from error
    return Saved(folder, model.eval(), config, saved["step"], saved["scores"])


def load_run(folder: Path, checkpoint: str = "best.pt") -> tuple[TextDecoder, RunConfig, int]:
    """The decoder of a pre-trained run, its configuration, and the step it was saved at.

    Raises as `load_model`, and WrongUse if the run was fine-tuned.
    """
    saved = load_model(folder, checkpoint)
    if isinstance(saved.model, Recogniser):
        raise _fine_tuned(folder)
    return saved.model, saved.config, saved.step


def load_recogniser(folder: Path, checkpoint: str = "best.pt") -> tuple[Recogniser, RunConfig, int]:
    """The recogniser of a fine-tuned run, its configuration, and the step it was saved at.

    Raises as `load_model`, and WrongUse if the run was not fine-tuned.
    """
    saved = load_model(folder, checkpoint)
    if not isinstance(saved.model, Recogniser):
        raise WrongUse(f"{folder} is a pre-trained run, which reads memories: fine-tune it first, or use --zero-label.")
    return saved.model, saved.config, saved.step


def zero_label_recogniser(folder: Path, tower: ImageEncoder) -> tuple[Recogniser, RunConfig, int]:
    """A pre-trained decoder behind its space's image tower, with nothing between them: it has never seen a picture.

    Raises as `load_run`, and WrongUse if the tower's tokens are not as wide as the memories that the decoder reads.
    """
    decoder, config, step = load_run(folder)
    width, wanted = tower.config.tokens_width, decoder.config.memory_width
    if width != wanted:
        raise WrongUse(
            f"the image tower gives {width} values per token and the decoder of {folder} reads {wanted}: "
            "embed the words with --layout shared and pre-train on that."
        )
    recogniser = Recogniser(RecogniserConfig(tower.config, decoder.config, 0))
    recogniser.encoder.load_state_dict(tower.state_dict())
    recogniser.decoder.load_state_dict(decoder.state_dict())
    recogniser.adapt = Inference(kept_perturbation(folder, config))
    return recogniser.eval(), config, step


class Inference(nn.Module):
    """What a perturbation does to an image tower's tokens (B, T, D) before a decoder reads them."""

    def __init__(self, perturbation: Perturbation) -> None:
        super().__init__()
        self.perturbation = perturbation

    def forward(self, tokens: Tensor) -> Tensor:
        return self.perturbation.inference(tokens)


def kept_perturbation(folder: Path, config: RunConfig) -> Perturbation:
    """The perturbation of a pre-trained run, with what it needs to read. DptrError if that is missing or damaged."""
    options, path = config.pretraining, folder_of(folder) / PERTURBATION
    found = perturbation(options.perturb, options.bank)
    try:
        found.restore(load_tensors(path) if path.exists() else {})
    except Exception as error:
        raise DptrError(f"{path} is missing or damaged: restore it, or pre-train again.") from error
    return found


def pretrained_config(folder: Path) -> RunConfig:
    """The configuration of a pre-trained run. Raises WrongUse if there is no run, or if it was fine-tuned."""
    config = run_config(folder)
    if config.reads_pictures:
        raise _fine_tuned(folder)
    return config


def run_config(folder: Path) -> RunConfig:
    """The configuration of a run. Raises WrongUse if there is no run, DptrError if it is damaged."""
    folder = folder_of(folder)
    path = folder / (DESCRIPTION if is_exported(folder) else "config.json")
    try:
        return exported_config(folder) if is_exported(folder) else RunConfig.of(json.loads(path.read_text()))
    except Exception as error:  # not JSON, or unexpected keys
        raise _damaged(path, error) from error


def _fine_tuned(folder: Path) -> WrongUse:
    return WrongUse(f"{folder} is a fine-tuned run: name a run made by dptr pretrain instead.")


def _damaged(path: Path, error: Exception) -> DptrError:
    return DptrError(f"{path} is damaged or from another version: {' '.join(str(error).split()) or 'it is cut off'}.")
