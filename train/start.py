"""What fine-tuning starts from: a pre-trained decoder behind an image tower, or a recogniser that goes on."""

from dataclasses import asdict, fields, replace
from typing import Any

import torch

from cache.errors import WrongUse
from cache.space import Space
from models.charset import characters
from models.decoders import DecoderConfig, configure, make
from models.image_encoder import ImageEncoder, VisionConfig, released_vit
from models.new_charset import with_characters
from models.recogniser import Recogniser, RecogniserConfig
from train.finetune_options import FinetuneOptions
from train.run import load_model
from train.run_config import RunConfig


def build(options: FinetuneOptions, space: Space | None, tower: ImageEncoder | None) -> tuple[Recogniser, RunConfig]:
    """The recogniser that training starts from, and the configuration of the run that it, or its decoder, is from.

    With `student`, that decoder becomes the guide of a new one. Raises WrongUse if that run is from a different space
    than the image tower, if permutations are asked for and its kind of decoder has none, if it was fine-tuned and
    options ask for another shape, for a kind of student that does not exist, or as `with_characters` does.
    """
    recogniser, init = _built(options, space, tower)
    if options.student:
        known = recogniser.decoder.config
        shape = configure(options.student, **{f.name: getattr(known, f.name) for f in fields(DecoderConfig)})
        recogniser.guide, recogniser.decoder = recogniser.decoder, make(shape)
        recogniser.config = replace(recogniser.config, decoder=shape)
    return recogniser, init


def _built(options: FinetuneOptions, space: Space | None, tower: ImageEncoder | None) -> tuple[Recogniser, RunConfig]:
    saved = load_model(options.init)
    init = saved.config
    decoder, wanted = saved.decoder, characters_to_write(options, saved.decoder.charset.characters)
    if wanted != decoder.charset.characters and not options.scratch:
        decoder = with_characters(decoder, wanted)
    shape = replace(decoder.config, characters=wanted)
    if isinstance(saved.model, Recogniser):
        _check_as_it_is(options)
        recogniser = saved.model
        if options.encoder_layers:
            recogniser.encoder = _thinned(recogniser.encoder, options.encoder_layers)
        vision = recogniser.encoder.config
        vision = replace(vision, turn_tall=vision.turn_tall or options.turn_tall)
        recogniser.decoder, recogniser.config = decoder, replace(recogniser.config, decoder=shape, vision=vision)
        return recogniser.train(), init
    if options.permutations:
        shape = configure(shape.kind, **{**asdict(shape), "permutations": options.permutations})
    if tower and options.encoder_layers:
        tower = _thinned(tower, options.encoder_layers)
    vision = tower.config if tower else _vit(options, shape)
    vision = replace(vision, turn_tall=options.turn_tall)
    recogniser = Recogniser(RecogniserConfig(vision, shape, 0 if options.no_fmu else options.queries))
    if space and not options.other_space:
        init.check_space(space)
    if tower:
        recogniser.encoder.load_state_dict(tower.state_dict())
    if not options.scratch:
        recogniser.decoder.load_state_dict(decoder.state_dict())
    recogniser.encoder.requires_grad_(not options.freeze)
    return recogniser, init


def teacher(options: FinetuneOptions, device: torch.device) -> Recogniser | None:
    """The fine-tuned run of --init as it is, if its tower is thinned: the thin one learns to make its memories.

    It learns nothing itself. So are features distilled (FitNets: Romero et al., ICLR 2015, arXiv 1412.6550).
    """
    if not options.encoder_layers:
        return None
    whole = load_model(options.init).model
    return whole.to(device).eval().requires_grad_(False) if isinstance(whole, Recogniser) else None


def _thinned(tower: ImageEncoder, layers: int) -> ImageEncoder:
    try:
        return tower.thinned(layers)
    except ValueError as error:
        raise WrongUse(f"--encoder-layers {layers} leaves out none: {error}.") from None


def _check_as_it_is(options: FinetuneOptions) -> None:
    """A fine-tuned run goes on as it is. Raise WrongUse for options that would change it."""
    changes = {
        "--encoder vit": options.encoder == "vit", "--freeze": options.freeze, "--image-size": options.image_size,
        "--no-fmu": options.no_fmu, "--permutations": options.permutations, "--scratch": options.scratch,
    }  # fmt: skip
    if given := [flag for flag, value in changes.items() if value]:
        raise WrongUse(f"{options.init} is a fine-tuned run, which goes on as it is: leave out {' and '.join(given)}.")


def characters_to_write(options: FinetuneOptions, before: str) -> str:
    """The characters to write, those of the run unless options say otherwise. Raises WrongUse as `characters`."""
    if options.charset:
        return characters(options.charset, options.space_char)
    if options.space_char and " " in before:
        raise WrongUse(f"{options.init} writes the space already: leave out --space-char.")
    return before + " " * options.space_char


def _vit(options: FinetuneOptions, decoder: DecoderConfig) -> VisionConfig:
    vit = released_vit(decoder.memory_width)
    try:
        return vit.resized(options.size) if options.size else vit
    except ValueError as error:
        raise WrongUse(f"{error} of the vit: choose a larger --image-size.") from error


def history(init: RunConfig) -> dict[str, Any]:
    """What went before: how the decoder was pre-trained, and how long the whole was fine-tuned, if it was."""
    if init.reads_pictures:
        before = init.resolved["pretrained"]
        return {**before, "fine_tuned": [*before.get("fine_tuned", []), init.steps]}
    said = {"steps": init.steps, "perturb": init.resolved["perturb"]}
    return {"corpora": init.pretraining.corpus, **said, "zero_memory": init.pretraining.zero_memory}
