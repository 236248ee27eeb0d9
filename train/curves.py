"""The figures of a run as curves: loss, and how held-out words were read."""

import json
from pathlib import Path
from typing import Any

HELD_OUT = {"word_accuracy": "words right", "ignoring_case": "ignoring case", "ned": "1-NED", "accuracy_36": "36"}


def draw_curves(metrics: Path, out: Path) -> None:
    """Draw what metrics.jsonl holds into a PNG; nothing if it holds no line of training."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    train, held_out = ([line for line in lines if line["group"] == group] for group in ("train", "held_out"))
    if not train:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((11, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    _plot(loss, train, "loss", "loss")
    loss.set(title="training loss", xlabel="step", yscale="log")
    for name, label in HELD_OUT.items():
        _plot(accuracy, held_out, name, label)
    accuracy.set(title="held-out words", xlabel="step", ylim=(0, 1))
    accuracy.legend()
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
    figure.savefig(out)


def _plot(axes: Any, lines: list[dict[str, Any]], name: str, label: str) -> None:
    points = [(line["step"], line[name]) for line in lines if name in line]
    axes.plot([x for x, _ in points], [y for _, y in points], marker="o" if len(points) < 30 else None, label=label)
