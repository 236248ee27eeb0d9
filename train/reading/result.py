"""The results of an evaluation: scores by set, overall and by length, and every reading; as a table and as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from rapidfuzz.distance import Levenshtein

from cache.report import columns, printable
from train.reading.score import Score, score

FIVES = {f"{low}-{low + 4}": range(low, low + 5) for low in (1, 6, 11, 16, 21)}
GROUPS = {"0": range(1), **FIVES, "26 and more": range(26, 1 << 20)}
COLUMNS = ("words", "36", "62", "all", "char err", "1-NED")
LEGEND = "36: letters and digits, ignoring case; 62: letters and digits, case-sensitive; all: every character"


@dataclass(frozen=True)
class Reading:
    """One word: its true text, the text read, the confidence (0 to 1), and the word's number in its source."""

    truth: str
    text: str
    confidence: float
    number: int

    @property
    def right(self) -> bool:
        """Whether every character is right."""
        return self.truth == self.text

    @property
    def error(self) -> float:
        """The character error of this word: edit distance over the length of the truth."""
        return Levenshtein.distance(self.truth, self.text) / max(1, len(self.truth))

    @property
    def badness(self) -> tuple[float, float]:
        """What every list of readings is sorted by: the error; of equal errors, the more confident reading is worse."""
        return self.error, self.confidence


def worst_first(readings: Iterable[Reading]) -> list[Reading]:
    """Readings by decreasing badness; equals keep their order."""
    return sorted(readings, key=lambda r: r.badness, reverse=True)


def scored(readings: Sequence[Reading]) -> Score:
    """The score of readings, of which there must be at least one."""
    return score([r.truth for r in readings], [r.text for r in readings])


@dataclass(frozen=True)
class SetResult:
    """One set of words. `left_out` counts those that were not read, by reason; readings come worst first."""

    name: str
    score: Score
    left_out: dict[str, int]
    readings: list[Reading]


@dataclass(frozen=True)
class Evaluation:
    """All sets of an evaluation."""

    run: str
    checkpoint_step: int
    sets: list[SetResult]

    @cached_property
    def readings(self) -> list[Reading]:
        """The readings of all sets, worst first."""
        return worst_first(r for s in self.sets for r in s.readings)

    @cached_property
    def scores(self) -> Score:
        """Scores over the words of all sets: the mean weighted by the number of words."""
        return scored(self.readings)

    @property
    def plain_mean(self) -> dict[str, float]:
        """The mean of each figure over sets, with equal weights."""
        figures = [s.score.figures() for s in self.sets]
        return {name: sum(f[name] for f in figures) / len(figures) for name in figures[0]}

    @property
    def by_length(self) -> dict[str, Score]:
        """Scores of the words of all sets, grouped by true length."""
        readings = self.readings
        groups = {name: [r for r in readings if len(r.truth) in lengths] for name, lengths in GROUPS.items()}
        return {name: scored(group) for name, group in groups.items() if group}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.run,
            "checkpoint_step": self.checkpoint_step,
            "scores": asdict(self.scores),
            "plain_mean": self.plain_mean,
            "by_length": {name: asdict(s) for name, s in self.by_length.items()},
            "sets": [asdict(s) for s in self.sets],
        }


def set_result(name: str, readings: Sequence[Reading], left_out: Mapping[str, int]) -> SetResult:
    """Score the readings of one set."""
    return SetResult(name, scored(readings), dict(left_out), worst_first(readings))


def table(done: Evaluation, worst: int = 10) -> str:
    """An evaluation as text: sets with their means, scores by length, what was left out, the worst readings."""
    rows = [("set", *COLUMNS), *(_row(s.name, s.score) for s in done.sets)]
    if len(done.sets) > 1:
        plain = Score(words=done.scores.words, **done.plain_mean)
        rows += [_row("mean, weighted", done.scores), _row("mean, plain", plain)]
    rows += [("",) * len(rows[0]), ("length", *COLUMNS), *(_row(name, s) for name, s in done.by_length.items())]
    lines = [f"{printable(done.run)} (step {done.checkpoint_step:,})", "", *columns(rows), "", LEGEND]
    lines += [f"{printable(s.name)}: {count:,} left out: {why}" for s in done.sets for why, count in s.left_out.items()]
    wrong = [(r.truth, r.text, f"{r.confidence:.0%}") for r in done.readings if not r.right][:worst]
    if wrong:
        lines += ["", *columns([("truth", "read as", "confidence"), *wrong], left=2)]
    return "\n".join(lines)


def _row(name: str, s: Score) -> tuple[str, ...]:
    shares = (f"{share:.1%}" for share in (s.accuracy_36, s.accuracy_62, s.word_accuracy, s.character_error))
    return name, f"{s.words:,}", *shares, f"{s.ned:.3f}"
