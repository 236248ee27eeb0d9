"""The options of `dptr pretrain`, declared once, with their help. Needs no torch, so that --help answers at once."""

from dataclasses import dataclass
from pathlib import Path

from cache.errors import WrongUse
from train.options import DATA, FIRST, LENGTH, MACHINE, MODEL, PERTURBATION, check_counts, check_out, option

READERS = ("auto", "resident", "mapped", "streamed")
EXECUTIONS = ("eager", "graphs", "compiled")


@dataclass(frozen=True)
class PretrainOptions:
    """The options of a pre-training run. None: derived from other options, as the help says."""

    corpus: list[str] = option("Corpus to train on; repeatable.", FIRST)
    out: Path = option("Folder to write the run to.", FIRST)
    bank: str | None = option("Bank whose photographs perturb the memories, see --perturb.", FIRST, None)
    epochs: float = option("Passes over the training words.", FIRST, 20.0)
    depth: int = option("Number of decoder layers.", FIRST, 6)

    cache: Path = option(
        "Cache: a folder, or a URL such as s3://bucket/cache.", DATA, Path("dptr-cache"), env="DPTR_CACHE"
    )
    space: str | None = option("Space, if the cache has several: its name or the start of it.", DATA, None)
    charset: str = option("Characters the decoder can write: 36, 62, 94, or a file with one a line.", DATA, "94")
    space_char: bool = option(
        "Add the space after the charset's last character, as PaddleOCR's use_space_char.",
        DATA,
        False,
        flag="--space-char",
    )
    held_out: float = option("Fraction of words to hold out from training, by a hash of the word.", DATA, 0.05)

    steps: int | None = option("Number of steps, instead of --epochs.", LENGTH, None, instead="epochs")
    batch: int = option("Words per step.", LENGTH, 384)
    lr: float | None = option("Peak learning rate (default: 7e-4 √2 batch / 256).", LENGTH, None)
    ema: float = option(
        "Decay of a moving average of the weights, which is evaluated and kept as best; 0: none.", LENGTH, 0.0
    )
    eval_every: int | None = option("Steps between evaluations (default: a tenth of all, 10 or more).", LENGTH, None)
    eval_words: int = option("Maximum number of held-out words to read per evaluation.", LENGTH, 1000)
    resume: str = option(
        "auto: continue the run in --out, if any; never; or the run or checkpoint to continue from.", LENGTH, "auto"
    )

    decoder: str = option("Kind of decoder: parseq, nrtr, abinet, ctc or mdiff.", MODEL, "parseq")
    width: int | None = option("Decoder width (default: that of the memories).", MODEL, None)
    heads: int | None = option("Number of attention heads (default: width / 64).", MODEL, None)
    dropout: float = option("Dropout probability.", MODEL, 0.1)
    max_length: int | None = option("Longest word to read, in characters (default: 25).", MODEL, None)
    permutations: int | None = option("Number of permutations per batch for parseq (default: 6).", MODEL, None)
    zero_memory: bool = option("Replace memories with zeros, as a control: only the language is learnt.", MODEL, False)

    perturb: str | None = option(
        "How memories are perturbed, such as 'orp(0.1)' or 'stretch(0.3) + gaussian(50%)', in absolute units or per "
        "cent of their row norm (default: orp(0.1) with a --bank, else none).",
        PERTURBATION,
        None,
    )

    seed: int = option("Random seed for weights, data order, permutations and perturbation.", MACHINE, 0)
    reader: str = option("How to read memories: resident, mapped, streamed, or auto: by their size.", MACHINE, "auto")
    bank_reader: str = option(
        "How to read photographs: resident, mapped, streamed (a part of them, renewed), or auto: by their size.",
        MACHINE,
        "auto",
    )
    precision: str = option("fp32, bf16, or auto: the faster one here.", MACHINE, "auto")
    execution: str = option(
        "How a GPU takes a step: eager; graphs: recorded for each shape of batch, then replayed; compiled: layers "
        "compiled, then the same.",
        MACHINE,
        "eager",
    )
    device: str = option("cpu, cuda, cuda:N, or auto: the GPU if there is one.", MACHINE, "auto")


def check(options: PretrainOptions) -> None:
    """Raise WrongUse for options that are missing, out of range or contradict each other."""
    check_out(options.out)
    for flag, reader in {"--reader": options.reader, "--bank-reader": options.bank_reader}.items():
        if reader not in READERS:
            raise WrongUse(f"{flag} must be one of {', '.join(READERS)}, not '{reader}'.")
    if options.execution not in EXECUTIONS:
        raise WrongUse(f"--execution must be one of {', '.join(EXECUTIONS)}, not '{options.execution}'.")
    given = ("depth", "batch", "epochs", "eval_words")
    check_counts(options, given, ("width", "heads", "max_length", "permutations", "steps", "lr", "eval_every"))
    if not 0 < options.held_out < 1:
        raise WrongUse(f"--held-out must be above 0 and below 1, not {options.held_out}.")
    if not 0 <= options.ema < 1:
        raise WrongUse(f"--ema must be at least 0 and below 1, not {options.ema}.")
    if not 0 <= options.dropout < 1:
        raise WrongUse(f"--dropout must be at least 0 and below 1, not {options.dropout}.")
