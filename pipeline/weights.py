"""Builds an open_clip model with the weights asked for, or says in one sentence why it cannot.

What open_clip only warns about is an error here: GELU where the weights were trained with QuickGELU gives features
that are slightly wrong everywhere.
"""

import hashlib
import logging
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import open_clip
import torch

from cache.errors import DptrError, WrongUse, not_loaded
from pipeline.shipped import word_vit as word_vit

UNTRAINED = "untrained:"
SHIPPED = "shipped"
_MODELS = Path(str(files("pipeline.shipped")))  # configurations and weights that come with dptr


def untrained_seed(pretrained: str) -> int | None:
    """The seed in `untrained:SEED`, or None if `pretrained` names trained weights."""
    if not pretrained.startswith(UNTRAINED):
        return None
    seed = pretrained.removeprefix(UNTRAINED)
    if not seed.isdecimal():
        raise WrongUse(f"'{pretrained}' asks for untrained weights without a seed: write untrained:0.")
    return int(seed)


def model_config(model: str) -> dict[str, Any]:
    """open_clip's configuration of a model, or that of a shipped one. WrongUse if there is no such model."""
    _make_known(_MODELS)
    try:
        config = open_clip.get_model_config(model)
    except Exception as error:  # a hub that cannot be reached, a folder without its file
        raise WrongUse(f"the model '{model}' cannot be found: {_line(error)}") from error
    if config is None:
        near = [m for m in open_clip.list_models() if m.lower().startswith(model.lower()[:6])]
        raise WrongUse(f"open_clip has no model '{model}'" + (f": perhaps {', '.join(near[:6])}." if near else "."))
    return dict(config)


def build_model(model: str, pretrained: str) -> Any:
    """The model in fp32 on the CPU, frozen and in evaluation mode.

    Raises WrongUse for names and files that do not exist or do not fit, DptrError when a download fails.
    """
    config = model_config(model)
    seed = untrained_seed(pretrained)
    pretrained = _shipped(model) if pretrained == SHIPPED else pretrained
    tag = open_clip.get_pretrained_cfg(model, pretrained)
    if seed is None and not tag and not Path(pretrained).is_file() and ":" not in model:
        raise WrongUse(
            f"'{pretrained}' is neither a file nor a tag of {model} (tags: {_tags(model)}); "
            "for weights that were never trained write untrained:0."
        )
    _check_quick_gelu(model, pretrained, tag, bool(config.get("quick_gelu", False)))
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed or 0)
        try:
            # only the weights asked for: a text tower must not fetch its own from the hub
            built = open_clip.create_model(
                model, pretrained=None if seed is not None else pretrained, pretrained_hf=False
            )
        except UnpicklingError as error:
            raise not_loaded(pretrained, error) from error
        except Exception as error:
            if "pip install transformers" in str(error):
                raise WrongUse(f"{model} needs the package transformers: pip install 'dptr[multilingual]'.") from error
            if tag:
                raise DptrError(
                    f"the weights '{pretrained}' of {model} could not be fetched or loaded: {_line(error)} "
                    "Give a local file with --pretrained FILE, or --pretrained untrained:0 for a trial."
                ) from error
            raise WrongUse(f"{model} cannot be built with the weights {pretrained}: {_line(error)}") from error
    return built.eval().requires_grad_(False)


def weights_digest(model: torch.nn.Module) -> str:
    """sha256 over names, shapes and values of the state dict, whatever file it came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@cache  # open_clip reads the configurations of all its models each time it is told of a folder
def _make_known(folder: Path) -> None:
    open_clip.add_model_config(folder)


def _shipped(model: str) -> str:
    """The file of weights that dptr ships for a model. WrongUse if there is none."""
    path = _MODELS / f"{model}.safetensors"
    if not path.is_file():
        raise WrongUse(f"dptr ships no weights for {model}: name some with --pretrained (tags: {_tags(model)}).")
    return str(path)


def _tags(model: str) -> str:
    tags = open_clip.list_pretrained_tags_by_model(model)
    return ", ".join([*tags, *([SHIPPED] if (_MODELS / f"{model}.safetensors").is_file() else [])]) or "none"


def _check_quick_gelu(model: str, pretrained: str, tag: dict[str, Any], quick_gelu: bool) -> None:
    wanted = bool(tag.get("quick_gelu", False)) if tag else _is_openai_archive(Path(pretrained)) or quick_gelu
    if wanted != quick_gelu:
        names = ["GELU", "QuickGELU"]
        other = f"{model}-quickgelu" if wanted else model.removesuffix("-quickgelu")
        raise WrongUse(
            f"the weights '{pretrained}' were trained with {names[wanted]} and {model} computes {names[quick_gelu]}, "
            f"which gives wrong features without any error: use --model {other}."
        )


def _is_openai_archive(path: Path) -> bool:
    """OpenAI alone published CLIP weights as TorchScript archives, and all of them use QuickGELU."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences open_clip's log lines: what matters in them is raised as an error or said by the caller."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 300 else text[:300] + " ..."
