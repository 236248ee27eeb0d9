"""Several ranks learn what one does, stop together, and go on with another number of them."""

import json
import signal
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import train.reading.batched
from cache.errors import WrongUse
from cache.space import open_space
from models.image_encoder import ImageEncoder, VisionConfig
from tests.helpers.commands import run
from tests.helpers.forks import Forked
from tests.helpers.pictures import NUMBERS, drawn, drawn_set
from tests.helpers.stopped import stopped_at
from tests.train.test_resume import command, figures, first_checkpoint
from train.finetune import Material, finetune
from train.finetune_options import FinetuneOptions
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.ranks import Ranks, check_shared, join
from train.reading.evaluate import evaluate, evaluate_crops
from train.reading.read import read
from train.run import LAST, load_checkpoint

PLAIN = ["--dropout", "0", "--perturb", "none", "--permutations", "2", "--reader", "streamed"]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
CLI = str(Path(__file__).parents[2] / "cli.py")


def numbered() -> list[dict[str, str]]:
    """The environment that torchrun gives to each of two ranks."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port = one.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    return [{**place, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]


def ranks(options: PretrainOptions, folder: Path) -> list[subprocess.CompletedProcess]:
    """Two ranks that pre-train, to their end."""
    started = [Forked.module(folder / one["RANK"], "cli", *command(options, *PLAIN), **one) for one in numbered()]
    return [process.wait() for process in started]


def assert_close(first: Path, second: Path) -> None:
    """Two runs have the same losses but for the order of summation."""
    for a, b in zip(figures(first), figures(second), strict=True):
        assert a[:2] == b[:2]
        if a[1] == "train":
            assert abs(a[2] - b[2]) < 1e-4
        else:
            assert a[2:] == b[2:]  # what was read


@pytest.fixture(scope="module")
def two(cache, tmp_path_factory):
    """A run of two ranks without dropout, perturbation or random orders, so that nothing depends on the rank.

    The last batch of an epoch has one word, so none for the second rank.
    """
    folder = tmp_path_factory.mktemp("ranks")
    options = PretrainOptions(["numbers"], folder / "two", cache=cache, batch=57, steps=24, eval_every=6)
    done = ranks(options, folder)
    assert [one.returncode for one in done] == [0, 0], done
    assert json.loads((options.out / "config.json").read_text())["resolved"]["training_words"] % 57 == 1
    return options, done


def test_two_ranks_learn_what_one_does(two, tmp_path):
    options, both = two
    one = replace(options, out=tmp_path / "one")
    alone = run(*command(one, *PLAIN))
    assert alone.returncode == 0, alone.stderr
    assert "2 ranks, which share the 57 words of each step" in both[0].stderr
    assert both[0].stdout.count("run ") == 1
    assert (both[1].stdout, both[1].stderr) == ("", "")  # one rank speaks
    assert_close(one.out, options.out)
    assert len(list((options.out / "tensorboard").glob("events*"))) == 1


def test_ranks_that_are_stopped_go_on_as_one(two, tmp_path):
    """Started and stopped by torchrun."""
    again = replace(two[0], out=tmp_path / "again")
    process = Forked.module(tmp_path / "torchrun", *TORCHRUN, CLI, *command(again, *PLAIN))
    first_checkpoint(again.out)
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert 0 < load_checkpoint(again.out, LAST)["step"] < 24
    alone = run(*command(again, *PLAIN))
    assert alone.returncode == 0, alone.stderr
    assert "continuing from step" in alone.stderr
    assert "it had 2 ranks and has 1 from now on" in alone.stderr
    assert_close(again.out, two[0].out)


def readings(options: FinetuneOptions, tower: ImageEncoder, pictures: Path, ranks: Ranks) -> list:
    """What is read without labels, as sets with labels and as files, of which one is no picture; and from memories."""
    sets = [drawn_set(NUMBERS, damaged=[3])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.reading.batched, "MEMORIES", 3)  # so that the second rank has words, too
        held_out = evaluate(options.init, device="cpu", ranks=ranks).readings
    measured = evaluate_crops(options.init, sets, device="cpu", tower=tower, ranks=ranks)
    said = []
    found = read(options.init, [str(pictures)], "cpu", said.append, tower, ranks)
    assert said == (found if ranks.first else [])
    read_all = [[vars(one) for one in some] for some in (found, measured.sets[0].readings, held_out)]
    return [*read_all, measured.sets[0].left_out]


def read_and_stop(options: FinetuneOptions, cache: Path, config: VisionConfig, weights: Path, folder: Path) -> None:
    """What a rank does: it reads, and trains until the second one gets a signal."""
    ranks, _ = join(torch.device("cpu"))
    tower = ImageEncoder(config)
    tower.load_state_dict(torch.load(weights))
    Path(f"{folder}-{ranks.rank}.json").write_text(json.dumps(readings(options, tower.eval(), folder, ranks)))
    with stopped_at(5, 9, signalled=ranks.rank == 1):
        finetune(options, crops(cache, tower), print)


def crops(cache: Path, tower: ImageEncoder) -> Material:
    """Numbers to learn, in sets of which one is seen twice as often; two are no pictures."""
    sets = [[drawn_set(NUMBERS[:40], damaged=[0, 5])], [drawn_set(NUMBERS[40:], "others")]]
    return Material(sets, [drawn_set(NUMBERS[::7], "val")], open_space(cache), tower)


def test_ranks_read_and_fine_tune_as_one_does_and_go_on_as_one(cache, material, tmp_path):
    first = PretrainOptions(["numbers"], tmp_path / "first", cache=cache, depth=1, heads=2, batch=32, steps=3)
    pretrain(replace(first, dropout=0.0, permutations=2, device="cpu"), print)
    options = FinetuneOptions(
        first.out, ["x", "y"], ["z"], tmp_path / "run", weight=[1.0, 2.0], batch=15, steps=9, eval_every=5, lr=1e-3,
        workers=0, device="cpu", precision="fp32",
    )  # fmt: skip
    pictures, weights = tmp_path / "pictures", tmp_path / "tower.pt"
    pictures.mkdir()
    for n in range(150):  # three batches
        (pictures / f"{n:03}.png").write_bytes(drawn(str(n)) if n != 70 else b"no picture")
    torch.save(material.tower.state_dict(), weights)
    work = options, cache, material.tower.config, weights, pictures
    started = [Forked(tmp_path / one["RANK"], read_and_stop, *work, **one) for one in numbered()]
    alone = json.loads(json.dumps(readings(options, material.tower, pictures, Ranks())))
    one = replace(options, out=tmp_path / "one")
    finetune(one, crops(cache, material.tower), print)
    done = [process.wait() for process in started]
    assert [rank.returncode for rank in done] == [0, 0], done
    assert [json.loads(Path(f"{pictures}-{rank}.json").read_text()) for rank in range(2)] == [alone, alone]
    assert done[0].stdout
    assert not done[1].stdout
    lines = []
    finetune(options, crops(cache, material.tower), lines.append)
    assert {"continuing from step 5"} < set(lines)
    assert_close(options.out, one.out)


def test_a_batch_without_a_word_for_each_rank_is_refused():
    check_shared(3, Ranks(0, 3))
    with pytest.raises(WrongUse, match="a --batch of 2 has not one word for each of 3 ranks"):
        check_shared(2, Ranks(0, 3))
