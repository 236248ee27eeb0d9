"""The commands that train: their options come from one declaration, their values also from a file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import commands.train
from cache import __version__
from cache.errors import WrongUse
from cli import app
from commands.config import read_config
from train.finetune_options import FinetuneOptions
from train.options import PANELS
from train.pretrain_options import PretrainOptions

ORDERED = PretrainOptions(["en", "de"], Path("run"), bank="photos", epochs=3.0, perturb="orp(20%)", zero_memory=True)


@pytest.fixture
def asked(monkeypatch):
    """What `dptr pretrain` would train, without training it."""
    found = []
    monkeypatch.setattr("train.pretrain.pretrain", lambda options, say: found.append(options) or _done())
    return found


def _done():
    from train.pretrain import PretrainSummary

    return PretrainSummary(
        "run", 1, 1, 1, 1.0, 1.0, 1.0, 1, {n: 0.0 for n in ("word_accuracy", "ignoring_case", "character_error")}
    )


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_options_reach_the_trainer_as_they_were_declared(asked):
    assert run("pretrain", "--corpus", "en", "--out", "run").exit_code == 0
    given = (
        "--corpus",
        "en",
        "--corpus",
        "de",
        "--bank",
        "photos",
        "--epochs",
        3,
        "--perturb",
        "orp(20%)",
        "--zero-memory",
    )
    assert run("pretrain", "--out", "run", *given).exit_code == 0
    assert asked == [PretrainOptions(["en"], Path("run")), ORDERED]


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_help_shows_every_option_in_its_panel(command):
    text = run(command, "--help").stdout
    places = [text.index(f" {panel} ") for panel in PANELS if command == "pretrain" or panel != "Perturbation"]
    assert places == sorted(places)
    options = [p for p in get_command(app).commands[command].params if p.name not in ("as_json", "help")]
    assert all(
        getattr(p, "rich_help_panel", None) in PANELS for p in options if p.name not in ("split", "cache", "pretrained")
    )
    first = [p.name for p in options if p.rich_help_panel == PANELS[0]]
    assert len(first) == 6  # the five that people change first, and --config


def test_version():
    done = run("--version")
    assert (done.exit_code, done.stdout) == (0, f"dptr {__version__}\n")


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_a_file_gives_options_and_the_command_line_wins(asked, tmp_path, ending):
    values = {
        "corpus": ["en", "de"],
        "out": "elsewhere",
        "bank": "photos",
        "epochs": 5,
        "perturb": "orp(20%)",
        "zero_memory": True,
    }
    text = json.dumps(values) if ending == "json" else "".join(f"{k}: {json.dumps(v)}\n" for k, v in values.items())
    (tmp_path / f"a.{ending}").write_text(text)
    done = run("pretrain", "--config", tmp_path / f"a.{ending}", "--out", "run", "--epochs", 3)
    assert done.exit_code == 0, done.stderr or done.exception
    assert asked == [ORDERED]
    assert run("pretrain", "--no-zero-memory", "--config", tmp_path / f"a.{ending}", "--corpus", "fr").exit_code == 0
    assert asked[1] == replace(ORDERED, corpus=["fr"], out=Path("elsewhere"), epochs=5.0, zero_memory=False)


def test_the_command_line_beats_the_files_alternative(asked, tmp_path):
    (tmp_path / "a.yaml").write_text("corpus: en\nout: run\nbank: photos\nsteps: 9\nperturb: orp(30%)\n")
    run("pretrain", "--config", tmp_path / "a.yaml", "--epochs", 3, "--perturb", "orp(0.2)")
    run("pretrain", "--config", tmp_path / "a.yaml", "--lr", 0.1)
    assert [(o.epochs, o.steps, o.perturb) for o in asked] == [(3.0, None, "orp(0.2)"), (20.0, 9, "orp(30%)")]


def test_a_single_value_stands_for_a_list(asked, tmp_path):
    (tmp_path / "a.yaml").write_text("corpus: en\nout: run\n")
    assert run("pretrain", "--config", tmp_path / "a.yaml").exit_code == 0
    assert asked == [PretrainOptions(["en"], Path("run"))]


def test_the_configuration_of_a_run_asks_for_the_same_again(tmp_path, cache, asked):
    """For a run of today, and for one of the first layout."""
    from tests.test_old_runs import EARLIER

    run("pretrain", "--config", EARLIER / "stopped" / "config.json", "--out", "again")
    (old,) = asked
    assert (old.corpus, old.bank, old.out, old.batch, old.ema) == (["numbers"], "noise", Path("again"), 16, 0.9)
    assert (old.decoder, old.depth, old.perturb) == ("parseq", 1, "orp(0.1)")
    from models.decoders import configure
    from tests.helpers.runs import run_config

    made = replace(run_config(configure("nrtr")), options=ORDERED)
    (tmp_path / "config.json").write_text(json.dumps(made.to_dict()))
    run("pretrain", "--config", tmp_path / "config.json")
    assert asked[1] == ORDERED


@pytest.mark.parametrize("changes", [{}, {"other_space": True}])
def test_the_configuration_of_a_fine_tuned_run_is_taken_too(tmp_path, changes):
    from tests.test_old_runs import EARLIER

    config = json.loads((EARLIER / "fine" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    known = {p.name: bool(getattr(p, "multiple", False)) for p in get_command(app).commands["finetune"].params}
    found = read_config(tmp_path / "config.json", known)
    assert (found["init"], found["train"], found["batch"], found["encoder_lr"]) == ("pre-parseq", ["crops"], 6, 0.002)
    assert "other_space" not in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "there is no option 'epoch': did you mean 'epochs'?"),
        ("zzz: 3", "there is no option 'zzz': dptr COMMAND --help lists them."),
        ("batch: {a: 1}", "'batch' takes one value"),
        ("batch: [1, 2]", "'batch' takes one value"),
        ("- 3", "holds no options"),
        ("a: [", "is neither JSON nor YAML"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(WrongUse) as error:
        read_config(tmp_path / "a.yaml", {"epochs": False, "batch": False})
    assert message in str(error.value)
    done = run("pretrain", "--config", tmp_path / "a.yaml")
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr


def test_a_missing_file_and_a_missing_option_are_said(tmp_path):
    assert "cannot be read" in run("pretrain", "--config", tmp_path / "none.yaml").stderr
    (tmp_path / "a.yaml").write_text("out: run\n")
    done = run("pretrain", "--config", tmp_path / "a.yaml")
    assert done.exit_code == 2
    assert "--corpus" in done.stderr


def test_every_flag_of_fine_tuning_can_be_taken_back():
    names = {f"--{n}" for p in get_command(app).commands["finetune"].params for n in [p.name.replace("_", "-")]}
    assert {"--freeze", "--no-fmu", "--scratch"} <= names
    assert FinetuneOptions(Path("a"), [], [], Path("b")).queries == _queries()
    assert commands.train.finetune.__name__ == "finetune"


def _queries():
    from models.recogniser import QUERIES

    return QUERIES
