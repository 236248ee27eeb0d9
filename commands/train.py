"""Commands that train: `dptr pretrain | finetune`."""

import re
from pathlib import Path
from typing import Annotated

import typer

from cache.errors import WrongUse
from commands.console import (
    DEFAULT_CACHE,
    CacheDir,
    Device,
    Json,
    Precision,
    Resume,
    RunCache,
    SpaceName,
    Split,
    Weights,
    finish,
    say,
)
from commands.gather import frozen_tokens, image_tower, labelled_sets


def pretrain(
    corpus: Annotated[list[str], typer.Option(help="Corpus to train on; may be given several times.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    bank: Annotated[str | None, typer.Option(help="Bank to perturb memories with; none: no perturbation.")] = None,
    cache: CacheDir = DEFAULT_CACHE,
    space: SpaceName = None,
    charset: Annotated[str, typer.Option(help="Characters to write: 36, 62, 94, or a file that holds them.")] = "94",
    decoder: Annotated[str, typer.Option(help="Its kind: parseq, nrtr, abinet or ctc (train/decoders).")] = "parseq",
    depth: Annotated[int, typer.Option(help="Layers of the decoder.")] = 6,
    width: Annotated[int | None, typer.Option(help="Width of the decoder (default: that of the memories).")] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads (default: one for each 64 of width).")] = None,
    dropout: Annotated[float, typer.Option(help="Dropout.")] = 0.1,
    permutations: Annotated[
        int | None, typer.Option(help="Orders in which parseq predicts each batch's characters (default: 6).")
    ] = None,
    orp: Annotated[float | None, typer.Option(help="λ: strength of the perturbation (default: 0.1).")] = None,
    orp_relative: Annotated[float | None, typer.Option(help="λ as a share of the memory's mean row norm.")] = None,
    orp_positions: Annotated[
        str, typer.Option(help="Image tokens: shared by the batch, or drawn a sample.")
    ] = "shared",
    zero_memory: Annotated[
        bool,
        typer.Option("--zero-memory", help="Nothing but zeros to read, so only the language is learnt: a control."),
    ] = False,
    batch: Annotated[int, typer.Option(help="Words in a step.")] = 384,
    epochs: Annotated[float, typer.Option(help="How often each word is seen.")] = 20,
    steps: Annotated[int | None, typer.Option(help="Steps, instead of --epochs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate (default: 7e-4 √2 batch / 256).")] = None,
    held_out: Annotated[float, typer.Option(help="Share of words kept from training, by a hash of the word.")] = 0.05,
    eval_every: Annotated[int | None, typer.Option(help="Steps between evaluations (default: a tenth).")] = None,
    eval_words: Annotated[int, typer.Option(help="Held-out words read at each evaluation, at most.")] = 1000,
    ema: Annotated[float, typer.Option(help="Decay of the average of weights that is kept as best; 0: none.")] = 0,
    seed: Annotated[int, typer.Option(help="Of weights, order, permutations and perturbation.")] = 0,
    resume: Resume = "auto",
    reader: Annotated[str, typer.Option(help="Memories are resident, mapped or streamed; auto: by size.")] = "auto",
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Pre-train a decoder on cached memories; CLIP is not needed."""
    from train.pretrain import pretrain as train
    from train.pretrain_options import PretrainOptions

    given = {name: value for name, value in locals().items() if name in PretrainOptions.__dataclass_fields__}
    done = train(PretrainOptions(corpora=corpus, **given), say)
    text = (
        f"run {out}: {done.steps:,} steps in {done.seconds:.1f} s ({done.words_per_second:,.0f} words/s); best at step "
        f"{done.best_step:,}: {done.scores['word_accuracy']:.1%} of held-out words right "
        f"({done.scores['ignoring_case']:.1%} ignoring case), character error {done.scores['character_error']:.1%}"
    )
    finish(text, vars(done), as_json)


def finetune(
    init: Annotated[Path, typer.Option(help="Pre-trained run whose decoder to begin with.")],
    train: Annotated[list[str], typer.Option(help="Word images: LMDB, folder of LMDBs or with a labels.tsv, dataset.")],
    val: Annotated[list[str], typer.Option(help="Word images to watch, and to choose the best checkpoint by.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    weight: Annotated[list[float] | None, typer.Option(help="How often an epoch sees each --train.")] = None,
    encoder: Annotated[
        str, typer.Option(help="clip: the space's own image tower; vit: the released one, new.")
    ] = "clip",
    freeze: Annotated[bool, typer.Option("--freeze", help="Leave the encoder alone; its tokens are cached.")] = False,
    image_size: Annotated[str | None, typer.Option(help="Pictures' size, as 32x128 (default: the tower's).")] = None,
    queries: Annotated[int, typer.Option(help="Learned queries of the FMU.")] = 26,
    no_fmu: Annotated[bool, typer.Option("--no-fmu", help="The decoder looks at the image's tokens.")] = False,
    scratch: Annotated[bool, typer.Option("--scratch", help="Random decoder of the run's shape: a control.")] = False,
    augment: Annotated[float, typer.Option(help="How much pictures are changed at random; 0: not at all.")] = 1.0,
    permutations: Annotated[
        int | None, typer.Option(help="Orders in which parseq predicts characters (default: as pre-trained).")
    ] = None,
    batch: Annotated[int, typer.Option(help="Word images in a step.")] = 256,
    epochs: Annotated[float, typer.Option(help="How often each word image is seen.")] = 20,
    steps: Annotated[int | None, typer.Option(help="Steps, instead of --epochs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate (default: 7e-4 √2 batch / 256).")] = None,
    encoder_lr: Annotated[float | None, typer.Option(help="The encoder's (default: clip lr / 19, vit lr).")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between evaluations (default: a tenth).")] = None,
    eval_words: Annotated[int, typer.Option(help="Word images of --val read at each evaluation, at most.")] = 2000,
    workers: Annotated[int | None, typer.Option(help="Processes that prepare pictures (default: cores - 1).")] = None,
    split: Split = "train",
    cache: RunCache = None,
    pretrained: Weights = None,
    seed: Annotated[int, typer.Option(help="Of new weights, order, permutations and changes.")] = 0,
    resume: Resume = "auto",
    precision: Precision = "auto",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Fine-tune a recogniser on labelled word images: image encoder, FMU, pre-trained decoder."""
    given = locals()
    from train.finetune import Material
    from train.finetune import finetune as learn
    from train.finetune_options import FinetuneOptions, check

    names = FinetuneOptions.__dataclass_fields__.keys() - {"image_size", "queries"}
    options = FinetuneOptions(
        **{name: value for name, value in given.items() if name in names},
        weights=weight or [],
        image_size=_size(image_size) if image_size else None,
        queries=0 if no_fmu else queries,
    )
    check(options)
    space, tower = image_tower(options, cache, pretrained)
    training = [labelled_sets([source], split) for source in train]
    watched = labelled_sets(val, split)
    tokens = frozen_tokens(options, space, tower, [*(one for part in training for one in part), *watched])
    done = learn(options, Material(training, watched, space, tower, tokens), say)
    text = (
        f"run {out}: {done.steps:,} steps in {done.seconds:.1f} s ({done.crops_per_second:,.0f} word images/s, waiting "
        f"for them {done.waiting:.1%} of the time); best at step {done.best_step:,}: "
        f"{done.scores['accuracy_36']:.1%} of letters and digits right whatever their case, "
        f"{done.scores['word_accuracy']:.1%} of whole words"
    )
    finish(text, vars(done), as_json)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise WrongUse(f"'{text}' is no size of pictures: write rows x columns, as 32x128.")
    return int(found[1]), int(found[2])
