"""How the learning rate goes over a run."""

import math

WARM_UP = 0.075  # share of all steps: 1.5 of 20 epochs


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Learning rate at `step` of 0..steps - 1: cosine from peak / 25 to peak over the warm-up, then down to almost 0.

    Smith and Topin, arXiv 1708.07120, with the constants of torch.optim.lr_scheduler.OneCycleLR.
    """
    top = WARM_UP * steps - 1
    if step <= top:
        start, end, share = peak / 25, peak, step / top
    else:
        start, end, share = peak, peak / 25e4, (step - top) / (steps - 1 - top)
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
