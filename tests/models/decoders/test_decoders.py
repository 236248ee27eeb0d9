"""What every decoder promises: each test runs on all of them."""

import json

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from cache.errors import DptrError, WrongUse
from cli import app
from models.charset import EOS
from models.decoders import DecoderConfig, TextDecoder, confidence, configure, ended_at_eos, make, names
from tests.helpers.decoders import ragged, small
from tests.helpers.runs import run_config
from tests.train.export.test_export import finetuned, pictures, pretrained
from train.export import export
from train.reading.attention import attention_maps
from train.recorder import Recorder
from train.run import load_recogniser, load_run

KINDS = names()
every = pytest.mark.parametrize("kind", KINDS)
others = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "parseq"])


def test_modules_of_the_package_are_the_kinds():
    assert KINDS == ["abinet", "ctc", "mdiff", "nrtr", "parseq"]
    for kind in KINDS:
        config = configure(kind, depth=2, dropout=None)
        assert (config.kind, config.depth, config.dropout) == (kind, 2, 0.1)
        assert DecoderConfig.of(json.loads(json.dumps(config.to_dict()))) == config
        assert isinstance(make(config), TextDecoder)


@pytest.mark.parametrize("kind", ["x", "", "__init__", "..run", "parseq.x"])
def test_a_kind_that_is_none_is_one_sentence(kind):
    with pytest.raises(WrongUse, match=rf"there is no decoder '.*': choose one of {', '.join(KINDS)}\."):
        configure(kind)


@others
def test_options_of_another_kind_are_refused(kind):
    with pytest.raises(WrongUse, match=f"the decoder {kind} has no permutations: leave out --permutations."):
        configure(kind, permutations=2)


@every
def test_gradients_reach_every_parameter(kind):
    decoder = small(kind, max_length=6).train()
    memory, mask, _ = ragged(3, 24, [5, 8, 6])
    decoder.loss(memory, mask, decoder.charset.encode(["street", "a", "no"])).backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@every
def test_losses_of_parts_of_a_batch_make_that_of_the_whole(kind):
    """Weighted by their predictions, as several devices weigh them; with two orders PARSeq draws none.

    What mdiff draws is of words, and drawn once for all parts.
    """
    decoder = small(kind, **({"permutations": 2} if kind == "parseq" else {}))
    memory, mask, _ = ragged(4, 24, [5, 8, 6, 7])
    targets = decoder.charset.encode(["street", "a!", "no", "wagons"])
    draws = decoder.drawn(targets) if kind == "mdiff" else None
    losses, counts = zip(
        *(
            (
                decoder.loss(memory[rows], mask[rows], targets[rows], *(() if draws is None else (draws[rows],))),
                decoder.predictions(targets[rows]),
            )
            for rows in (slice(4), slice(1), slice(1, 3), slice(3, 4))
        ),
        strict=True,
    )
    assert counts[0] == sum(counts[1:])
    parts = sum(loss * count for loss, count in zip(losses[1:], counts[1:], strict=True))
    assert torch.allclose(losses[0] * counts[0], parts, rtol=1e-5)


@every
def test_everything_is_initialised(kind):
    """No parameter keeps what happened to be in memory (DPTR's released code forgets some)."""
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(make(configure(kind, memory_width=32, width=32, depth=2, heads=2)))
    for (name, a), b in zip(made[0].named_parameters(), made[1].parameters(), strict=True):
        assert torch.equal(a, b), name
        assert a.abs().max() <= 1, name


@every
def test_what_stands_in_padding_does_not_matter(kind):
    decoder = small(kind)
    memory, mask, memories = ragged(2, 24, [5, 8])
    other = torch.where(mask[..., None], memory, 1000.0)
    targets, losses = decoder.charset.encode(["abc", "de"]), []
    for one in (memory, other):
        torch.manual_seed(1)
        losses.append(decoder.loss(one, mask, targets))
    assert torch.allclose(*losses)
    ids, shares = decoder.read(memory, mask)
    assert torch.equal(ids, decoder.read(other, mask)[0])
    for n, one in enumerate(memories):
        alone = decoder.read(one[None], None)
        assert torch.equal(alone[0][0], ids[n])
        assert torch.allclose(alone[1][0], shares[n], atol=1e-5)


@every
@torch.no_grad()
def test_a_reading_does_not_depend_on_the_rows_beside_it(kind):
    decoder = small(kind, max_length=8, characters="abcdefgh")
    decoder.head.bias[EOS] += 0 if kind == "mdiff" else 1.5
    memory, mask, _ = ragged(40, 24, [3 + n % 7 for n in range(40)])
    ids, shares = decoder.read(memory, mask)
    assert ids.shape == shares.shape == (40, 9)
    assert (ids.dtype, shares.dtype) == (torch.int64, torch.float32)
    assert len(set((ids != EOS).sum(-1).tolist())) > 2
    assert torch.equal(ended_at_eos(ids, shares)[0], ids)
    assert torch.equal(ended_at_eos(ids, shares)[1], shares)
    assert all(0 < sure <= 1 for sure in confidence(shares).tolist())
    for n in range(40):
        alone = decoder.read(memory[n : n + 1], mask[n : n + 1])
        assert torch.equal(alone[0][0], ids[n])
        assert torch.allclose(alone[1][0], shares[n], atol=1e-5)


def toy(B, generator):
    """Words of 3 to 6 letters, and memories whose rows each encode a letter and its place."""
    lengths = torch.randint(3, 7, (B,), generator=generator)
    letters = torch.randint(0, 6, (B, 6), generator=generator)
    places = torch.eye(6).expand(B, -1, -1)
    memory = torch.cat([F.one_hot(letters, 6).float(), places], -1) * 3
    words = ["".join("abcdef"[i] for i in row[:n]) for row, n in zip(letters.tolist(), lengths.tolist(), strict=True)]
    return words, memory, torch.arange(6) < lengths[:, None]


@every
def test_it_learns_to_spell(kind):
    torch.manual_seed(0)
    fewer = {"permutations": 2} if kind == "parseq" else {}
    config = configure(kind, memory_width=12, width=32, depth=1, heads=4, dropout=0.0, max_length=6, **fewer)
    decoder, generator, losses = make(config), torch.Generator().manual_seed(0), []
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=6e-3, weight_decay=0.0)
    while len(losses) < 500 and (not losses or losses[-1] > 0.03):
        words, memory, mask = toy(64, generator)
        losses.append(decoder.loss(memory, mask, decoder.charset.encode(words)))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.1
    words, memory, mask = toy(100, generator)
    texts = decoder.eval().charset.decode(decoder.read(memory, mask)[0])
    assert sum(a == b for a, b in zip(words, texts, strict=True)) > 85


@every
def test_runs_and_exports_bring_it_back(kind, tmp_path, say):
    folder, decoder = pretrained(tmp_path / "pretrained", kind=kind)
    loaded, config, _ = load_run(folder)
    assert config.model.kind == kind
    memory = torch.randn(3, 5, 32)
    assert torch.equal(loaded.read(memory, None)[0], decoder.read(memory, None)[0])
    folder, recogniser = finetuned(tmp_path / "finetuned", queries=5, kind=kind)
    loaded, config, _ = load_recogniser(folder)
    assert config.model.decoder.kind == kind
    some = pictures(recogniser, 3)
    assert loaded.read(some) == recogniser.read(some)
    export(folder, tmp_path / "out", "safetensors", say)
    made = json.loads((tmp_path / "out" / "model.json").read_text())
    assert made["shape"]["decoder"]["kind"] == kind
    assert made["architecture"][-1] == decoder.architecture
    assert made["reading"]["how"] == decoder.reading["how"]
    assert ("embedding" in made["ids"]) == ("embedding.weight" in decoder.state_dict())


def rewritten(folder, decoder, change):
    """A run whose best.pt holds a changed configuration."""
    run = Recorder(folder, run_config(decoder.config))
    run.save_best(decoder, 1, {}, [])
    run.close()
    saved = torch.load(folder / "best.pt", weights_only=True)
    torch.save(saved | {"config": change(saved["config"])}, folder / "best.pt")


def test_runs_from_before_there_were_kinds_are_of_parseq(tmp_path):
    decoder = small("parseq")
    fields = decoder.config.to_dict()
    del fields["kind"], fields["permutations"]
    rewritten(tmp_path / "old", decoder, lambda config: config | {"decoder": fields})
    assert load_run(tmp_path / "old")[0].config == decoder.config


def test_run_of_a_kind_that_is_not_here_says_so(tmp_path):
    decoder = small("nrtr")
    shape = decoder.config.to_dict() | {"kind": "later"}
    rewritten(tmp_path / "other", decoder, lambda config: config | {"decoder": shape})
    with pytest.raises(DptrError, match=f"from another version: there is no decoder 'later': choose one of {KINDS[0]}"):
        load_run(tmp_path / "other")


@others
def test_what_is_for_parseq_alone_refuses_the_others(kind, tmp_path, say):
    folder, recogniser = finetuned(tmp_path / "run", queries=5, kind=kind)
    with pytest.raises(WrongUse, match=f"OpenOCR needs a parseq decoder, and this run has {kind}: export to safe"):
        export(folder, tmp_path / "openocr", "openocr", say)
    assert not (tmp_path / "openocr").exists()
    with pytest.raises(WrongUse, match=f"drawing attention needs a parseq decoder, and this run has {kind}: read"):
        attention_maps(recogniser, pictures(recogniser, 1))


def command(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@every
def test_command_pretrains_and_evaluates_it(kind, cache, tmp_path):
    options = ["--cache", cache, "--decoder", kind, "--depth", 1, "--heads", 2, "--batch", 32, "--device", "cpu"]
    more = ["--bank", "noise", "--steps", 3, "--out", tmp_path / "run", "--json"]
    done = command("pretrain", "--corpus", "numbers", *options, *more)
    assert done.exit_code == 0, done.stderr
    assert f"decoder: {kind}, depth 1" in done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["decoder"]["kind"] == kind
    assert config["decoder"].get("permutations") == (6 if kind == "parseq" else None)
    done = command("evaluate", tmp_path / "run", "--device", "cpu", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["scores"]["words"] > 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--decoder", "x"], f"there is no decoder 'x': choose one of {', '.join(KINDS)}."),
        (["--decoder", "ctc", "--permutations", "2"], "the decoder ctc has no permutations: leave out --permutations."),
    ],
)
def test_wrong_use_of_the_command_is_one_sentence(given, message, cache, tmp_path):
    done = command("pretrain", "--cache", cache, "--corpus", "numbers", "--out", tmp_path / "run", *given)
    assert done.exit_code == 2
    assert done.stderr == f"error: {message}\n"
    assert not (tmp_path / "run").exists()
