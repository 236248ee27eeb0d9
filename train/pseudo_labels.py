"""Pictures without labels: what the reader reads in them, where it is sure, becomes their label.

As in FixMatch (Sohn et al., NeurIPS 2020, arXiv 2001.07685): the moving average of the weights reads a picture as it
is, and the model learns to read the same in an augmented view. Readings below a confidence are not learnt from. All
state is in the checkpoint: the average, the best score so far, and which pictures a step sees follow from its number.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from cache.errors import WrongUse
from models.device import upload
from models.recogniser import Recogniser
from sources.labelled import Labelled
from train.data.crop_batches import CropBatch, TwoViews, load, schedules
from train.data.crops import without_labels
from train.data.plan import Plan
from train.finetune_options import FinetuneOptions
from train.loop import Loop, Loss
from train.progress import Found

READY = 0.5  # accuracy on validation words, letters and digits alone, from which a reader learns from its own readings


class PseudoLabels:
    """Adds unlabelled pictures to the batches and the loss of a run; without any, it changes nothing."""

    def __init__(
        self,
        options: FinetuneOptions,
        sets: Sequence[Labelled],
        recogniser: Recogniser,
        loop: Loop,
        plan: Plan,
        workers: int,
        say: Callable[[str], None],
    ) -> None:
        """Raises WrongUse for several ranks, which would not all know when to begin."""
        self._options, self._recogniser, self._loop, self._say = options, recogniser, loop, say
        self._plan, self._workers, self._broken = plan, workers, dict[int, str]()
        self._crops = without_labels(sets) if sets else None
        if sets and loop.ranks.size > 1:
            raise WrongUse("--unlabelled is for a run on one device: start it without torchrun.")
        if self._crops:
            say(
                f"{len(self._crops):,} unlabelled pictures; from the first evaluation with {READY:.0%} of words read "
                f"right on, as many in a step as labelled ones, and readings of a confidence of {options.confidence:g} "
                "are learnt from"
            )

    @property
    def _ready(self) -> bool:
        return (self._loop.progress.best_scores or {}).get("accuracy_36", 0.0) >= READY

    def beside(self, batches: Iterator[CropBatch]) -> Generator[CropBatch, None, None]:
        """The same batches, with as many unlabelled pictures beside them as soon as the reader is good enough."""
        more: Iterator[CropBatch] | None = None
        for batch in batches:
            if self._crops and more is None and self._ready:
                more = self._views(batch.number)
            if more:
                batch.unlabelled = next(more)
                self._broken |= batch.unlabelled.broken
                if self._crops and len(self._broken) == len(self._crops):
                    raise WrongUse(
                        f"none of the {len(self._crops):,} unlabelled pictures can be read as one: "
                        f"{next(iter(self._broken.values()))}."
                    )
            yield batch

    def _views(self, first: int) -> Iterator[CropBatch]:
        assert self._crops
        vision, options = self._recogniser.config.vision, self._options
        made = TwoViews(self._crops, vision.image_size, options.augment, options.seed, vision.turn_tall)
        numbers = schedules(self._crops, [1.0] * len(self._crops.sets), self._plan, first)
        return load(made, numbers, self._workers, first)

    def with_loss(self, labelled: Loss[CropBatch]) -> Loss[CropBatch]:
        """The loss over labels and sure readings, in which each prediction counts alike."""

        def both(batch: CropBatch) -> tuple[Tensor, Tensor]:
            found = self._read(batch.unlabelled) if batch.unlabelled else []
            value, count = labelled(batch)
            if not found or not batch.unlabelled:
                return value, count
            device = self._loop.pace.device
            pictures = batch.unlabelled.pictures[[n for n, _ in found], 3:]
            targets = upload(self._recogniser.charset.encode([text for _, text in found]), device)
            more = self._recogniser.loss(upload(pictures, device), targets)
            its = self._recogniser.decoder.predictions(targets)
            return (value * count + more * its) / (count + its).clamp(min=1), count + its

        return both if self._crops else labelled

    @torch.no_grad()
    def _read(self, batch: CropBatch) -> list[tuple[int, str]]:
        """The pictures that the average of the weights is sure of, by their place in the batch, and what it reads.

        It changes weights for a moment, so it comes before any loss is computed with them. They learn nothing then,
        or autocast would keep the average's weights in bf16 for the loss, and what counts operations would look for
        gradients.
        """
        model, average = self._recogniser, self._loop.step.average
        learning = [parameter for parameter in model.eval().parameters() if parameter.requires_grad]
        for parameter in learning:
            parameter.requires_grad_(False)
        with average.shown() if average else nullcontext():
            texts, confidences = model.read(upload(batch.pictures[:, :3], self._loop.pace.device))
        for parameter in learning:
            parameter.requires_grad_(True)
        model.train()
        shortest, longest = 0 if self._options.blank else 1, model.config.decoder.max_length  # longer ones did not end
        found = [
            (n, text)
            for n, (text, sure) in enumerate(zip(texts, confidences, strict=True))
            if sure >= self._options.confidence and shortest <= len(text) <= longest
        ]
        self._loop.progress.unlabelled += len(batch)
        self._loop.progress.sure += len(found)
        return found

    def told(self, found: Found) -> Found:
        """An evaluation that also says which share of the readings was learnt from since the last one."""
        progress = self._loop.progress
        if not self._crops or not progress.unlabelled:
            return found
        sure = [one for one in found.readings if one.confidence >= self._options.confidence]
        figures = {"sure": progress.sure / progress.unlabelled}
        text = f"{found.text}; sure of {figures['sure']:.0%} of {progress.unlabelled:,} unlabelled pictures"
        if sure:
            figures["right"] = sum(one.right for one in sure) / len(sure)
            text += f", and of validation words that it is as sure of, {figures['right']:.0%} are right"
        self._loop.run.log(progress.step, "unlabelled", figures)
        progress.unlabelled = progress.sure = 0
        return Found(found.scores, found.rank, text, found.readings)

    def ended(self) -> dict[str, int]:
        """Unlabelled pictures that could not be read, by reason; also says how many, and if none was looked at."""
        dropped = Counter(self._broken.values()) + (self._crops.dropped if self._crops else Counter[str]())
        for reason, number in dropped.items():
            self._say(f"{number:,} unlabelled pictures not used: {reason}")
        if self._crops and not self._ready:
            self._say(f"no unlabelled picture was used: it never read {READY:.0%} of the validation words right")
        return {f"unlabelled: {reason}": number for reason, number in dropped.items()}
