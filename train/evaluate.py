"""Evaluates a pre-trained decoder on held-out words of its cache: `dptr evaluate RUN`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cache.errors import DptrError
from cache.fingerprint import Fingerprint
from cache.space import Space, open_space
from machine import autocast, choose_device
from train.batches import MemoryLoader, Words, read_words, split
from train.decoder import Decoder, confidence
from train.run import load_run
from train.score import Score, edit_distance, score

BATCH = 256


@dataclass(frozen=True)
class Evaluation:
    """Scores over all words and by length; and every word with its reading, the worst first."""

    run: str
    checkpoint_step: int
    space: str
    corpora: list[str]
    scores: Score
    by_length: dict[str, Score]
    readings: list[tuple[str, str]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_memories(decoder: Decoder, loader: MemoryLoader, words: Words, precision: str) -> list[tuple[str, float]]:
    """What a decoder reads from unperturbed memories, left to right with one refinement, and how sure it is.

    In the order of `words`.
    """
    decoder.eval()
    order = sorted(range(len(words)), key=lambda n: len(words.labels[n]))
    readings = [("", 0.0)] * len(words)
    with tqdm(total=len(words), desc="read", unit="word", delay=2, leave=False) as progress:
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            memory, mask = loader.load(words.take(part))
            with autocast(loader.device, precision):
                ids, shares = decoder.read(memory, mask)
            for n, *reading in zip(part, decoder.charset.decode(ids), confidence(shares).tolist(), strict=True):
                readings[n] = (reading[0], reading[1])
            progress.update(len(part))
    return readings


def evaluate(
    run: Path,
    cache: Path | None = None,
    corpora: list[str] | None = None,
    limit: int | None = None,
    device: str = "auto",
) -> Evaluation:
    """Read the held-out words of a run's cache with its best checkpoint.

    `corpora` other than the run's own are read whole but for words the run may have trained on; `limit` takes the
    first words in the order of their hash. Raises WrongUse for a run or cache that is not there, DptrError for a cache
    of another encoder or when no word is held out.
    """
    decoder, config, step = load_run(run)
    space = open_space(cache or Path(config["cache"]), config["space"] if cache is None else None)
    check_space(config, space)
    names = corpora or config["corpora"]
    words, _ = read_words(space, names, decoder.charset, decoder.config.max_length)
    _, held_out = split(words, config["held_out"])
    if not len(held_out):
        raise DptrError(f"none of the {len(words):,} words of {', '.join(names)} is held out: give a larger corpus.")
    held_out = held_out.take(range(min(limit or len(held_out), len(held_out))))
    target = choose_device(device)
    loader = MemoryLoader(space, target, config["zero_memory"])
    texts = [text for text, _ in read_memories(decoder.to(target), loader, held_out, "fp32")]
    pairs = list(zip(held_out.labels, texts, strict=True))
    groups = {f"{low}-{low + 4}": [p for p in pairs if low <= len(p[0]) < low + 5] for low in (1, 6, 11, 16, 21)}
    return Evaluation(
        run=str(run),
        checkpoint_step=step,
        space=space.name,
        corpora=names,
        scores=score(held_out.labels, texts),
        by_length={name: score(*zip(*group, strict=True)) for name, group in groups.items() if group},
        readings=sorted(pairs, key=lambda p: -edit_distance(*p) / len(p[0])),
    )


def check_space(config: dict[str, Any], space: Space) -> None:
    """DptrError, naming the fields, if a run was trained on features of another encoder than this space's."""
    trained = Fingerprint(**config["fingerprint"])
    if trained.digest != space.digest:
        differing = "; ".join(trained.differences(space.fingerprint))
        raise DptrError(
            f"the run was trained on space {config['space']} and this is {space.name}: features of two encoders never "
            f"meet. They differ (the run's / this space's) in {differing}."
        )


def table(done: Evaluation, worst: int = 10) -> str:
    """An evaluation as text: scores over all and by length, then the worst readings."""
    lines = [
        f"{done.run} (step {done.checkpoint_step:,}) on held-out words of {', '.join(done.corpora)} in {done.space}",
        "",
        f"{'length':10}{'words':>8}{'accuracy':>10}{'no case':>10}{'char err':>10}{'1-NED':>8}",
    ]
    for name, s in [*done.by_length.items(), ("all", done.scores)]:
        shares = f"{s.word_accuracy:>10.1%}{s.ignoring_case:>10.1%}{s.character_error:>10.1%}{s.ned:>8.3f}"
        lines.append(f"{name:10}{s.words:>8,}{shares}")
    wrong = [(truth, text) for truth, text in done.readings if truth != text][:worst]
    if wrong:
        lines += ["", f"{'truth':28}read as"] + [f"{truth:28}{text}" for truth, text in wrong]
    return "\n".join(lines)
