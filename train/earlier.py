"""What a run had before it went on with another length or another size of batch.

Both its end and the schedule of its learning rate go by the words shown: a run is `steps` steps of `batch` words long,
whatever the size of the batches that it began with. So with the same batch, more steps mean the schedule of the new
length, from the step where the run is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from train.data.plan import Plan

FREE = ("steps", "epochs", "eval_every", "batch", "ranks")  # what may change when a run goes on
FOLLOW = ("lr", "encoder_lr")  # and those that may change with the batch


@dataclass(frozen=True)
class Stretch:
    """Consecutive steps of a run that were taken with other settings than those that it has now."""

    until: int  # the last of these steps
    drawn: int  # batches that the run had taken by then; some may have held no picture
    steps: int  # length of the run, as it was
    batch: int
    lr: float | None
    eval_every: int | None
    ranks: int = 1


def stretches(earlier: Sequence[Stretch], before: Stretch, now: Stretch) -> tuple[Stretch, ...]:
    """The stretches of a run that goes on with other settings or the same.

    `earlier` are those that it had when it was stopped, `before` its settings then, and `now` those that it goes on
    with; both end where it goes on.
    """
    over = tuple(one for one in earlier if one.until < now.until)
    # one that ends later ended with steps that are forgotten now
    last = next((replace(one, until=now.until, drawn=now.drawn) for one in earlier[len(over) :]), before)
    return over if not now.until or last == now else (*over, last)


def shown(earlier: Sequence[Stretch], step: int, batch: int) -> int:
    """How many words a run has shown after `step` steps, the last of them of `batch` words."""
    begins = [0, *(one.until for one in earlier)]
    before = sum((one.until - begin) * one.batch for begin, one in zip(begins, earlier, strict=False))
    return before + (step - begins[-1]) * batch


def lead(earlier: Sequence[Stretch], batch: int) -> float:
    """How many steps of `batch` words a run is further than its number of steps says; below 0: less far."""
    last = earlier[-1].until if earlier else 0
    return shown(earlier, last, batch) / batch - last


def planned(plan: Plan, earlier: Sequence[Stretch]) -> Plan:
    """The plan of a run whose batches are those of `plan` now, and were others before."""
    made: tuple[Plan, int] | None = None
    sizes = [*(one.batch for one in earlier), plan.batch]
    for one, after in zip(earlier, sizes[1:], strict=True):
        if one.batch != after:
            made = Plan(one.batch, plan.seed, before=made), one.drawn
    return replace(plan, before=made)


def said(earlier: Sequence[Stretch], step: int, steps: int, batch: int, ranks: int) -> list[str]:
    """What to say of a run that goes on after `step`, and is `steps` steps of `batch` words long from now on."""
    lines = [f"continuing from step {step:,}"]
    if not earlier or earlier[-1].until != step:
        return lines
    was = earlier[-1]
    if (was.steps, was.batch) != (steps, batch):
        lines.append(
            f"it was to show {was.steps * was.batch:,} words, {was.batch} a step; now it is to show {steps * batch:,}, "
            f"{batch} a step, of which {shown(earlier, step, batch):,} are shown: the learning rate goes on from there "
            "in the schedule of the new length"
        )
    if was.batch != batch:
        lines.append("the rest of the epoch is cut into batches of the new size: no word is left out or shown twice")
    if was.ranks != ranks:
        lines.append(
            f"it had {was.ranks} ranks and has {ranks} from now on: batches and their order stay, and what is drawn at "
            "random in a step does not"
        )
    return lines
