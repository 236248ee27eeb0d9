"""Precision by measurement: each outcome, and what decides before the measurement does."""

import pytest
import torch

import models.device
from cache.errors import WrongUse
from cache.space import spaces
from models.device import _layer_rate, choose_device, choose_precision, product_rates, rates_said
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.stage import at_its_space
from train.recorder import settled_precision

CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch):
    """Sets what this machine is said to multiply at."""

    def set_rates(fp32, bf16):
        monkeypatch.setattr(models.device, "product_rates", lambda device: {"fp32": fp32, "bf16": bf16})

    return set_rates


def test_rates_are_measured_once():
    rates = product_rates(CPU)
    assert set(rates) == {"fp32", "bf16"}
    assert 1e8 < rates["fp32"] < 1e14
    assert rates["bf16"] > 1e6
    assert product_rates(CPU) is rates
    assert rates_said(CPU) == f"{rates['fp32'] / 1e9:,.1f} GFLOP/s in fp32, {rates['bf16'] / 1e9:,.1f} in bf16"


def test_a_first_product_that_is_held_up_does_not_count(monkeypatch):
    """As when another process has the machine for a moment: all the time is over after one product of 4 rows."""
    ticks = iter([0.0, 0.0, 1.0])
    now = [1.0]

    def clock():
        now[0] = next(ticks, now[0] + 0.02)
        return now[0]

    monkeypatch.setattr(models.device.time, "perf_counter", clock)
    assert _layer_rate(CPU, torch.float32) == pytest.approx(2 * 4 * 512 * 2048 / 0.02)


@pytest.mark.parametrize(
    ("fp32", "bf16", "chosen"),
    [(2e11, 1e11, "fp32"), (2e11, 4e11, "bf16"), (2e11, 2.05e11, "fp32"), (2e11, 2e8, "fp32")],
)
def test_auto_takes_the_faster_one_and_fp32_when_close(measured, fp32, bf16, chosen):
    measured(fp32, bf16)
    assert choose_precision("auto", CPU) == chosen
    assert choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"
    with pytest.raises(WrongUse, match="no precision 'fp8'"):
        choose_precision("fp8", CPU)


@pytest.mark.parametrize("device", ["mps", "xpu:0", "meta"])
def test_other_devices_are_one_sentence(device):
    with pytest.raises(WrongUse, match="on a CPU or on NVIDIA's GPUs, not on '.*': use --device cpu"):
        choose_device(device)


def test_the_space_that_is_there_decides_before_speed_does(measured, tmp_path, say):
    """A machine that is faster in bf16 goes on in the fp32 space of another, as if it had been asked for fp32."""
    measured(2e11, 1e11)
    embed_text(tmp_path, at_its_space(tmp_path, Encoder("tiny", "untrained:1"), say), collect(["one"]), "words", say)
    assert any(
        line == "computing in fp32: this machine multiplies at 200.0 GFLOP/s in fp32, 100.0 in bf16"
        for line in say.lines
    )
    measured(1e11, 2e11)
    encoder = at_its_space(tmp_path, Encoder("tiny", "untrained:1"), say)
    assert encoder.precision == "fp32"
    assert encoder.dtype == torch.float32
    assert "in fp32, though bf16 is faster here" in say.lines[-1]
    embed_text(tmp_path, encoder, collect(["one", "two"]), "words", say)
    (space,) = spaces(tmp_path)
    assert space.fingerprint.compute == "fp32"
    other = at_its_space(tmp_path, Encoder("tiny", "untrained:2"), say)  # other weights have no space yet
    assert other.precision == "bf16"


def test_an_encoder_at_another_precision_computes_in_it(encoder):
    rough = encoder.at("bf16")
    asked = Encoder("tiny", "untrained:1", precision="bf16", device="cpu")
    assert rough.fingerprint.digest == asked.fingerprint.digest != encoder.fingerprint.digest
    ids = [encoder.prompt.ids(word) for word in ("street", "Hello")]
    assert (rough.text_states(ids) == asked.text_states(ids)).all()
    assert (rough.text_states(ids) != encoder.text_states(ids)).any()


def test_a_run_that_goes_on_keeps_its_precision(measured, tmp_path):
    from tests.test_old_runs import EARLIER

    measured(1e11, 2e11)
    stopped = EARLIER / "stopped"
    assert settled_precision("auto", "never", stopped, CPU) == "bf16"
    assert settled_precision("auto", "auto", tmp_path / "new", CPU) == "bf16"
    assert settled_precision("auto", "auto", stopped, CPU) == "fp32"
    assert settled_precision("auto", str(stopped / "step-00000006.pt"), tmp_path, CPU) == "fp32"
    assert settled_precision("bf16", "auto", stopped, CPU) == "bf16"


def test_seeds_are_torchs():
    models.device.seed(7, CPU)
    ours = torch.rand(3), torch.initial_seed()
    torch.manual_seed(7)
    assert torch.equal(ours[0], torch.rand(3))
    assert ours[1] == torch.initial_seed() == 7
