"""A run folder being written: configuration, figures, checkpoints; and what a run that was stopped goes on from."""

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cache.errors import WrongUse
from cache.files import cannot_write, make_folder, write_whole
from train.ranks import Ranks
from train.reading.result import Reading, worst_first
from train.run import load_file, run_config, step_of, steps_of
from train.run_config import RunConfig

KEEP = 3  # checkpoints to go on from
ALONE = Ranks()


class Recorder:
    """A run folder being written. `state` is what to go on from, None for a run that begins.

    Ranks beyond the first read, and write nothing.
    """

    def __init__(self, folder: Path, config: RunConfig, resume: str = "never", ranks: Ranks = ALONE) -> None:
        """Make or continue the folder.

        `resume` is "auto" (continue what is there, if anything is), "never", or a run or checkpoint to go on from.
        WrongUse for a checkpoint that does not exist, a run of another configuration, or one that is finished, which is
        never written over.
        """
        self.folder, self.config, self._ranks = folder, json.loads(json.dumps(config.to_dict())), ranks
        path = ranks.agree(_checkpoint_of(folder, config, resume) if ranks.first else None)
        self.state = load_file(path) if path else None
        if not ranks.first:
            return
        make_folder(folder)
        self._forget_after(self.state["step"] if self.state else 0)
        write_whole(folder / "config.json", (json.dumps(self.config, indent=2) + "\n").encode())
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=self.state["step"] + 1 if self.state else 0)

    def log(self, step: int, group: str, figures: dict[str, float]) -> None:
        """Append figures to metrics.jsonl and TensorBoard under `group` ("train" or "held_out")."""
        if not self._ranks.first:
            return
        try:
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "group": group, **figures}) + "\n")
        except OSError as error:
            raise cannot_write(self.folder / "metrics.jsonl", error) from error
        for name, value in figures.items():
            self._board.add_scalar(f"{group}/{name}", value, step)

    def save(self, model: nn.Module, step: int, scores: dict[str, float], training: dict[str, Any]) -> None:
        """Write a checkpoint to go on from, whole or not at all, and drop the oldest beyond KEEP."""
        self._write(f"step-{step:08}.pt", model, step, scores, {"training": training})
        for path in steps_of(self.folder)[:-KEEP]:
            path.unlink(missing_ok=True)

    def save_best(self, model: nn.Module, step: int, scores: dict[str, float], readings: list[Reading]) -> None:
        """Write the weights that read best, and what they read, the worst first."""
        self._write("best.pt", model, step, scores, {})
        rows = (f"{r.error:.2f}\t{r.truth}\t{r.text}" for r in worst_first(readings))
        lines = ["error\tword\treading", *rows]
        write_whole(self.folder / "held-out.tsv", ("\n".join(lines) + "\n").encode())

    def newest(self) -> Path | None:
        """The last checkpoint to go on from."""
        return next(reversed(steps_of(self.folder)), None)

    def close(self) -> None:
        """Draw the curves and let go of the files."""
        if self._ranks.first:
            self._board.close()
            draw_curves(self.folder / "metrics.jsonl", self.folder / "curves.png")

    def _write(self, name: str, model: nn.Module, step: int, scores: dict[str, float], more: dict[str, Any]) -> None:
        memory = io.BytesIO()
        weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        torch.save({"model": weights, "step": step, "scores": scores, "config": self.config, **more}, memory)
        write_whole(self.folder / name, memory.getbuffer())

    def _forget_after(self, step: int) -> None:
        """Lines and checkpoints that a run which was killed wrote beyond where it goes on."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if _step_of_line(line) <= step]
            write_whole(path, "".join(f"{line}\n" for line in lines).encode())
        for other in steps_of(self.folder):
            if step_of(other) > step:
                other.unlink()


def run_reader(folder: Path) -> str | None:
    """How the run in a folder reads memories, if there is one, so that it goes on in the same order."""
    return run_config(folder).machine.get("reader") if (folder / "config.json").exists() else None


def _step_of_line(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # cut off when the run was killed
        return float("inf")


def _checkpoint_of(folder: Path, config: RunConfig, resume: str) -> Path | None:
    """What a run in `folder` goes on from. Raises as Recorder does."""
    exists = (folder / "config.json").exists()
    if resume == "never" and exists:
        raise WrongUse(f"{folder} already holds a run: choose another --out, or delete it.")
    if resume == "never" or (resume == "auto" and not exists):
        return None
    source = folder if resume == "auto" else Path(resume)
    if not source.exists():
        raise WrongUse(f"there is no run or checkpoint {source} to go on from.")
    if resume != "auto" and exists and source.absolute() not in (folder.absolute(), *folder.absolute().glob("*.pt")):
        raise WrongUse(f"{folder} already holds another run: choose another --out to go on from {source}.")
    before = run_config(source if source.is_dir() else source.parent)
    differing = before.differences(config)
    if differing:
        raise WrongUse(
            f"{source} is a run of another configuration (that run / this command): {'; '.join(differing)}. "
            "Choose another --out, or the same options to go on."
        )
    path = next(reversed(steps_of(source)), None) if source.is_dir() else source
    if path is None and resume != "auto":
        raise WrongUse(f"{source} has no checkpoint to go on from.")
    if path and step_of(path) >= config.resolved["steps"]:
        raise WrongUse(f"{source} already holds a run, which is finished: choose another --out.")
    return path


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
