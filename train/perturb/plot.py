"""Draws where text rows, photograph tokens and word images' tokens lie, before and after a perturbation.

dptr cache plot --corpus en --bank photos --data svt_train --perturb "orp(10%)" --out plots
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache.errors import WrongUse
from cache.space import Space
from models.charset import Charset
from sources.cleaning import MAX_LENGTH
from sources.labelled import Labelled
from train.data.crop_batches import CachedTokens
from train.data.crops import usable
from train.data.word_batches import MemoryLoader
from train.data.words import read_words
from train.perturb import Perturbation, perturbation
from train.perturb.material import WORDS, material_of, mean_row_norm, rows_of, sampled

MOST = 3000  # points of one kind
TEXT, PHOTOGRAPHS, PICTURES = "text rows", "photographs' tokens", "word images' tokens"
COLOURS = {TEXT: "#2b6cb0", PHOTOGRAPHS: "#a0aec0", PICTURES: "#dd6b20"}


@dataclass(frozen=True)
class Gap:
    """How far rows are from others, which have a norm of their own."""

    norm: float  # mean L2 norm
    distance: float  # of the means, as a share of the mean norm of both
    cosine: float  # of the means


def gap(rows: Tensor, others: Tensor) -> Gap:
    """Between rows (n, D) and others (m, D)."""
    a, b = rows.mean(0), others.mean(0)
    scale = (mean_row_norm(rows) + mean_row_norm(others)) / 2
    cosine = float(torch.nn.functional.cosine_similarity(a, b, dim=0))
    return Gap(mean_row_norm(rows), float((a - b).norm()) / scale, cosine)


def plane(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The two directions (D, 2) in which rows (n, D) vary most, and their mean (D,)."""
    mean = rows.mean(0)
    _, _, directions = torch.linalg.svd(rows - mean, full_matrices=False)
    return directions[:2].T, mean


def draw_all(
    space: Space,
    corpus: str,
    bank: str | None,
    pictures: tuple[Sequence[Labelled], CachedTokens] | None,
    kinds: Sequence[str],
    folder: Path,
) -> dict[str, dict[str, Any]]:
    """A drawing in `folder` for each perturbation; returns its gaps by its name.

    `pictures` are sets of word images and the tokens of all of them. Raises WrongUse as `perturbation`, for a corpus or
    bank that does not exist, or for tokens of another width than the memories.
    """
    asked = [perturbation(kind, bank) for kind in kinds]
    loader = MemoryLoader(space, torch.device("cpu"))
    charset = Charset("".join(sorted(set("".join(space.existing_corpus(corpus).labels())))))
    words, _ = read_words(space, [corpus], charset, MAX_LENGTH)
    some, material = sampled(words), material_of(space, loader, words, bank)
    (memory, mask), numbers = loader.load(some), torch.from_numpy(some.memories)
    sides = {TEXT: material.rows}
    if bank:
        sides[PHOTOGRAPHS] = material.tokens
    if pictures:
        crops = usable(pictures[0], charset, MAX_LENGTH, strict=False).evenly(WORDS)
        (batch,) = pictures[1].batches(crops, [range(len(crops))])
        if batch.pictures.shape[-1] != loader.width:
            raise WrongUse(
                f"the image tower gives {batch.pictures.shape[-1]} values per token and memories have {loader.width}: "
                "embed the words with --layout shared, or leave out --data."
            )
        sides[PICTURES] = batch.pictures.flatten(0, 1).float()
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, kind in enumerate(asked, 1):
        kind.prepare(material)
        path = folder / f"{number}-{''.join(c if c.isalnum() else '-' for c in str(kind)).strip('-')}.png"
        found[path.name] = {what: asdict(g) for what, g in draw(sides, kind, memory, mask, path, numbers).items()}
    return found


def draw(
    before: Mapping[str, Tensor],
    perturbation: Perturbation,
    memory: Tensor,
    mask: Tensor | None,
    path: Path,
    numbers: Tensor | None = None,
) -> dict[str, Gap]:
    """Plot all sides before and after `perturbation`; returns the gap from text rows to each other side, both times.

    `before` has the rows (n, D) of each side, TEXT among them; `memory` (B, M, D), `mask` and `numbers` are the same
    text as a batch. Word images are moved too where the perturbation says that reading does so.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    moved, moved_mask = perturbation(memory, mask, torch.Generator(memory.device).manual_seed(0), numbers)
    after = {**before, TEXT: rows_of(moved, moved_mask)}
    if PICTURES in before:
        after[PICTURES] = perturbation.inference(before[PICTURES][None])[0]
    shown = {name: _some(rows) for name, rows in before.items()}
    directions, mean = plane(torch.cat(list(shown.values())))
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 5), sharex=True, sharey=True, layout="constrained")
    gaps = {}
    for axis, title, sides in zip(axes, ("as cached", str(perturbation)), (before, after), strict=True):
        for name in (PHOTOGRAPHS, PICTURES, TEXT):
            if name in sides:
                x, y = ((_some(sides[name]) - mean) @ directions).T.tolist()
                axis.scatter(x, y, s=3, alpha=0.35, color=COLOURS[name], linewidths=0)
                label = f"{name}, norm {mean_row_norm(sides[name]):.3g}"
                if name != TEXT:
                    found = gaps[f"{name}, {title}"] = gap(sides[TEXT], sides[name])
                    label += f", gap {found.distance:.2f}"
                axis.scatter([], [], s=24, color=COLOURS[name], label=label)
        axis.set_title(title, fontsize=10)
        axis.legend(fontsize=8, loc="upper right")
        axis.grid(alpha=0.2)
    figure.suptitle("two directions in which all rows vary most; gap: distance of the means over the norm", fontsize=9)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return gaps


def _some(rows: Tensor) -> Tensor:
    """At most MOST of rows, evenly spaced, in fp32 on the CPU."""
    return rows[:: max(1, len(rows) // MOST)].float().cpu()
