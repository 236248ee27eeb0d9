"""The options of `dptr compare`: those of `dptr pretrain`, and what is compared. Needs no torch."""

from dataclasses import dataclass, fields, replace

from cache.errors import WrongUse
from train.options import DATA, FIRST, LENGTH, option
from train.pretrain_options import PretrainOptions
from train.pretrain_options import check as check_pretraining


@dataclass(frozen=True)
class CompareOptions(PretrainOptions):
    """The options of a comparison; every run has one of `kinds` and one of the seeds."""

    perturb: str | None = None  # not options: runs differ in these
    seed: int = 0

    kinds: list[str] = option(
        "Perturbation to compare, as in dptr pretrain; repeatable. The others are compared with the first; 'none' is "
        "one too.",
        FIRST,
        [],
        flag="--perturb",
    )
    seeds: int = option("Runs of each perturbation, each with a seed of its own.", FIRST, 3)
    data: list[str] = option("Word images to read without having trained on any, as --zero-label does.", DATA, [])
    train: list[str] = option(
        "Word images to fine-tune each run on, behind the frozen image tower, and then read --data again.", DATA, []
    )
    finetune_steps: int = option("Steps of that fine-tuning, of 64 word images.", LENGTH, 400)

    def run(self, kind: str, seed: int) -> PretrainOptions:
        """The options of one run, in a folder of its own."""
        names = [f.name for f in fields(PretrainOptions)]
        plain = PretrainOptions(**{name: getattr(self, name) for name in names})
        number = self.kinds.index(kind) + 1
        bank = self.bank if kind != "none" else None
        return replace(plain, perturb=kind, seed=seed, bank=bank, out=self.out / f"{number}-seed-{seed}")


def check(options: CompareOptions) -> None:
    """Raise WrongUse for options that are missing, out of range or contradict each other."""
    if not options.kinds:
        raise WrongUse("there is nothing to compare: give --perturb once for each perturbation.")
    if len(set(options.kinds)) < len(options.kinds):
        raise WrongUse("one perturbation is given twice with --perturb: give each once, and --seeds for more runs.")
    if options.seeds < 1 or options.finetune_steps < 1:
        raise WrongUse("--seeds and --finetune-steps must be more than 0.")
    if options.train and not options.data:
        raise WrongUse("--train fine-tunes, and --data says what is read afterwards: give both.")
    check_pretraining(options)
