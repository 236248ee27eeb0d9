"""Writes a run folder: configuration, metrics and checkpoints; and finds the checkpoint to resume a run from."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from cache.errors import WrongUse
from cache.files import cannot_write, make_folder, write_whole
from cache.report import printable
from models.device import choose_precision
from models.recogniser import GUIDE
from train.curves import draw_curves
from train.earlier import Stretch, lead, said, shown, stretches
from train.ranks import ALONE, Ranks
from train.reading.result import Reading, worst_first
from train.run import PERTURBATION, load_file, run_config, step_of, steps_of
from train.run_config import RunConfig

KEEP = 3  # checkpoints to resume from


class Recorder:
    """Writes a run folder. `state` is the checkpoint to resume from, None for a new run.

    Ranks other than the first only read.
    """

    def __init__(self, folder: Path, config: RunConfig, resume: str = "never", ranks: Ranks = ALONE) -> None:
        """Create the folder, or continue the run in it; `earlier` is what it had before, if that was something else.

        `resume` is "auto" (continue the run in the folder, if any), "never", or a run or checkpoint to continue from.
        Raises WrongUse for a checkpoint that does not exist, a run with a different configuration, or a finished run,
        which is never overwritten.
        """
        self.folder, self._ranks = folder, ranks
        self._read = "validation word images" if config.reads_pictures else "held-out words"
        found = ranks.agree(_checkpoint_of(folder, config, resume) if ranks.first else None)
        self.state = load_file(found[0]) if found else None
        self.earlier = _earlier(found[0], found[1], self.state, config) if found and self.state else ()
        self.config = json.loads(json.dumps(replace(config, earlier=self.earlier).to_dict()))
        if not ranks.first:
            return
        make_folder(folder)
        self._forget_after(self.state["step"] if self.state else 0)
        write_whole(folder / "config.json", (json.dumps(self.config, indent=2) + "\n").encode())
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=self.state["step"] + 1 if self.state else 0)

    def going_on(self) -> list[str]:
        """What to say of a run that goes on: from where, and what is different from now on."""
        steps, batch = self.config["resolved"]["steps"], self.config["options"]["batch"]
        return said(self.earlier, self.state["step"], steps, batch, self._ranks.size) if self.state else []

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
        """Write a checkpoint to resume from, completely or not at all, and delete all but the newest KEEP."""
        self._write(f"step-{step:08}.pt", model.state_dict(), step, scores, {"training": training})
        for path in steps_of(self.folder)[:-KEEP]:
            path.unlink(missing_ok=True)

    def save_best(self, model: nn.Module, step: int, scores: dict[str, float], readings: list[Reading]) -> None:
        """Write the weights that read best, without those of a guide, and their readings, worst first."""
        reading = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(GUIDE)}
        self._write("best.pt", reading, step, scores, {})
        rows = (f"{r.error:.2f}\t{printable(r.truth)}\t{printable(r.text)}" for r in worst_first(readings))
        lines = ["error\tword\treading", *rows]
        write_whole(self.folder / "held-out.tsv", ("\n".join(lines) + "\n").encode())

    def keep(self, tensors: dict[str, Tensor]) -> None:
        """Write what the run's perturbation needs when it reads, if anything."""
        if tensors and self._ranks.first:
            there = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
            write_whole(self.folder / PERTURBATION, save(there))

    def newest(self) -> Path | None:
        """The newest checkpoint to resume from."""
        return next(reversed(steps_of(self.folder)), None)

    def close(self) -> None:
        """Draw the curves and close the files."""
        if self._ranks.first:
            self._board.close()
            draw_curves(self.folder / "metrics.jsonl", self.folder / "curves.png", self._read)

    def _write(
        self, name: str, model: dict[str, Tensor], step: int, scores: dict[str, float], more: dict[str, Any]
    ) -> None:
        memory = io.BytesIO()
        weights = {name: tensor.detach().cpu() for name, tensor in model.items()}
        torch.save({"model": weights, "step": step, "scores": scores, "config": self.config, **more}, memory)
        write_whole(self.folder / name, memory.getbuffer())

    def _forget_after(self, step: int) -> None:
        """Delete metrics and checkpoints that a killed run wrote after `step`, where it resumes."""
        path = self.folder / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if _step_of_line(line) <= step]
            write_whole(path, "".join(f"{line}\n" for line in lines).encode())
        for other in steps_of(self.folder):
            if step_of(other) > step:
                other.unlink()


def settled_reader(asked: str, folder: Path, name: str = "reader") -> str:
    """The reader asked for; `auto` is that of the run in the folder, if there is one, so that its order stays.

    `name` is that of config.json: `reader` of memories, `bank_reader` of photographs.
    """
    there = asked == "auto" and (folder / "config.json").exists()
    return str(run_config(folder).machine.get(name, asked)) if there else asked


def settled_precision(precision: str, resume: str, out: Path, device: torch.device) -> str:
    """fp32 or bf16; `auto` is what it was in a run that goes on, since a machine is not equally fast at each start."""
    source = out if resume == "auto" else Path(resume)
    config = (source if source.is_dir() else source.parent) / "config.json"
    if precision == "auto" and resume != "never" and config.exists():
        earlier = run_config(config.parent)
        precision = earlier.resolved.get("precision", earlier.options.precision)  # the first layout has it there
    return choose_precision(precision, device)


def _step_of_line(line: str) -> float:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # cut off when the run was killed
        return float("inf")


def _checkpoint_of(folder: Path, config: RunConfig, resume: str) -> tuple[Path, RunConfig] | None:
    """The checkpoint that a run in `folder` resumes from, and the configuration of its run. Raises as Recorder does."""
    exists = (folder / "config.json").exists()
    if resume == "never" and exists:
        raise WrongUse(f"{folder} already holds a run: choose another --out, or delete it.")
    if resume == "never" or (resume == "auto" and not exists):
        return None
    source = folder if resume == "auto" else Path(resume)
    if not source.exists():
        raise WrongUse(f"there is no run or checkpoint {source} to continue from: check --resume.")
    if resume != "auto" and exists and source.absolute() not in (folder.absolute(), *folder.absolute().glob("*.pt")):
        raise WrongUse(f"{folder} already holds another run: choose another --out to continue from {source}.")
    before = run_config(source if source.is_dir() else source.parent)
    differing = before.differences(config)
    if differing:
        raise WrongUse(
            f"{source} is a run with a different configuration (that run / this command): {'; '.join(differing)}. "
            "Choose another --out, or use the same options to continue it; only length, batch and ranks may change."
        )
    path = next(reversed(steps_of(source)), None) if source.is_dir() else source
    if path is None and resume != "auto":
        raise WrongUse(f"{source} has no checkpoint to continue from: check --resume.")
    return (path, before) if path else None


def _earlier(path: Path, before: RunConfig, state: dict[str, Any], config: RunConfig) -> tuple[Stretch, ...]:
    """What a run had before it goes on from this checkpoint. WrongUse if nothing is left for it to do."""
    if "training" not in state:
        raise WrongUse(f"{path} holds weights alone: continue from a step-*.pt, or start a run with finetune --init.")
    step, steps, batch = state["step"], config.resolved["steps"], config.options.batch
    drawn = state["training"]["progress"]["drawn"]
    earlier = stretches(before.earlier, before.stretch(step, drawn), config.stretch(step, drawn))
    last = math.ceil(steps - lead(earlier, batch))
    if step > last:
        raise WrongUse(
            f"{path.parent} has shown {shown(earlier, step, batch):,} words in {step:,} steps already, and this "
            f"command asks for {steps * batch:,} in all: raise --steps or --epochs, or choose another --out."
        )
    if step == last:
        raise WrongUse(
            f"{path.parent} already holds a finished run: raise --steps or --epochs to go on, or choose another --out."
        )
    return earlier
