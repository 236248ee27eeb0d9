"""A run's config.json: the options as given, the values derived from them, and the space the decoder was trained on."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
import torch

from cache import __version__
from cache.errors import WrongUse
from cache.fingerprint import Fingerprint
from cache.remote import shown
from models.decoders import DecoderConfig
from models.recogniser import RecogniserConfig
from train.earlier import FOLLOW, FREE, Stretch
from train.finetune_options import FinetuneOptions
from train.perturb.grammar import Amount
from train.pretrain_options import PretrainOptions

if TYPE_CHECKING:
    from cache.space import Space

BEFORE_PERTURB = ("orp", "orp_relative", "noise", "orp_positions")  # options until there was --perturb
RENAMED = {"corpora": "corpus", "weights": "weight"}  # option names in the first layout of config.json, and now
# Options that do not affect the loss, and options that the model's shape already covers
ELSEWHERE = {"cache", "out", "device", "resume", "reader", "bank_reader", "workers", "execution", "fonts", "behind"}
SHAPES = {"decoder", "depth", "width", "heads", "dropout", "max_length", "permutations", "charset", "space_char"}
SHAPES |= {"image_size", "queries", "no_fmu"}


@dataclass(frozen=True)
class RunConfig:
    """Everything that determined a run, and where it ran."""

    options: PretrainOptions | FinetuneOptions  # as given
    model: DecoderConfig | RecogniserConfig
    space_name: str  # the space whose memories the decoder learnt to read
    fingerprint: Fingerprint  # of that space
    resolved: dict[str, Any]  # values for options that were left open, and figures of the data
    machine: dict[str, Any]  # device, reader, versions: nothing that affects the loss
    earlier: tuple[Stretch, ...] = ()  # what the run had before it went on with another length or batch

    @property
    def reads_pictures(self) -> bool:
        """Whether the run was fine-tuned."""
        return isinstance(self.model, RecogniserConfig)

    @property
    def decoder(self) -> DecoderConfig:
        """The shape of its decoder."""
        return self.model.decoder if isinstance(self.model, RecogniserConfig) else self.model

    @property
    def steps(self) -> int:
        """How long it trained; the first layout has that among the options."""
        return int(self.resolved.get("steps") or self.options.steps or 0)

    def space(self, cache: Path | None = None) -> "Space":
        """The space of the run's memories, in `cache` or the cache it was trained from. Raises as `check_space`."""
        from cache.space import open_space, spaces  # imports h5py, which reading pictures does not need

        folder = cache or self.pretraining.cache
        space = next((s for s in spaces(folder) if s.digest == self.fingerprint.digest), None) or open_space(folder)
        self.check_space(space)
        return space

    def check_space(self, space: "Space") -> None:
        """Raise WrongUse, naming the fields that differ, if the run was not trained on the encoder of this space."""
        if self.fingerprint.digest != space.digest:
            differing = "; ".join(self.fingerprint.differences(space.fingerprint))
            raise WrongUse(
                f"the run was trained on space {self.space_name} and this is {space.name}: features of different "
                f"encoders cannot be mixed. They differ (the run's / this space's) in {differing}."
            )

    @property
    def pretraining(self) -> PretrainOptions:
        """The options of a pre-trained run. Raises WrongUse for a fine-tuned one."""
        if not isinstance(self.options, PretrainOptions):
            raise WrongUse(f"{self.options.out} is a fine-tuned run: name a run made by dptr pretrain instead.")
        return self.options

    def differences(self, other: "RunConfig") -> list[str]:
        """One line for each setting that must not change in a run and differs in `other`: `name (mine / other's)`."""
        mine, others = dict(_flat(self._deciding())), dict(_flat(other._deciding()))
        free = {*FREE, *(FOLLOW if self.options.batch != other.options.batch else ())}
        names = sorted({*mine, *others} - free)
        return [f"{n} ({mine.get(n)} / {others.get(n)})" for n in names if mine.get(n) != others.get(n)]

    def stretch(self, step: int, drawn: int) -> Stretch:
        """What it has that may change when a run goes on, as a stretch that ends after `step` and `drawn` batches."""
        names = ("steps", "lr", "eval_every")  # the first layout has them among the options
        steps, lr, every = (self.resolved.get(name, getattr(self.options, name)) for name in names)
        return Stretch(step, drawn, steps, self.options.batch, lr, every, self.resolved.get("ranks", 1))

    def _deciding(self) -> dict[str, Any]:
        skipped = {*ELSEWHERE, *SHAPES, "space"}
        options = {name: value for name, value in _to_json(self.options).items() if name not in skipped}
        return {**options, **self.resolved, **self._shape(), "fingerprint": self.fingerprint.digest}

    def _shape(self) -> dict[str, Any]:
        return {"recogniser" if isinstance(self.model, RecogniserConfig) else "decoder": self.model.to_dict()}

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds."""
        return {
            "options": _to_json(self.options),
            "resolved": self.resolved,
            **self._shape(),
            "space": self.space_name,
            "fingerprint": asdict(self.fingerprint),
            "machine": self.machine,
            **({"earlier": [asdict(one) for one in self.earlier]} if self.earlier else {}),
        }

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "RunConfig":
        """Inverse of `to_dict`; also reads earlier layouts. KeyError, TypeError or ValueError for anything else."""
        found = _today(config)
        finetuned = "recogniser" in found
        model = RecogniserConfig.of(found["recogniser"]) if finetuned else DecoderConfig.of(found["decoder"])
        kind: Any = FinetuneOptions if finetuned else PretrainOptions
        hints = get_type_hints(kind)
        options = kind(**{n: Path(v) if hints.get(n) is Path else v for n, v in found["options"].items()})
        fingerprint = Fingerprint(**found["fingerprint"])
        earlier = tuple(Stretch(**one) for one in found.get("earlier", ()))
        return cls(options, model, found["space"], fingerprint, found["resolved"], found["machine"], earlier)


def options_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The command's options in a config.json of any layout; anything else is returned unchanged."""
    if "options" not in config and "versions" not in config:
        return config
    found = _today(config)["options"]
    inner = {f.name for kind in (PretrainOptions, FinetuneOptions) for f in fields(kind) if not f.metadata}
    return {name: value for name, value in found.items() if name not in inner}


def _today(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config.json of any layout in today's."""
    found = config if "options" in config else _first_layout(config)
    return {**found, **_with_perturb(found)}


def _with_perturb(found: Mapping[str, Any]) -> dict[str, Any]:
    """Options and resolved values as they are since `perturb` says what four options and `orp` did."""
    options = dict(found["options"])
    factor, relative, noise, positions = (options.pop(name, None) for name in BEFORE_PERTURB)
    more = ", positions=sample" if positions == "sample" else ""
    if noise is not None:
        options["perturb"] = f"gaussian({Amount(noise, True)})"
    elif options.get("bank") and (factor is not None or relative is not None or more):
        strength = Amount(0.1 if factor is None else factor) if relative is None else Amount(relative, True)
        options["perturb"] = f"orp({strength}{more})"
    width = found.get("recogniser", found)["decoder"]["memory_width"]
    resolved = _figures(found["resolved"], width)
    if "pretrained" in resolved:
        resolved["pretrained"] = _figures(resolved["pretrained"], width)
    return {"options": options, "resolved": resolved}


def _figures(values: Mapping[str, Any], width: int) -> dict[str, Any]:
    """Values whose `orp`, if there is one, became `perturb`."""
    rest = dict(values)
    before = rest.pop("orp", None)
    if before and "noise" in before:
        norm, share = before["memory_norm"], before["noise"]
        before = {"deviation": share * norm / width**0.5, "relative": share, "memory_norm": norm}
        return {**rest, "perturb": {"gaussian": before}}
    return rest if before is None else {**rest, "perturb": {"orp": before} if before else {}}


def _first_layout(config: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the first layout, in which options and the values derived from them shared one level."""
    rest = {RENAMED.get(name, name): value for name, value in config.items()}
    finetuned = "recogniser" in rest
    source = rest["pretrained"] if finetuned else rest
    found = {"space": source["space"], "fingerprint": source["fingerprint"]}
    if finetuned:
        found["recogniser"] = rest.pop("recogniser")
        rest["pretrained"] = {n: v for n, v in source.items() if n not in found}
        rest["image_size"] = "x".join(map(str, rest["image_size"])) if rest["image_size"] else None
    else:
        found["decoder"] = rest.pop("decoder")
        rest["decoder"] = found["decoder"].get("kind", "parseq")
    machine: dict[str, Any] = {
        name: rest.pop(name) for name in ("device", "versions", "reader", "reader_why") if name in rest
    }
    noise = rest.pop("orp", None)
    names = {f.name for f in fields(FinetuneOptions if finetuned else PretrainOptions)} | {*BEFORE_PERTURB}
    options = {name: rest.pop(name) for name in names & rest.keys()}
    options |= {name: machine[name] for name in names & machine.keys()}
    if noise and options.get("orp_relative") is None:
        options["orp"] = noise["lambda"]
    skipped = {"space", "fingerprint", "charset", "width", "heads"}
    resolved = {name: value for name, value in rest.items() if name not in skipped}
    resolved |= {} if noise is None else {"orp": noise}
    return {**found, "options": options, "resolved": resolved, "machine": machine}


def _to_json(options: PretrainOptions | FinetuneOptions) -> dict[str, Any]:
    values = {f.name: getattr(options, f.name) for f in fields(options)}
    return {name: shown(value) if isinstance(value, Path) else value for name, value in values.items()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield prefix + name, list(value) if isinstance(value, tuple) else value


def versions() -> dict[str, str]:
    """The versions of the libraries that compute."""
    return {"dptr": __version__, "torch": str(torch.__version__), "numpy": np.__version__}
