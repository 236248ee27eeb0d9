"""Gathers the inputs of fine-tuning and evaluation; the one place where pipeline/ and train/ meet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import DptrError
from cache.files import check_folder
from commands.console import say

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cache.space import Space
    from models.image_encoder import ImageEncoder, Pair
    from sources.labelled import Labelled
    from train.data.crop_batches import CachedTokens
    from train.finetune_options import FinetuneOptions
    from train.reading.evaluate import States


def labelled_sets(sources: Sequence[str], split: str) -> list[Labelled]:
    """The sets of labelled word images in these sources."""
    from sources.labelled import labelled

    return [one for source in sources for one in labelled(source, split)]


def unlabelled_sets(sources: Sequence[str], split: str) -> list[Labelled]:
    """The sets of word images in these sources, whose labels are not looked at."""
    from sources.unlabelled import unlabelled

    return [one for source in sources for one in unlabelled(source, split)]


def comparable_sets(options: object, data: Sequence[str] | None, split: str) -> list[Labelled]:
    """The sets in `data` or, if that is not given, those a fine-tuned run was measured on, if they are still there."""
    from train.finetune_options import FinetuneOptions

    if data or not isinstance(options, FinetuneOptions):
        return labelled_sets(data or [], split)
    try:
        return labelled_sets(options.val, split)
    except DptrError as error:
        say(f"the run's --val cannot be read: {error}")
        return []


def training_sets(options: FinetuneOptions, cache: Path | None, split: str) -> list[list[Labelled]]:
    """The sets of each --train. WrongUse for words to draw, fonts or photographs that are not there."""
    from train.finetune_options import DRAWN

    if not any(source.startswith(DRAWN) for source in options.train):
        return [labelled_sets([source], split) for source in options.train]
    from commands.drawing import drawn_words, scenery, words_to_draw
    from models.charset import Charset
    from sources.drawn.drawn_set import Writing
    from train.pretrain_options import PretrainOptions
    from train.run import run_config
    from train.start import characters_to_write

    config = run_config(options.init)
    characters = characters_to_write(options, config.decoder.characters)
    writing = Writing(characters, config.decoder.max_length, Charset(characters).fold)
    cache = cache or (config.options.cache if isinstance(config.options, PretrainOptions) else None)
    words = {s: words_to_draw(s.removeprefix(DRAWN), cache, split) for s in options.train if s.startswith(DRAWN)}
    drawn_from = scenery(options.fonts, options.behind, writing)
    return [
        [drawn_words(source, words[source], writing, drawn_from, options.hard_words, options.seed)]
        if source in words
        else labelled_sets([source], split)
        for source in options.train
    ]


def words_as_set(source: str, split: str) -> Labelled:
    """A source of words as a set without pictures."""
    from sources.labelled import Labelled
    from sources.words import Reading, words

    return Labelled(Path(source).name, list(words(source, Reading(split=split, say=say))), lambda _: b"")


def image_tower(
    options: FinetuneOptions, cache: Path | None, pretrained: str | None
) -> tuple[Space | None, ImageEncoder | None]:
    """The space of the run that the decoder is from, and its image tower.

    (None, None) for a new encoder, and if that run is a whole recogniser.
    """
    if options.encoder == "vit":
        return None, None
    from train.run import run_config

    config = run_config(options.init)
    if config.reads_pictures:
        return None, None
    space = config.space(cache)
    if options.freeze:
        from cache.remote import on_disk  # loads numpy

        on_disk(space.folder, "--freeze")
        check_folder("--cache", space.folder)
    return space, tower_of(space, options.size, pretrained)


def tower_of(space: Space, size: Pair | None, pretrained: str | None) -> ImageEncoder:
    """The image tower of a space's encoder, for pictures of `size`."""
    say("loading torch and open_clip ...")
    from pipeline.convert import space_tower

    return space_tower(space, size, pretrained)


def frozen_tokens(
    options: FinetuneOptions, space: Space | None, tower: ImageEncoder | None, sets: Sequence[Labelled]
) -> CachedTokens | None:
    """The frozen encoder's tokens of all pictures, embedding those not yet cached; None if the encoder is trained.

    Of several ranks, the first embeds them, and the others wait.
    """
    if not (options.freeze and space and tower):
        return None
    from models.device import choose_device
    from train.data.crop_batches import CachedTokens
    from train.ranks import join

    ranks, device = join(choose_device(options.device))
    tokens = cached_tokens(space, tower, sets, str(device)) if ranks.first else None
    ranks.agree(None)
    return tokens or CachedTokens(space.crops(tower.config.image_size))


def cached_tokens(space: Space, tower: ImageEncoder, sets: Sequence[Labelled], device: str) -> CachedTokens:
    """A frozen tower's tokens of all pictures, embedding those not yet cached."""
    from models.device import choose_device
    from pipeline.embed_crops import embed_crops
    from train.data.crop_batches import CachedTokens

    pictures = ((f"{one.name}/{n}", one.picture(n)) for one in sets for n in range(len(one)))
    count = sum(len(one) for one in sets)
    return CachedTokens(embed_crops(space, tower, choose_device(device), pictures, count, say))


def text_states(space: Space, pretrained: str | None, device: str) -> States:
    """A function that makes memories of words: their states end to end (ΣL, D) and the number of rows of each (B,)."""
    say("loading torch and open_clip ...")
    import numpy as np

    from pipeline.encoder import space_encoder

    encoder = space_encoder(space, pretrained, device)

    def states(labels: Sequence[str]) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        ids = [encoder.prompt.ids(label) for label in labels]
        return encoder.text_states(ids), np.array([encoder.rows(i) for i in ids])

    return states
