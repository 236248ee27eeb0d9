"""What a GPU computes is what a CPU computes: embedding, training of each kind, reading, replayed steps."""

import json
import shutil
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cache.space import open_space
from models.decoders import make, names
from models.device import upload
from pipeline.convert import space_tower
from pipeline.embed_crops import embed_crops
from pipeline.encoder import Encoder
from sources.labelled import Labelled
from tests.conftest import WORDS
from tests.helpers.decoders import ragged, small
from tests.helpers.pictures import drawn
from train.data.crop_batches import CachedTokens
from train.data.crops import usable
from train.data.word_batches import MemoryLoader
from train.data.words import read_words
from train.dataset import MemoryDataset
from train.finetune import Material, finetune
from train.finetune_options import FinetuneOptions
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.batched import read_crops, read_memories
from train.run import load_recogniser, load_run

pytestmark = pytest.mark.gpu  # pytest.mark.gpu is what bench/gpu_tests.py looks for
NUMBERS = [str(n) for n in range(10, 90)]
CROPS = Labelled("drawn", NUMBERS, lambda n: drawn(NUMBERS[n]))


@pytest.fixture
def options(cache, tmp_path):
    return PretrainOptions(
        ["numbers"], tmp_path / "run", cache=cache, bank="noise", depth=2, heads=2, batch=32, steps=60,
        lr=2e-3, device="cuda", precision="bf16", eval_every=30, eval_words=8,
    )  # fmt: skip


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["group"] == "train"]


def cosines(a, b):
    a, b = (np.asarray(x, np.float32).reshape(-1, x.shape[-1]) for x in (a, b))
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_bf16_features_are_close_to_the_cpus(encoder):
    on_gpu = Encoder("tiny", "untrained:1", precision="bf16", device="cuda")
    ids = [encoder.prompt.ids(word) for word in WORDS]
    assert cosines(encoder.text_states(ids), on_gpu.text_states(ids)).min() > 0.995
    pixels = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    assert cosines(encoder.image_tokens(pixels), on_gpu.image_tokens(pixels)).min() > 0.995


@pytest.mark.parametrize("kind", names())
def test_losses_and_gradients_are_the_cpus(kind):
    decoder = small(kind, dropout=0.0)
    twin = make(decoder.config).cuda()
    twin.load_state_dict(decoder.state_dict())
    memory, mask, _ = ragged(6, 24, [3, 7, 5, 4, 6, 2])
    targets = decoder.charset.encode(["a", "word", "Exit", "12:30", "street", "x"])
    drawn_once = () if (found := decoder.drawn(targets)) is None else (found,)
    loss = decoder.loss(memory, mask, targets, *drawn_once)
    on_gpu = twin.loss(memory.cuda(), mask.cuda(), targets.cuda(), *(one.cuda() for one in drawn_once))
    assert on_gpu.item() == pytest.approx(loss.item(), rel=1e-4)
    loss.backward()
    on_gpu.backward()
    for (name, a), b in zip(decoder.named_parameters(), twin.parameters(), strict=True):
        if a.grad is not None:
            assert torch.allclose(a.grad, b.grad.cpu(), rtol=1e-2, atol=1e-4), name


@pytest.mark.parametrize("kind", names())
def test_pretraining_learns_and_reads_as_on_the_cpu(kind, options):
    summary = pretrain(replace(options, decoder=kind), print)
    found = losses(options.out)
    assert np.isfinite(found).all()
    assert found[-1] < found[0]
    assert summary.steps == 60
    space = open_space(options.cache)
    decoder, _, _ = load_run(options.out)
    words, _ = read_words(space, ["numbers"], decoder.charset, 25)
    some = words.take(range(300))
    here = read_memories(decoder.eval(), MemoryLoader(space, torch.device("cpu")), some, "fp32")
    there = read_memories(decoder.cuda().eval(), MemoryLoader(space, torch.device("cuda")), some, "fp32")
    assert sum(a.text == b.text for a, b in zip(here, there, strict=True)) >= 297


def test_readers_give_a_gpu_what_they_give_a_cpu(options, tmp_path):
    plain = replace(options, steps=40, dropout=0.0, bank=None, precision="fp32")
    found = {}
    for reader, device in (("resident", "cuda"), ("mapped", "cuda"), ("mapped", "cpu"), ("streamed", "cuda")):
        out = tmp_path / f"{reader}-{device}"
        pretrain(replace(plain, out=out, reader=reader, device=device), print)
        found[reader, device] = losses(out)[0]
    assert found["resident", "cuda"] == pytest.approx(found["mapped", "cpu"], rel=1e-3)
    assert found["mapped", "cuda"] == pytest.approx(found["mapped", "cpu"], rel=1e-3)
    assert np.isfinite(found["streamed", "cuda"])  # which has an order of its own


@pytest.mark.parametrize("kind", ["parseq", "nrtr"])
def test_replayed_steps_are_the_eager_ones(kind, options, tmp_path):
    asked = replace(options, decoder=kind, steps=90, ema=0.9, precision="fp32")
    pretrain(asked, print)
    pretrain(replace(asked, out=tmp_path / "graphs", execution="graphs"), print)
    eager, replayed = losses(asked.out), losses(tmp_path / "graphs")
    assert replayed[0] == pytest.approx(eager[0], rel=1e-3)  # dropout included: it draws the same numbers
    assert replayed == pytest.approx(eager, rel=5e-2)  # sums in another order, and what follows from them


def test_every_kind_of_perturbation_is_replayed(options, tmp_path):
    """All of them one after another, drawn on the device from the same seeds."""
    rows, sides = "stretch(0.3) + drop(10%) + swap(10%) + trail(12)", "shift(0.1) + moments + covariance + matched(10%)"
    text = f"{rows} + {sides} + orp(10%) + gaussian(10%) + scaled(10%) + collapse(10%) + mix(4)"
    asked = replace(options, perturb=text, dropout=0.0, precision="fp32", steps=40)
    pretrain(asked, print)
    pretrain(replace(asked, out=tmp_path / "graphs", execution="graphs"), print)
    assert losses(tmp_path / "graphs") == pytest.approx(losses(asked.out), rel=0.05)


def test_replayed_run_continues(options, tmp_path):
    whole = replace(options, execution="graphs")
    pretrain(whole, print)
    middle = whole.out / "step-00000030.pt"
    pretrain(replace(whole, out=tmp_path / "again", resume=str(middle)), print)
    assert losses(tmp_path / "again")[-1] == pytest.approx(losses(whole.out)[-1], rel=5e-2)


def test_replayed_in_memory_that_other_threads_use(options):
    """Batches are made in a thread, through pinned memory, while steps are being recorded."""
    summary = pretrain(replace(options, batch=16, execution="graphs", reader="streamed"), print)
    assert np.isfinite(summary.loss)


def test_steps_do_not_wait_for_the_device():
    """What would make the processor wait for the GPU in each step: copies from pageable memory, .item(), nonzero."""
    decoder = small("parseq").cuda().train()
    memory = torch.randn(6, 7, 24, device="cuda")
    mask = torch.ones(6, 7, dtype=torch.bool, device="cuda")
    targets = decoder.charset.encode(["a", "word", "Exit", "12:30", "street", "x"]).cuda()
    decoder.loss(memory, mask, targets).backward()  # sets up libraries, which may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        decoder.loss(memory, mask, targets).backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 20.0)
        upload(torch.zeros(1000), torch.device("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("frozen", [False, True])
def test_finetuning_learns_and_reads_as_on_the_cpu(frozen, options, tmp_path):
    pretrain(replace(options, steps=3), print)
    space = open_space(shutil.copytree(options.cache, tmp_path / "cache"))  # crops are added to it
    tower = space_tower(space, (16, 64))
    asked = FinetuneOptions(
        options.out, ["x"], ["y"], tmp_path / "reader", batch=40, steps=40, lr=1e-3, eval_every=20, workers=2,
        device="cuda", precision="bf16", freeze=frozen, augment=0.5,
    )  # fmt: skip
    material = Material([[CROPS]], [CROPS], space, tower)
    if frozen:
        pictures = ((text, CROPS.picture(n)) for n, text in enumerate(NUMBERS))
        bank = embed_crops(space, tower, torch.device("cuda"), pictures, len(NUMBERS), print)
        material = replace(material, tokens=CachedTokens(bank))
    summary = finetune(asked, material, print)
    assert np.isfinite(summary.loss)
    recogniser = load_recogniser(asked.out)[0]
    crops = usable([CROPS], recogniser.charset, 25)
    here, _ = read_crops(recogniser.eval(), crops, torch.device("cpu"), "fp32", 0)
    there, _ = read_crops(recogniser.cuda().eval(), crops, torch.device("cuda"), "fp32", 2)
    assert sum(a.text == b.text for a, b in zip(here, there, strict=True)) >= 78


def test_dataset_feeds_a_gpu_through_pinned_memory(cache):
    loader = DataLoader(MemoryDataset(cache, "numbers", batch=64), batch_size=None, num_workers=2, pin_memory=True)
    decoder = small("nrtr").cuda()
    reads = torch.nn.Linear(64, 24).cuda()
    for batch in loader:
        assert batch["memory"].is_pinned()
        memory, mask, targets = (batch[n].to("cuda", non_blocking=True) for n in ("memory", "mask", "targets"))
        assert torch.isfinite(decoder.loss(reads(memory), mask, targets))


def test_a_single_rank_of_nccl(options, monkeypatch):
    """As torchrun would start it; what several ranks do is tested with gloo."""
    from torch import distributed

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    distributed.init_process_group("nccl", init_method=f"tcp://localhost:{port}", rank=0, world_size=1)
    try:
        values = torch.arange(4, device="cuda")
        distributed.all_reduce(values)
        assert values.tolist() == [0, 1, 2, 3]
        decoder = small("abinet").cuda()
        wrapped = torch.nn.parallel.DistributedDataParallel(decoder.head)
        wrapped(torch.randn(3, 32, device="cuda")).sum().backward()
        assert decoder.head.weight.grad.isfinite().all()
    finally:
        distributed.destroy_process_group()


def test_compiled_layers_learn_alike(options, tmp_path):
    plain = replace(options, steps=30, dropout=0.0, bank=None)
    pretrain(plain, print)
    pretrain(replace(plain, out=tmp_path / "compiled", execution="compiled"), print)
    assert losses(tmp_path / "compiled")[0] == pytest.approx(losses(plain.out)[0], rel=3e-2)
