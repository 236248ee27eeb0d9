"""What pre-training on text is worth: one recogniser, fine-tuned the same way from different initial decoders.

    python -m bench.pretraining_gain --words WORDS.txt --photos PHOTOS --train LMDB... --val LMDB... --out FOLDER

Arms: (a) decoder from scratch; (b) pre-trained on text memories; (c) with perturbation (ORP); (d) as (c), fine-tuned
without FMU; (e) pre-trained on memories of zeros, a language model; (f) pre-trained on memories of an untrained text
tower, which can be read but are not aligned with pictures. Each is fine-tuned with 10 % and 100 % of the crops and
several seeds; steps, order of crops and augmentation are the same for all arms. Measured on --val and on a tenth of
each training set, held out by a hash of the picture's bytes. wordclip's own training held out the same tenth, so its
image tower has seen none of it.

If stopped, it continues where it was. FOLDER/results.jsonl has a line per run, gain.json the table, gain.png the plot.
The last line on stdout is the gain of (b) over (a) in points, averaged over seeds, with all crops.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.space import open_space
from models.device import choose_device
from pipeline.convert import space_tower
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from sources.cleaning import hash_share
from sources.labelled import Labelled, labelled
from sources.photos import photo_count, photos
from sources.words import Reading, words
from train.finetune import Material, finetune
from train.finetune_options import FinetuneOptions
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.evaluate import evaluate_crops
from train.run import LAST

ARMS = {
    "a": "decoder from scratch",
    "b": "pre-trained on text",
    "c": "pre-trained on text, ORP",
    "d": "as c, no FMU",
    "e": "pre-trained on zeros",
    "f": "pre-trained, untrained CLIP",
}
PRETRAINED = {
    "a": "b",
    "b": "b",
    "c": "c",
    "d": "c",
    "e": "e",
    "f": "f",
}  # the arm whose pre-trained decoder, or at least its shape, is used
HELD_OUT = 0.1  # of each training set
ORP = "orp(10%)"


def say(text: str) -> None:
    """Print progress on stderr; the figures go to stdout."""
    print(text, file=sys.stderr, flush=True)


def embed(args: argparse.Namespace) -> None:
    """Make two spaces with the words' memories, and a bank."""
    cache = args.out / "cache"
    for weights in ("shipped", "untrained:0"):
        encoder = Encoder("wordclip", weights)
        embed_text(cache, encoder, collect(words(args.words, Reading())), "words", say)
        if weights == "shipped":
            embed_images(cache, encoder, photos(args.photos), photo_count(args.photos), "photos", say)


def one_pretraining(args: argparse.Namespace, arm: str) -> None:
    """Pre-train the decoder that an arm starts from, if it does not exist yet."""
    out = args.out / f"pretrained-{arm}"
    if (out / "finished").exists():
        return
    shutil.rmtree(out, ignore_errors=True)
    options = PretrainOptions(
        ["words"],
        out,
        cache=args.out / "cache",
        bank="photos" if arm == "c" else None,
        perturb=ORP if arm == "c" else None,
        zero_memory=arm == "e",
        space="wordclip.untrained" if arm == "f" else "wordclip.shipped",
        depth=args.depth,
        batch=128,
        lr=1.5e-3,
        steps=args.pretrain_steps,
        eval_words=500,
    )
    pretrain(options, say)
    (out / "finished").touch()


def one_run(args: argparse.Namespace, arm: str, share: float, seed: int) -> dict[str, Any]:
    """Fine-tune one arm and measure it."""
    space = open_space(args.out / "cache", "wordclip.shipped")
    training, held_out = zip(*(_split(one) for path in args.train for one in labelled(path)), strict=True)
    val = [one for path in args.val for one in labelled(path)]
    out = args.out / f"run-{arm}-{share:g}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    options = FinetuneOptions(
        args.out / f"pretrained-{PRETRAINED[arm]}",
        args.train,
        args.val,
        out,
        queries=0 if arm == "d" else 26,
        scratch=arm == "a",
        other_space=arm == "f",
        batch=64,
        lr=1e-3,
        steps=args.steps,
        eval_every=args.steps,
        eval_words=300,
        seed=seed,
        workers=0 if choose_device("auto").type == "cpu" else None,
    )
    material = Material([[_part(one, share)] for one in training], val, space, space_tower(space, None))
    done = finetune(options, material, say)
    result = evaluate_crops(out, [*val, *held_out], checkpoint=LAST)
    scores = {one.name: round(one.score.accuracy_36, 5) for one in result.sets}
    scores["held out"] = _weighted([one for one in result.sets if one.name not in {v.name for v in val}])
    (out / "best.pt").unlink()
    return {"arm": arm, "share": share, "seed": seed, "crops": done.crops, "seconds": done.seconds, "accuracy": scores}


def _weighted(sets: Iterable[Any]) -> float:
    right, count = zip(*((one.score.accuracy_36 * one.score.words, one.score.words) for one in sets), strict=True)
    return round(sum(right) / sum(count), 5)


def _split(one: Labelled) -> tuple[Labelled, Labelled]:
    """(training, held out), by a hash of the picture's bytes."""
    out = np.array([hash_share(one.picture(n).hex()) < HELD_OUT for n in range(len(one))])
    return _chosen(one, np.flatnonzero(~out), one.name), _chosen(one, np.flatnonzero(out), f"{one.name}, held out")


def _part(one: Labelled, share: float) -> Labelled:
    """A fraction of a set, evenly spaced and the same for all arms and seeds."""
    count = max(1, round(len(one) * share))
    return _chosen(one, np.linspace(0, len(one) - 1, count).astype(np.int64), one.name)


def _chosen(one: Labelled, numbers: Any, name: str) -> Labelled:
    places = [int(n) for n in numbers]
    return Labelled(name, [one.labels[n] for n in places], lambda n: one.picture(places[n]))


def summary(results: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """share -> arm -> set -> mean and spread over seeds, in percent."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for share, arm in sorted({(r["share"], r["arm"]) for r in results}):
        runs = [r["accuracy"] for r in results if (r["share"], r["arm"]) == (share, arm)]
        for name in runs[0]:
            values = [100 * run[name] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cell = {"mean": round(statistics.mean(values), 2), "spread": round(spread, 2), "seeds": len(values)}
            table.setdefault(f"{share:.0%}", {}).setdefault(arm, {})[name] = cell
    return table


def plot(table: dict[str, Any], names: list[str], path: Path) -> None:
    """Plot means as bars with their spread over seeds, a panel for each set and fraction of the crops."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(names), len(table), figsize=(5.2 * len(table), 2.6 * len(names)), squeeze=False)
    for row, name in zip(axes, names, strict=True):
        for axis, (share, arms) in zip(row, table.items(), strict=True):
            shown = [arm for arm in ARMS if arm in arms]
            means = [arms[arm][name]["mean"] for arm in shown]
            axis.barh([ARMS[a] for a in shown], means, xerr=[arms[a][name]["spread"] for a in shown], color="#4878a8")
            axis.set_title(f"{name}, {share} of the crops", fontsize=10)
            axis.invert_yaxis()
            axis.grid(axis="x", alpha=0.3)
            axis.set_xlim(0, 1.2 * max(means))
            for n, arm in enumerate(shown):
                cell = arms[arm][name]
                axis.text(cell["mean"] + cell["spread"], n, f" {cell['mean']:.1f}", va="center", fontsize=8)
    axes[-1][0].set_xlabel("word accuracy, letters and digits, %")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Embed, pre-train and fine-tune what is missing, each in its own process, `--jobs` at a time; then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--train", nargs="+", required=True)
    parser.add_argument("--val", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", default=list("abcef"), choices=list(ARMS), help="a and b are always run")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 1.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--pretrain-steps", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs, which share the cores evenly")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # in a process of its own: an arm, or arm,share,seed
    args = parser.parse_args()
    args.arms = sorted({"a", "b", *args.arms})
    if args.one:
        arm, *which = args.one.split(",")
        print(json.dumps(one_run(args, arm, float(which[0]), int(which[1])) if which else one_pretraining(args, arm)))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    embed(args)
    list(_each(sorted({PRETRAINED[arm] for arm in args.arms}), args.jobs))
    path = args.out / "results.jsonl"
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(r["arm"], r["share"], r["seed"]) for r in results}
    todo = [(a, s, n) for n in args.seeds for s in args.shares for a in args.arms if (a, s, n) not in done]
    for result in _each([f"{arm},{share},{seed}" for arm, share, seed in todo], args.jobs):
        results.append(result)
        with path.open("a") as file:
            file.write(json.dumps(result) + "\n")
        say(f"{len(results)} runs done: {result}")
    table = summary(results)
    (args.out / "gain.json").write_text(json.dumps({"arms": ARMS, "steps": args.steps, "table": table}, indent=2))
    names = [*(one.name for path in args.val for one in labelled(path)), "held out"]
    plot(table, names, args.out / "gain.png")
    most = table[f"{max(args.shares):.0%}"]
    gain = {name: round(most["b"][name]["mean"] - most["a"][name]["mean"], 2) for name in names}
    print(json.dumps({"bench": "pretraining_gain", "points": gain, "ratio": gain[names[0]], "goal": 5, "table": table}))


def _each(tasks: list[str], jobs: int) -> Iterator[Any]:
    """Run each task in a process of its own, `jobs` at a time; yields what each prints last."""
    cores = {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // jobs))}

    def run(task: str) -> Any:
        command = [sys.executable, "-m", "bench.pretraining_gain", *sys.argv[1:], "--one", task]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **cores}, check=False)
        if done.returncode:
            sys.exit(f"{task} failed (exit code {done.returncode}): run the same command to continue from here")
        return json.loads(done.stdout.splitlines()[-1])

    with ThreadPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(run, task) for task in tasks]):
            yield future.result()


if __name__ == "__main__":
    main()
