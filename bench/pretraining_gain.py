"""What pre-training on text is worth, by how many pictures have labels: none, a hundred, all.

    python -m bench.pretraining_gain --words WORDS.txt --photos PHOTOS --fonts DIR --train LMDB... --val LMDB --out DIR

One recogniser throughout: wordclip2's image tower, frozen, and a one-layer decoder that reads its tokens directly. Only
what the decoder did before differs:

    scratch     nothing
    language    pre-trained on memories of zeros: it knows words, and no rows
    untrained   pre-trained on memories of an untrained text tower: it can read rows, of another space
    pictures    trained on drawn pictures of the same words instead, as many as can be drawn and encoded in the time in
                which all words were embedded, for as many steps
    text        pre-trained on text memories
    noise       the same with Gaussian noise of half the rows' norm

Each is read without any labelled picture, and after fine-tuning on as many as --labels says. Every arm has decoders of
its own for every seed. If stopped, the same command goes on. DIR/results.jsonl has a line a run, gain.png the plot; the
last line on stdout is the gain of the better of text and noise over scratch, in points, for each number of labels.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.gain_plot import plot
from cache.space import open_space
from commands.gather import cached_tokens, labelled_sets
from pipeline.convert import space_tower
from pipeline.embed_crops import embed_crops
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from sources.drawn.fonts import Font, find_fonts
from sources.drawn.photographs import photographs
from sources.drawn.render import Picture, render
from sources.labelled import Labelled
from sources.words import Reading, words
from train.data.crop_batches import CachedTokens
from train.data.crops import usable
from train.finetune import Material, finetune
from train.finetune_options import FinetuneOptions
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.batched import read_crops
from train.reading.result import scored
from train.run import LAST, load_checkpoint, load_recogniser, zero_label_recogniser
from wordclip.show import png

ARMS = {
    "scratch": "from scratch",
    "language": "language model",
    "untrained": "untrained tower's text",
    "pictures": "drawn pictures",
    "text": "text",
    "noise": "text with noise",
}
MODEL, CPU = "wordclip2", torch.device("cpu")
TRAINED, UNTRAINED = f"{MODEL}.shipped", f"{MODEL}.untrained"  # spaces


def say(text: str) -> None:
    """Print progress on stderr; the figures go to stdout."""
    print(text, file=sys.stderr, flush=True)


class Comparison:
    """The folder in which everything is, and what was asked for."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked, self.out, self.cache = asked, asked.out, asked.out / "cache"
        self.out.mkdir(parents=True, exist_ok=True)
        self._embed()
        self.space = open_space(self.cache, TRAINED)
        self.tower = space_tower(self.space, None)
        self.val, self.crops = labelled_sets(asked.val, "train"), labelled_sets(asked.train, "train")
        self.tokens = cached_tokens(self.space, self.tower, [*self.val, *self.crops], "cpu")

    def _embed(self) -> None:
        """Make two spaces with the words' memories, and note how long the trained one took."""
        for weights in ("shipped", "untrained:0"):
            note = self.out / f"embedded-{weights.partition(':')[0]}"
            if not note.exists():
                encoder, began = Encoder(MODEL, weights, precision="fp32", device="cpu"), time.monotonic()
                embed_text(self.cache, encoder, collect(words(self.asked.words, Reading())), "words", say)
                note.write_text(f"{time.monotonic() - began:.1f}")

    def pretrained(self, arm: str, seed: int) -> Path:
        """The run whose decoder an arm starts from, made if need be. For scratch, only its shape counts."""
        if arm == "scratch":
            return self.pretrained("text", seed)
        out = self.out / f"{arm}-{seed}"
        if not (out / "finished").exists():
            shutil.rmtree(out, ignore_errors=True)
            if arm == "pictures":
                self._learn_pictures(out, seed)
            else:
                self._learn_text(out, arm, seed)
            (out / "finished").touch()
        return out

    def _learn_text(self, out: Path, arm: str, seed: int) -> None:
        options = PretrainOptions(
            ["words"], out, cache=self.cache, space=UNTRAINED if arm == "untrained" else TRAINED, decoder="nrtr",
            depth=1, batch=128, steps=self.asked.steps, eval_every=self.asked.steps, eval_words=500, lr=2e-3, seed=seed,
            perturb="gaussian(50%)" if arm == "noise" else None, zero_memory=arm == "language", device="cpu",
            precision="fp32",
        )  # fmt: skip
        pretrain(options, say)

    def _learn_pictures(self, out: Path, seed: int) -> None:
        """A decoder trained on drawn pictures, written as if it had been pre-trained."""
        text = self.pretrained("text", seed)
        drawn, bank = self._drawn(seed)
        options = self._finetuning(text, out, self.asked.steps, seed)
        options = replace(options, scratch=True, batch=128, lr=2e-3)
        finetune(options, Material([[drawn]], self.val, self.space, self.tower, bank), say)
        decoder = load_recogniser(out, LAST)[0].decoder.state_dict()
        shutil.rmtree(out)
        shutil.copytree(text, out)
        (out / "finished").unlink()
        torch.save({**load_checkpoint(text), "model": decoder}, out / "best.pt")

    @cached_property
    def drawing(self) -> tuple[list[str], list[Font], list[Picture]]:
        """What pictures are drawn from: words, fonts, photographs."""
        wanted = sorted(set(words(self.asked.words, Reading())))
        characters = sorted({character for word in wanted for character in word})
        return wanted, find_fonts(self.asked.fonts, characters), photographs([self.asked.photos])

    def _drawn(self, seed: int) -> tuple[Labelled, CachedTokens]:
        """Pictures of words, and their tokens: what can be drawn and encoded in the time that the words took."""
        rng, limit = random.Random(f"draw {seed}"), float((self.out / "embedded-shipped").read_text())
        wanted, fonts, grounds = self.drawing
        labels, pictures, began = list[str](), list[bytes](), time.monotonic()
        while time.monotonic() - began < limit:
            some = [rng.choice(wanted) for _ in range(100)]
            new = [png(Image.fromarray(render(word, fonts, grounds, rng).picture)) for word in some]
            named = ((f"drawn {seed}/{n}", picture) for n, picture in enumerate(new, len(labels)))
            embed_crops(self.space, self.tower, CPU, named, len(new), lambda text: None)
            labels, pictures = labels + some, pictures + new
        say(f"{len(labels):,} pictures drawn and encoded in {limit:.0f} s")
        drawn = Labelled(f"drawn {seed}", labels, pictures.__getitem__)
        return drawn, cached_tokens(self.space, self.tower, [drawn], "cpu")

    def _finetuning(self, init: Path, out: Path, steps: int, seed: int) -> FinetuneOptions:
        return FinetuneOptions(
            init, ["x"], ["y"], out, freeze=True, no_fmu=True, batch=64, lr=1e-3, steps=steps, eval_every=steps,
            eval_words=10_000, augment=0.0, seed=seed, workers=0, device="cpu", precision="fp32",
        )  # fmt: skip

    def accuracy(self, arm: str, labels: int, seed: int) -> float:
        """Word accuracy over letters and digits, case ignored, on --val, as a share of 1."""
        init = self.pretrained(arm, seed)
        if not labels:
            recogniser, _, _ = zero_label_recogniser(init, self.tower)
            crops = usable(self.val, recogniser.charset, recogniser.config.decoder.max_length)
            return scored(read_crops(recogniser, crops, CPU, "fp32", 0, self.tokens)[0]).accuracy_36
        out = self.out / "finetuned"
        shutil.rmtree(out, ignore_errors=True)
        steps = self.asked.finetune_steps[self.asked.labels.index(labels)]
        options = replace(
            self._finetuning(init, out, steps, seed), scratch=arm == "scratch", other_space=arm == "untrained"
        )
        total = sum(len(one) for one in self.crops)
        some = [[part(one, labels / total)] for one in self.crops]
        done = finetune(options, Material(some, self.val, self.space, self.tower, self.tokens), say)
        return done.scores["accuracy_36"]


def part(one: Labelled, share: float) -> Labelled:
    """A fraction of a set, evenly spaced and the same for all arms and seeds."""
    places = np.linspace(0, len(one) - 1, max(1, round(len(one) * share))).astype(int).tolist()
    return Labelled(one.name, [one.labels[n] for n in places], lambda n: one.picture(places[n]))


def table(results: list[dict[str, Any]]) -> dict[str, dict[int, dict[str, float]]]:
    """arm -> number of labels -> mean, spread (standard deviation) and number of seeds, in percent."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for arm, labels in sorted(
        {(r["arm"], r["labels"]) for r in results}, key=lambda key: ([*ARMS].index(key[0]), key[1])
    ):
        values = [100 * r["accuracy"] for r in results if (r["arm"], r["labels"]) == (arm, labels)]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        cell = {"mean": round(statistics.mean(values), 2), "spread": round(spread, 2), "seeds": len(values)}
        found.setdefault(arm, {})[labels] = cell
    return found


def main() -> None:
    """Run what is missing, seed after seed; then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", required=True)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--fonts", nargs="+", required=True)
    parser.add_argument("--train", nargs="+", required=True)
    parser.add_argument("--val", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--labels", nargs="+", type=int, default=[100, 700, 6944])
    parser.add_argument("--finetune-steps", nargs="+", type=int, default=[200, 400, 1000], help="one for each --labels")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=450, help="of 128 words, of pre-training")
    asked = parser.parse_args()
    comparison, path = Comparison(asked), asked.out / "results.jsonl"
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(r["arm"], r["labels"], r["seed"]) for r in results}
    for seed in asked.seeds:
        for labels in (0, *asked.labels):
            for arm in asked.arms:
                if (arm, labels, seed) not in done and (arm, labels) != ("scratch", 0):
                    accuracy = round(comparison.accuracy(arm, labels, seed), 5)
                    results.append({"arm": arm, "labels": labels, "seed": seed, "accuracy": accuracy})
                    say(f"RESULT {results[-1]}")
                    with path.open("a") as file:
                        file.write(json.dumps(results[-1]) + "\n")
    found = table(results)
    plot(found, ARMS, asked.out / "gain.png")
    gain = {
        labels: round(
            max(found[arm][labels]["mean"] for arm in ("text", "noise")) - found["scratch"][labels]["mean"], 2
        )
        for labels in asked.labels
    }
    print(json.dumps({"bench": "pretraining_gain", "points": gain, "goal": [20, 10, 3], "table": found}))


if __name__ == "__main__":
    main()
