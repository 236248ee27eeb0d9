"""The options of `dptr pretrain`, declared once, with their help. Needs no torch, so that --help answers at once."""

from dataclasses import dataclass
from pathlib import Path

from cache.errors import WrongUse
from train.options import DATA, FIRST, LENGTH, MACHINE, MODEL, PERTURBATION, check_counts, option

READERS = ("auto", "resident", "mapped", "streamed")


@dataclass(frozen=True)
class PretrainOptions:
    """What a person may choose of a pre-training run. None: it follows from other options, as the help says."""

    corpus: list[str] = option("Corpus to train on; give it again for another.", FIRST)
    out: Path = option("Folder of the run.", FIRST)
    bank: str | None = option("Bank whose photographs perturb the memories (default: no perturbation).", FIRST, None)
    epochs: float = option("How often each word is seen.", FIRST, 20.0)
    depth: int = option("Layers of the decoder.", FIRST, 6)

    cache: Path = option("Folder of the cache.", DATA, Path("dptr-cache"), env="DPTR_CACHE")
    space: str | None = option("Space, where a cache holds several: the start of its name.", DATA, None)
    charset: str = option("Characters the decoder can write: 36, 62, 94, or a file that holds them.", DATA, "94")
    held_out: float = option("Share of words kept from training, by a hash of the word.", DATA, 0.05)

    steps: int | None = option("Steps, instead of --epochs.", LENGTH, None)
    batch: int = option("Words in a step.", LENGTH, 384)
    lr: float | None = option("Peak learning rate (default: 7e-4 √2 batch / 256).", LENGTH, None)
    ema: float = option("Decay of the weights' moving average, which is then evaluated and kept; 0: none.", LENGTH, 0.0)
    eval_every: int | None = option("Steps between evaluations (default: a tenth of all).", LENGTH, None)
    eval_words: int = option("Held-out words read at each evaluation, at most.", LENGTH, 1000)
    resume: str = option(
        "auto: go on with the run in --out; never; or a run or checkpoint to go on from.", LENGTH, "auto"
    )

    decoder: str = option("Kind of decoder: parseq, nrtr, abinet or ctc.", MODEL, "parseq")
    width: int | None = option("Width of the decoder (default: the memories').", MODEL, None)
    heads: int | None = option("Attention heads (default: one for each 64 of width).", MODEL, None)
    dropout: float = option("Dropout.", MODEL, 0.1)
    permutations: int | None = option("Orders in which parseq predicts a batch's characters (default: 6).", MODEL, None)
    zero_memory: bool = option("Zeros for memories, so that only the language is learnt: a control.", MODEL, False)

    orp: float | None = option("λ: how strongly photographs perturb (default: 0.1).", PERTURBATION, None)
    orp_relative: float | None = option("λ as a share of the memories' row norm, instead of --orp.", PERTURBATION, None)
    orp_positions: str = option("Image tokens: shared by the batch, or drawn for each sample.", PERTURBATION, "shared")

    seed: int = option("Seed of weights, order, permutations and perturbation.", MACHINE, 0)
    reader: str = option("How memories are read: resident, mapped or streamed; auto: by their size.", MACHINE, "auto")
    precision: str = option("fp32 or bf16; auto: bf16 where the processor multiplies it natively.", MACHINE, "auto")
    device: str = option("cpu, cuda or cuda:N; auto: the GPU if there is one.", MACHINE, "auto")

    @property
    def strength(self) -> float:
        """λ as given."""
        return 0.1 if self.orp is None else self.orp


def check(options: PretrainOptions) -> None:
    """WrongUse for options that are missing, out of range or contradict each other."""
    if options.orp is not None and options.orp_relative is not None:
        raise WrongUse("--orp is λ itself and --orp-relative a share of the memory's norm: give one of them.")
    if options.bank is None and (options.orp or options.orp_relative):
        raise WrongUse("a perturbation needs photographs: name a --bank, made with dptr embed-images.")
    if options.orp_positions not in ("shared", "sample"):
        raise WrongUse(f"--orp-positions is 'shared' or 'sample', not '{options.orp_positions}'.")
    if options.reader not in READERS:
        raise WrongUse(f"--reader is one of {', '.join(READERS)}, not '{options.reader}'.")
    given = ("depth", "batch", "epochs", "eval_words")
    check_counts(options, given, ("width", "heads", "permutations", "steps", "lr", "eval_every"))
    if not 0 < options.held_out < 1:
        raise WrongUse(f"--held-out is a share between 0 and 1, not {options.held_out}.")
    if not 0 <= options.ema < 1:
        raise WrongUse(f"--ema is a decay from 0 to below 1, not {options.ema}.")
    if not 0 <= options.dropout < 1:
        raise WrongUse(f"--dropout is a share from 0 to below 1, not {options.dropout}.")
