"""The options of `dptr finetune`, declared once, with their help. Needs no torch, so that --help answers at once."""

import re
from dataclasses import dataclass
from pathlib import Path

from cache.errors import WrongUse
from train.options import DATA, FIRST, LENGTH, MACHINE, MODEL, check_counts, option, released_rate

ENCODERS = ("clip", "vit")
# CLIP4STR (arXiv 2305.14014) trains what is new at 19 times the learning rate of CLIP's own tower
NEW_OVER_CLIP = 19


@dataclass(frozen=True)
class FinetuneOptions:
    """What a person may choose of a fine-tuning run. None: it follows from other options, as the help says."""

    init: Path = option("Pre-trained run whose decoder to begin with.", FIRST)
    train: list[str] = option("Word images: LMDB, folder of LMDBs or with labels.tsv, dataset; may be repeated.", FIRST)
    val: list[str] = option("Word images to watch, and to choose the best checkpoint by.", FIRST)
    out: Path = option("Folder of the run.", FIRST)
    epochs: float = option("How often each word image is seen.", FIRST, 20.0)

    weight: list[float] = option("How often an epoch sees each --train (default: once).", DATA, [])
    augment: float = option("How much pictures are changed at random; 0: not at all.", DATA, 1.0)

    steps: int | None = option("Steps, instead of --epochs.", LENGTH, None)
    batch: int = option("Word images in a step.", LENGTH, 256)
    lr: float | None = option("Peak learning rate (default: 7e-4 √2 batch / 256).", LENGTH, None)
    encoder_lr: float | None = option("The encoder's (default: lr / 19 for clip, lr for vit).", LENGTH, None)
    eval_every: int | None = option("Steps between evaluations (default: a tenth of all).", LENGTH, None)
    eval_words: int = option("Word images of --val read at each evaluation, at most.", LENGTH, 2000)
    resume: str = option(
        "auto: go on with the run in --out; never; or a run or checkpoint to go on from.", LENGTH, "auto"
    )

    encoder: str = option("clip: the space's own image tower; vit: the released one, untrained.", MODEL, "clip")
    freeze: bool = option("Leave the encoder alone: its tokens are cached, and it never runs again.", MODEL, False)
    image_size: str | None = option("Size of pictures, such as 32x128 (default: the tower's).", MODEL, None)
    queries: int = option("Learned queries of the FMU.", MODEL, 26)
    no_fmu: bool = option("The decoder reads the image's tokens themselves.", MODEL, False, flag="--no-fmu/--fmu")
    permutations: int | None = option("Orders in which parseq predicts (default: as pre-trained).", MODEL, None)
    scratch: bool = option("A decoder of the run's shape with random weights: a control.", MODEL, False)

    seed: int = option("Seed of new weights, order, permutations and augmentation.", MACHINE, 0)
    workers: int | None = option("Processes that prepare pictures (default: one less than cores).", MACHINE, None)
    precision: str = option("fp32 or bf16; auto: bf16 where the processor multiplies it natively.", MACHINE, "auto")
    device: str = option("cpu, cuda or cuda:N; auto: the GPU if there is one.", MACHINE, "auto")

    other_space: bool = False  # a control without an option: a decoder pre-trained on memories of another encoder

    @property
    def rate(self) -> float:
        """Peak learning rate of all but the encoder."""
        return self.lr or released_rate(self.batch)

    @property
    def encoder_rate(self) -> float:
        """Peak learning rate of the encoder."""
        return self.encoder_lr or self.rate / (NEW_OVER_CLIP if self.encoder == "clip" else 1)

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns of pictures; None: the tower's. WrongUse for a size that is none."""
        if self.image_size is None:
            return None
        found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", self.image_size)
        if not found:
            raise WrongUse(f"'{self.image_size}' is no size of pictures: write rows x columns, such as 32x128.")
        return int(found[1]), int(found[2])


def check(options: FinetuneOptions) -> None:
    """WrongUse for options that are out of range or contradict each other."""
    if options.encoder not in ENCODERS:
        raise WrongUse(f"--encoder is {' or '.join(ENCODERS)}, not '{options.encoder}'.")
    if options.freeze and options.encoder == "vit":
        raise WrongUse("--freeze keeps the encoder as it is, and a vit begins with random weights: use --encoder clip.")
    if options.freeze and options.encoder_lr:
        raise WrongUse("--freeze keeps the encoder as it is, so there is no --encoder-lr.")
    if options.weight and len(options.weight) != len(options.train):
        raise WrongUse(f"there are {len(options.train)} --train and {len(options.weight)} --weight: give one for each.")
    given = ("batch", "epochs", "eval_words")
    check_counts(options, given, ("permutations", "steps", "lr", "encoder_lr", "eval_every"))
    if any(weight < 0 for weight in options.weight) or (options.weight and not any(options.weight)):
        raise WrongUse("a --weight is 0 or more, and one at least more than 0.")
    if options.augment < 0 or options.queries < 0 or (options.workers or 0) < 0:
        raise WrongUse("--augment, --queries and --workers are 0 or more.")
    _ = options.size
