"""Accuracy against the number of labelled pictures, a line for each way of pre-training."""

from collections.abc import Mapping
from pathlib import Path

NONE = 30  # where no labels stand on the logarithmic axis


def plot(table: Mapping[str, Mapping[int, Mapping[str, float]]], names: Mapping[str, str], path: Path) -> None:
    """`table`: arm -> number of labels -> mean and spread in percent; `names`: arm -> what to call it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4.6), layout="constrained")
    for arm, cells in table.items():
        places = [labels or NONE for labels in cells]
        means, spreads = ([cell[name] for cell in cells.values()] for name in ("mean", "spread"))
        axis.errorbar(places, means, yerr=spreads, label=names[arm], marker="o", markersize=4, capsize=3)
    counts = sorted({labels for cells in table.values() for labels in cells})
    axis.set_xscale("log")
    axis.set_xticks([labels or NONE for labels in counts], [f"{labels:,}" if labels else "none" for labels in counts])
    axis.minorticks_off()
    axis.set_xlabel("labelled pictures")
    axis.set_ylabel("word accuracy, letters and digits, %")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    figure.savefig(path, dpi=130)
