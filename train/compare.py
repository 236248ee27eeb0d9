"""Pre-trains with several perturbations and seeds from one cache, and says which reads better: `dptr compare`.

DIR/
    1-seed-0/ ...    a run for each perturbation, in the order given, and each seed
    options.json     what all runs have in common
    results.jsonl    a line for each finished run, which is not run again
    table.md         the table that is printed; plot.png: the same as a plot
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from cache.errors import WrongUse
from cache.files import write_whole
from cache.remote import absolute, shown
from cache.space import Space
from models.device import choose_device
from models.image_encoder import ImageEncoder
from sources.labelled import Labelled
from train.compare_options import CompareOptions, check
from train.comparison import Table, markdown, plot, table_of
from train.data.crop_batches import CachedTokens
from train.data.crops import usable
from train.finetune import Material, finetune
from train.finetune_options import FinetuneOptions
from train.perturb import perturbation
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.batched import read_crops
from train.reading.result import scored
from train.run import zero_label_recogniser

HELD_OUT, ZERO_LABEL, FINETUNED = "held out", "zero-label", "fine-tuned"  # what is measured
BATCH = 64  # of fine-tuning


@dataclass(frozen=True)
class Pictures:
    """Word images to read, and to fine-tune on, with the image tower and its tokens of all of them."""

    space: Space
    tower: ImageEncoder
    tokens: CachedTokens
    data: Sequence[Labelled]
    train: Sequence[Labelled]


def compare(options: CompareOptions, pictures: Pictures | None, say: Callable[[str], None]) -> Table:
    """Run what is missing and compare all.

    Raises WrongUse for options that contradict each other or differ from those that the folder was made with, and as
    `pretrain` and `finetune`.
    """
    check(options)
    for kind in options.kinds:
        perturbation(kind, options.bank)  # a misspelt one is said before hours are spent on the others
    _check_same(options)
    path = options.out / "results.jsonl"
    results = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    done = {(result["perturb"], result["seed"]) for result in results}
    todo = [(kind, seed) for seed in range(options.seeds) for kind in options.kinds if (kind, seed) not in done]
    for n, (kind, seed) in enumerate(todo, 1):
        say(f"\n{n} of {len(todo)}: {kind}, seed {seed}")
        results.append({"perturb": kind, "seed": seed, "accuracy": _measured(options, kind, seed, pictures, say)})
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(results[-1]) + "\n")
    found = table_of([r for r in results if r["perturb"] in options.kinds and r["seed"] < options.seeds], options.kinds)
    write_whole(options.out / "table.md", (markdown(found) + "\n").encode())
    plot(found, options.out / "plot.png")
    return found


def _check_same(options: CompareOptions) -> None:
    """Raise WrongUse if the folder's runs had other options; note them if there are none yet."""
    path, free = options.out / "options.json", {"kinds", "seeds", "out", "device", "resume", "perturb", "seed"}
    ours = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in free}
    ours["cache"] = shown(absolute(options.cache))
    if path.exists():
        theirs = json.loads(path.read_text("utf-8"))
        different = [name.replace("_", "-") for name, value in ours.items() if theirs.get(name) != value]
        if different:
            raise WrongUse(
                f"the runs in {options.out} have another --{', --'.join(different)}: choose another --out, or the same "
                "options for all that is compared."
            )
        return
    options.out.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(ours, indent=2).encode())


def _measured(
    options: CompareOptions, kind: str, seed: int, pictures: Pictures | None, say: Callable[[str], None]
) -> dict[str, float]:
    """The accuracy of one run, as shares of 1: words ignoring case; word images over letters and digits."""
    run = options.run(kind, seed)
    found = {HELD_OUT: pretrain(run, say).scores["ignoring_case"]}
    if pictures:
        device = choose_device(options.device)
        recogniser, _, _ = zero_label_recogniser(run.out, pictures.tower)
        crops = usable(pictures.data, recogniser.charset, recogniser.config.decoder.max_length, strict=False)
        readings, _ = read_crops(recogniser.to(device), crops, device, "fp32", 0, pictures.tokens)
        found[ZERO_LABEL] = scored(readings).accuracy_36
        if pictures.train:
            found[FINETUNED] = _finetuned(options, run, pictures, say)
    return found


def _finetuned(options: CompareOptions, run: PretrainOptions, pictures: Pictures, say: Callable[[str], None]) -> float:
    out = run.out / "finetuned"
    shutil.rmtree(out, ignore_errors=True)
    asked = FinetuneOptions(
        run.out, options.train, options.data, out, freeze=True, no_fmu=True, batch=BATCH, steps=options.finetune_steps,
        eval_every=options.finetune_steps, eval_words=1 << 20, seed=run.seed, workers=0, precision=options.precision,
        device=options.device, lr=1e-3, augment=0.0,
    )  # fmt: skip
    material = Material([pictures.train], pictures.data, pictures.space, pictures.tower, pictures.tokens)
    return finetune(asked, material, say).scores["accuracy_36"]
