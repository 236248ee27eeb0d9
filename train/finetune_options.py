"""What a person may choose of a fine-tuning run, and how the rest follows from it."""

from dataclasses import dataclass, field
from pathlib import Path

from cache.errors import WrongUse
from models.recogniser import QUERIES
from train.pretrain_options import check_counts, released_rate

ENCODERS = ("clip", "vit")
# CLIP4STR (arXiv 2305.14014) trains what is new at 19 times the learning rate of CLIP's own tower
NEW_OVER_CLIP = 19


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of `dptr finetune`. None means that the value follows from others."""

    init: Path
    train: list[str]
    val: list[str]
    out: Path
    weights: list[float] = field(default_factory=list)  # how often an epoch sees each of `train`; none: once
    encoder: str = "clip"
    image_size: tuple[int, int] | None = None  # (H, W); that of the tower
    freeze: bool = False  # the encoder learns nothing, and its tokens come from the cache
    queries: int = QUERIES  # of the FMU; 0: none
    scratch: bool = False  # a control: the decoder of `init` in shape only
    other_space: bool = False  # a control: a decoder pre-trained on memories of another encoder
    augment: float = 1.0
    permutations: int | None = None  # of parseq; as the decoder was pre-trained
    batch: int = 256
    epochs: float = 20
    steps: int | None = None
    lr: float | None = None  # 7e-4 * sqrt(2) * batch / 256
    encoder_lr: float | None = None  # with clip a 19th of lr, with vit the same
    eval_every: int | None = None  # a tenth of the steps
    eval_words: int = 2000
    workers: int | None = None  # one less than there are cores, 16 at most
    seed: int = 0
    resume: str = "auto"  # continue what is in `out`; "never"; or a run or checkpoint to go on from
    device: str = "auto"
    precision: str = "auto"

    @property
    def rate(self) -> float:
        """Peak learning rate of all but the encoder."""
        return self.lr or released_rate(self.batch)

    @property
    def encoder_rate(self) -> float:
        """Peak learning rate of the encoder."""
        return self.encoder_lr or self.rate / (NEW_OVER_CLIP if self.encoder == "clip" else 1)


def check(options: FinetuneOptions) -> None:
    """WrongUse for options that are out of range or contradict each other."""
    if options.encoder not in ENCODERS:
        raise WrongUse(f"--encoder is {' or '.join(ENCODERS)}, not '{options.encoder}'.")
    if options.freeze and options.encoder == "vit":
        raise WrongUse("--freeze keeps the encoder as it is, and a vit begins with random weights: use --encoder clip.")
    if options.freeze and options.encoder_lr:
        raise WrongUse("--freeze keeps the encoder as it is, so there is no --encoder-lr.")
    if options.weights and len(options.weights) != len(options.train):
        raise WrongUse(
            f"there are {len(options.train)} --train and {len(options.weights)} --weight: give one for each."
        )
    given = ("batch", "epochs", "eval_words")
    check_counts(options, given, ("permutations", "steps", "lr", "encoder_lr", "eval_every"))
    if any(weight < 0 for weight in options.weights) or (options.weights and not any(options.weights)):
        raise WrongUse("a --weight is 0 or more, and one at least more than 0.")
    if options.augment < 0 or options.queries < 0 or (options.workers or 0) < 0:
        raise WrongUse("--augment, --queries and --workers are 0 or more.")
