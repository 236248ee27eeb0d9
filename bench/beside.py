"""How many words the shipped reader gets right, and how many PP-OCR's small recogniser, of the same crops.

    python -m bench.beside SET...

Each SET is what `dptr evaluate --data` takes. Letters and digits are compared, whatever their case, and accents are
left out on both sides. `both` is how many either of them reads: what the best of the two could. Without rapidocr
(bench/rapid.py) there is nothing to compare with. One core; PP-OCR takes a minute for 2,000 crops.
"""

import json
import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from bench import rapid
from bench.machine import about
from models.charset import Charset
from sources.cleaning import MAX_LENGTH, clean
from sources.labelled import labelled
from sources.pictures import decode
from train.data.crops import Crops, usable
from train.reading.evaluate import evaluate_crops
from train.reading.score import alphanumeric
from train.shipped import shipped_reader


def theirs(crops: Crops) -> dict[int, str]:
    """What PP-OCR reads in each crop, by its number in the set."""
    reader, found = rapid.recogniser(), {}
    if reader is None:
        sys.exit(2)
    for n, number in enumerate(crops.numbers.tolist()):
        found[number] = rapid.read(reader, np.asarray(decode(crops.picture(n))))
    return found


def main() -> None:
    """Read and print."""
    if len(sys.argv) < 2 or "--help" in sys.argv:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    result = {}
    for source in sys.argv[1:]:
        for one in labelled(source):
            crops = usable([one], Charset(), MAX_LENGTH, strict=False)
            other = theirs(crops)
            (ours,) = evaluate_crops(shipped_reader(), [one]).sets
            words = [(bare(r.truth), bare(r.text), bare(other[r.number])) for r in ours.readings]
            right = np.array([[a == truth, b == truth] for truth, a, b in words if truth])
            shares = {"ours": right[:, 0], "theirs": right[:, 1], "both": right.any(1)}
            rounded = {name: round(float(share.mean()), 4) for name, share in shares.items()}
            result[one.name] = {"words": len(right), **rounded}
            print(one.name, result[one.name], flush=True)
    gain = np.mean([one["ours"] - one["theirs"] for one in result.values()])
    print(json.dumps({**about("beside"), "sets": result, "ratio": round(float(gain), 4), "goal": 0}))


def bare(text: str) -> str:
    """Letters and digits without accents or case."""
    return alphanumeric(clean(text)).casefold()


if __name__ == "__main__":
    main()
