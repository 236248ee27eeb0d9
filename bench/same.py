"""What no refactoring may change: `python -m bench.same` must print the same lines before and after.

Each line is one result and its value or SHA-256: the bytes of a cache, losses and weights after 140 steps of each
decoder and a few of fine-tuning, texts read from memories and from pictures. Everything is made here from fixed seeds
and computed in fp32 by one thread. Compare lines only within one machine and one version of torch: two machines round
differently.
"""

import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from typer.testing import CliRunner

from cli import app

DECODERS = ("parseq", "nrtr", "abinet", "ctc")
WORDS = [*map(str, range(200)), *(a + b for a in ("old", "New", "RED") for b in ("shop", "Bar", "INN", "'s", "-4"))]
SHAPE = ("--depth", "1", "--width", "64", "--batch", "32")
FINETUNE = ("--train", "crops", "--val", "crops", "--batch", "8", "--steps", "6", "--eval-every", "1")


def main() -> None:
    """Print every line."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        _material()
        _run("embed-text", "words.txt", "--corpus", "words", "--precision", "fp32")
        _run("embed-images", "photos", "--bank", "photos", "--precision", "fp32")
        files = sorted(path for path in Path("dptr-cache").rglob("*") if path.is_file() and path.suffix != ".lock")
        _say("bytes of the cache", _hash(*(part for p in files for part in (str(p).encode(), p.read_bytes()))))
        for kind in DECODERS:
            run = Path("runs", kind)
            noise = ("--bank", "photos", "--perturb", "orp(10%)") if kind == "parseq" else ()
            _run(
                "pretrain", "--corpus", "words", "--out", run, "--decoder", kind, *SHAPE, *noise, "--precision", "fp32"
            )
            _learnt(kind, run)
            _say(f"{kind}: held-out words read", _texts(_run("evaluate", run, "--json")))
        run = Path("runs", "reader")
        more = ("--workers", "0", "--augment", "1", "--precision", "fp32")
        _run("finetune", "--init", "runs/parseq", "--out", run, *FINETUNE, *more)
        _learnt("finetune", run)
        _say("crops read by evaluate", _texts(_run("evaluate", run, "--data", "crops", "--json")))
        found = json.loads(_run("read", run, "crops", "--json"))
        _say("crops read by read", _readings((one["image"], one["text"], one["confidence"]) for one in found))


def _material() -> None:
    """Words, photographs of noise and drawn crops."""
    Path("words.txt").write_text("\n".join(WORDS))
    for name in ("photos", "crops"):
        Path(name).mkdir()
    for n in range(3):
        pixels = np.random.default_rng(n).integers(0, 256, (90, 120, 3), np.uint8)
        Image.fromarray(pixels).save(f"photos/{n}.png")
    for n, word in enumerate(WORDS[180:]):
        crop = Image.new("RGB", (96, 28), (250, 240 - n, 200))
        ImageDraw.Draw(crop).text((4, 2), word, "black", font=ImageFont.load_default(20))
        crop.save(f"crops/{n:02}.png")
    lines = (f"{n:02}.png\t{word}\n" for n, word in enumerate(WORDS[180:]))
    Path("crops/labels.tsv").write_text("".join(lines))


def _learnt(name: str, run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["group"] == "train"]
    _say(f"{name}: first and last loss of {len(losses)}", f"{losses[0]!r} {losses[-1]!r}")
    _say(f"{name}: all losses", _hash(repr(losses).encode()))
    weights = torch.load(max(run.glob("step-*.pt")), weights_only=True)["model"]
    _say(
        f"{name}: weights",
        _hash(*(part for k in sorted(weights) for part in (k.encode(), weights[k].numpy().tobytes()))),
    )


def _texts(evaluation: str) -> str:
    readings = [r for one in json.loads(evaluation)["sets"] for r in one["readings"]]
    return _readings((r["truth"], r["text"], r["confidence"]) for r in readings)


def _readings(found: Iterable[tuple[str, str, float]]) -> str:
    return _hash(*sorted(f"{name}\t{text}\t{sure:.6f}".encode() for name, text, sure in found))


def _run(*arguments: Any) -> str:
    """Standard output of a command. Raises RuntimeError with its stderr if it fails."""
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if done.exit_code:
        raise RuntimeError(f"dptr {' '.join(map(str, arguments))}: {done.stderr}") from done.exception
    return done.stdout


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]


def _say(name: str, value: str) -> None:
    print(f"{name:42} {value}", flush=True)


if __name__ == "__main__":
    with contextlib.redirect_stderr(io.StringIO()):
        main()
