"""The options of `dptr finetune`, declared once, with their help. Needs no torch, so that --help answers at once."""

from dataclasses import dataclass
from pathlib import Path

from cache.errors import WrongUse
from sources.drawn.hard import check_share
from train.options import (
    DATA,
    FIRST,
    LENGTH,
    MACHINE,
    MODEL,
    check_counts,
    check_out,
    option,
    released_rate,
    rows_and_columns,
)

ENCODERS = ("clip", "vit")
DRAWN = "drawn:"  # a --train that begins so names words to draw
# CLIP4STR (arXiv 2305.14014) trains new modules at 19 times the learning rate of CLIP's own tower
NEW_OVER_CLIP = 19
DECAY = 0.999  # of the average that reads --unlabelled pictures, as in FixMatch (arXiv 2001.07685)


@dataclass(frozen=True)
class FinetuneOptions:
    """The options of a fine-tuning run. None: derived from other options, as the help says."""

    init: Path = option("Pre-trained run to take the decoder from; or a fine-tuned one, of which all goes on.", FIRST)
    train: list[str] = option(
        "Training word images: an LMDB, a folder of LMDBs or with a labels.tsv, a dataset, or drawn:WORDS; repeatable.",
        FIRST,
    )
    val: list[str] = option("Validation word images, by which the best checkpoint is chosen; repeatable.", FIRST)
    out: Path = option("Folder to write the run to.", FIRST)
    epochs: float = option("Passes over the training word images.", FIRST, 20.0)

    weight: list[float] = option("Times an epoch sees each --train set, in their order (default: 1).", DATA, [])
    augment: float = option("Strength of random augmentation; 0 turns it off.", DATA, 1.0)
    blank: bool = option("Use pictures with an empty label too, to teach that there is no text.", DATA, False)
    unlabelled: list[str] = option(
        "Word images whose labels are missing or not looked at; it learns from what it reads in them; repeatable.",
        DATA,
        [],
    )
    confidence: float = option("Least confidence of a reading of --unlabelled pictures to learn from.", DATA, 0.9)
    fonts: list[str] = option("Folder of fonts to draw with (default: all that are usual); repeatable.", DATA, [])
    behind: list[str] = option("Photographs to draw words on: folder, tar, LMDB, dataset; repeatable.", DATA, [])
    hard_words: float = option("Fraction of drawn pictures that show no listed word.", DATA, 0.3)

    steps: int | None = option("Number of steps, instead of --epochs.", LENGTH, None, instead="epochs")
    batch: int = option("Word images per step.", LENGTH, 256)
    lr: float | None = option("Peak learning rate (default: 7e-4 √2 batch / 256).", LENGTH, None)
    encoder_lr: float | None = option(
        "Peak learning rate of the encoder (default: lr / 19 for clip, lr for vit).", LENGTH, None
    )
    ema: float | None = option(
        "Decay of a moving average of the weights, which is evaluated and kept as best; 0: none (default: 0; 0.999 "
        "with --unlabelled, whose pictures it reads).",
        LENGTH,
        None,
    )
    eval_every: int | None = option("Steps between evaluations (default: a tenth of all, 10 or more).", LENGTH, None)
    eval_words: int = option("Maximum number of --val images to read per evaluation.", LENGTH, 2000)
    resume: str = option(
        "auto: continue the run in --out, if any; never; or the run or checkpoint to continue from.", LENGTH, "auto"
    )

    charset: str | None = option(
        "Other characters to write than the run of --init: 36, 62, 94, or a file with one a line.", MODEL, None
    )
    space_char: bool = option("Add the space after the charset's last character.", MODEL, False, flag="--space-char")
    encoder: str = option("clip: the space's own image tower; vit: the released ViT, untrained.", MODEL, "clip")
    encoder_layers: int | None = option(
        "Keep this many layers of the tower, the first and the last ones; a fine-tuned --init teaches them "
        "(default: all).",
        MODEL,
        None,
    )
    freeze: bool = option("Freeze the encoder: its tokens are cached once, and training never runs it.", MODEL, False)
    image_size: str | None = option("Size of input pictures, such as 32x128 (default: the tower's).", MODEL, None)
    turn_tall: bool = option(
        "Turn pictures twice as tall as wide, or taller, a quarter to the left.", MODEL, False, flag="--turn-tall"
    )
    queries: int = option("Number of learned queries in the FMU.", MODEL, 26)
    no_fmu: bool = option(
        "Leave out the FMU: the decoder reads image tokens directly.", MODEL, False, flag="--no-fmu/--fmu"
    )
    permutations: int | None = option("Number of permutations for parseq (default: as pre-trained).", MODEL, None)
    scratch: bool = option("Start from random decoder weights of the same shape, as a control.", MODEL, False)
    student: str | None = option(
        "Read with a new decoder of this kind, such as ctc; the run's own guides it in training alone.", MODEL, None
    )

    seed: int = option("Random seed for new weights, data order, permutations and augmentation.", MACHINE, 0)
    workers: int | None = option("Processes that prepare pictures (default: cores - 1, at most 16).", MACHINE, None)
    precision: str = option("fp32, bf16, or auto: the faster one here.", MACHINE, "auto")
    device: str = option("cpu, cuda, cuda:N, or auto: the GPU if there is one.", MACHINE, "auto")

    other_space: bool = False  # not an option; a control: a decoder pre-trained on another encoder's memories

    @property
    def rate(self) -> float:
        """Peak learning rate of everything but the encoder."""
        return self.lr or released_rate(self.batch)

    @property
    def decay(self) -> float:
        """Decay of the moving average of the weights; 0: none."""
        return self.ema if self.ema is not None else DECAY * bool(self.unlabelled)

    @property
    def encoder_rate(self) -> float:
        """Peak learning rate of the encoder."""
        return self.encoder_lr or self.rate / (NEW_OVER_CLIP if self.encoder == "clip" else 1)

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns of input pictures; None: the tower's. Raises WrongUse if it cannot be parsed."""
        return None if self.image_size is None else rows_and_columns("--image-size", self.image_size)


def check(options: FinetuneOptions) -> None:
    """Raise WrongUse for options that are out of range or contradict each other."""
    check_out(options.out)
    if options.encoder not in ENCODERS:
        raise WrongUse(f"--encoder must be {' or '.join(ENCODERS)}, not '{options.encoder}'.")
    if options.freeze and options.encoder == "vit":
        raise WrongUse("--freeze would keep the random weights that a vit starts with: use --encoder clip.")
    drawn = any(source.startswith(DRAWN) for source in options.train)
    if options.freeze and drawn:
        raise WrongUse("--freeze encodes each picture once, and drawn: never draws one twice: give only one of them.")
    if any(source.startswith(DRAWN) for source in options.val):
        raise WrongUse("--val takes pictures that stay as they are: draw some with dptr draw, or name real ones.")
    if (options.fonts or options.behind) and not drawn:
        raise WrongUse("--fonts and --behind are for pictures that are drawn: add a --train drawn:WORDS.")
    check_share(options.hard_words)
    if options.unlabelled and (options.freeze or not options.augment):
        raise WrongUse(
            "--unlabelled learns to read augmented pictures as it reads plain ones: leave out --freeze and --augment 0."
        )
    if any(source.startswith(DRAWN) for source in options.unlabelled):
        raise WrongUse("--unlabelled takes pictures, and what is drawn has labels: add it as a --train.")
    if not 0 <= options.confidence < 1 or not 0 <= options.decay < 1:
        raise WrongUse("--confidence and --ema must be at least 0 and below 1.")
    if options.encoder_layers and (options.freeze or options.encoder == "vit"):
        raise WrongUse("--encoder-layers thins a tower that is then trained: leave out --freeze and --encoder vit.")
    if options.freeze and options.turn_tall:
        raise WrongUse(
            "--freeze takes tokens of pictures as they are, so --turn-tall has no effect: give only one of them."
        )
    if options.freeze and options.encoder_lr:
        raise WrongUse("--freeze does not train the encoder, so --encoder-lr has no effect: give only one of them.")
    if options.weight and len(options.weight) != len(options.train):
        raise WrongUse(
            f"there are {len(options.train)} --train but {len(options.weight)} --weight: give one weight for each set."
        )
    given = ("batch", "epochs", "eval_words")
    check_counts(options, given, ("permutations", "steps", "lr", "encoder_lr", "encoder_layers", "eval_every"))
    if any(weight < 0 for weight in options.weight) or (options.weight and not any(options.weight)):
        raise WrongUse("every --weight must be 0 or more, and at least one of them more than 0.")
    if options.augment < 0 or options.queries < 0 or (options.workers or 0) < 0:
        raise WrongUse("--augment, --queries and --workers must be 0 or more.")
    _ = options.size
