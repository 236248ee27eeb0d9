"""What a comparison found: mean and spread of each perturbation, and whether its gain is more than chance."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Student's t: 97.5 % of it lies below, by degrees of freedom
T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120)
MANY = 1.960  # the same for more
SHOWN = 15.0  # points below the best to which a plot reaches


@dataclass(frozen=True)
class Cell:
    """A perturbation and a measure, over all seeds: percentages."""

    mean: float
    spread: float  # standard deviation; 0 for one run
    runs: int
    gain: float  # over the first perturbation
    margin: float | None  # half the width of the gain's 95 % interval by Student's t; None for one run

    @property
    def beyond_chance(self) -> bool:
        return self.margin is not None and abs(self.gain) > self.margin


Table = dict[str, dict[str, Cell]]  # perturbation -> measure -> cell


def table_of(results: Sequence[dict[str, Any]], kinds: Sequence[str]) -> Table:
    """Every perturbation's figures, those of the first being what the others' gain is over."""
    found: Table = {}
    for kind in kinds:
        found[kind] = {}
        for measure in results[0]["accuracy"]:
            found[kind][measure] = _cell(_percents(results, kind, measure), _percents(results, kinds[0], measure))
    return found


def _percents(results: Sequence[dict[str, Any]], kind: str, measure: str) -> list[float]:
    return [100 * result["accuracy"][measure] for result in results if result["perturb"] == kind]


def _cell(ours: list[float], first: list[float]) -> Cell:
    gain, n = statistics.mean(ours) - statistics.mean(first), len(ours)
    spread, margin = statistics.stdev(ours) if n > 1 else 0.0, None
    if n > 1 and len(first) > 1:  # Student's interval for two samples, with their pooled variance
        freedom = n + len(first) - 2
        pooled = ((n - 1) * spread**2 + (len(first) - 1) * statistics.variance(first)) / freedom
        quantile = T975[freedom - 1] if freedom <= len(T975) else MANY
        margin = quantile * math.sqrt(pooled * (1 / n + 1 / len(first)))
    return Cell(statistics.mean(ours), spread, n, gain, margin)


def markdown(table: Table) -> str:
    """The table in Markdown: mean ± spread, then the gain over the first perturbation; * marks one beyond chance."""
    measures = list(next(iter(table.values())))
    lines = [f"| perturbation | runs | {' | '.join(f'{m}, % | gain' for m in measures)} |"]
    lines.append("|---|---|" + "---|---|" * len(measures))
    for n, (kind, cells) in enumerate(table.items()):
        parts = [f"`{kind}`", str(cells[measures[0]].runs)]
        for cell in cells.values():
            parts += [
                f"{cell.mean:.1f} ± {cell.spread:.1f}",
                f"{cell.gain:+.1f}{'*' * cell.beyond_chance}" if n else "",
            ]
        lines.append(f"| {' | '.join(parts)} |")
    return "\n".join(lines)


def to_dict(table: Table) -> dict[str, Any]:
    """For JSON."""
    return {kind: {name: asdict(cell) for name, cell in cells.items()} for kind, cells in table.items()}


def plot(table: Table, path: Path) -> None:
    """A panel for each measure: means, with their spread. What is far below the best stands as a number at the edge."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    measures, kinds = list(next(iter(table.values()))), list(table)
    height = 1.4 + 0.32 * len(kinds)
    size = (2.2 + 3.2 * len(measures), height)
    figure, axes = pyplot.subplots(1, len(measures), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, measure in zip(axes[0], measures, strict=True):
        cells = [table[kind][measure] for kind in kinds]
        best = max(c.mean for c in cells)
        shown = [n for n, c in enumerate(cells) if c.mean > best - SHOWN]
        means, spreads = [cells[n].mean for n in shown], [cells[n].spread for n in shown]
        axis.errorbar(means, shown, xerr=spreads, fmt="o", capsize=3)
        for n in {*range(len(cells))} - {*shown}:
            text = f"\N{LEFTWARDS ARROW} {cells[n].mean:.1f}"
            axis.annotate(text, (0, n), xycoords=("axes fraction", "data"), va="center", fontsize=8, color="tab:blue")
        axis.axvline(cells[0].mean, color="grey", linewidth=0.8, linestyle=":")
        axis.set_title(measure, fontsize=10)
        axis.set_xlabel("word accuracy, %")
        axis.grid(axis="x", alpha=0.3)
    axes[0][0].set_yticks(range(len(kinds)), kinds)
    axes[0][0].invert_yaxis()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
