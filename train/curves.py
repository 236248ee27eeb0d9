"""Draws the curves of a run: its training loss, and how it read what it did not train on."""

import json
from pathlib import Path
from typing import Any

FEWEST = 4  # lines of training, for a curve
FIGURES = {"word_accuracy": "word accuracy", "ignoring_case": "ignoring case", "ned": "1-NED", "accuracy_36": "36"}
# The first curves are wide and the last are thin: of curves that lie on each other, each still shows
WIDTHS, MARKERS = (7.0, 4.5, 2.5, 1.0), ("o", "s", "D", ".")


def draw_curves(metrics: Path, out: Path, read: str) -> None:
    """Plot metrics.jsonl as a PNG; does nothing before training has logged FEWEST times. `read` says what was read."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    train, held_out = ([line for line in lines if line["group"] == group] for group in ("train", "held_out"))
    if len(train) < FEWEST:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

    figure = Figure((11, 4), dpi=110)
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.13, top=0.92, wspace=0.12)
    _plot(loss, train, "loss", "loss", 1.5, "o")
    loss.set(title="training loss", xlabel="step", yscale="log")
    loss.yaxis.set(
        major_locator=LogLocator(subs=(1.0, 2.0, 5.0)),
        major_formatter=StrMethodFormatter("{x:g}"),
        minor_locator=NullLocator(),
    )
    for (name, label), width, marker in zip(FIGURES.items(), WIDTHS, MARKERS, strict=True):
        _plot(accuracy, held_out, name, label, width, marker)
    accuracy.set(title=read, xlabel="step", ylim=(0, 1))
    accuracy.legend()
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
        axes.set_xlim(0, 1.02 * max(line["step"] for line in lines))
        axes.xaxis.set(major_locator=MaxNLocator("auto", integer=True), major_formatter=StrMethodFormatter("{x:,.0f}"))
    figure.savefig(out)


def _plot(axes: Any, lines: list[dict[str, Any]], name: str, label: str, width: float, marker: str) -> None:
    points = [(line["step"], line[name]) for line in lines if name in line]
    few = marker if len(points) < 30 else None
    steps, values = [x for x, _ in points], [y for _, y in points]
    axes.plot(steps, values, label=label, linewidth=width, marker=few, markersize=width + 4)
