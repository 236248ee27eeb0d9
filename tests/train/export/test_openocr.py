"""Export to OpenOCR's names: modules of torch's own attention under those names give the same logits and texts."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cache.errors import WrongUse
from models.charset import CHARACTERS_94, EOS
from models.decoders.parseq import Config, Decoder
from models.recogniser import FMU
from tests.train.export.test_export import finetuned, pictures, pretrained, vision
from train.export import export
from train.export.openocr import PREFIX, decoder_weights, fmu_weights


class Merge(nn.Module):
    """The FMU by its names."""

    def __init__(self, W, heads):
        super().__init__()
        self.cross_attn = nn.MultiheadAttention(W, heads, batch_first=True)
        self.linear1, self.linear2, self.norm = nn.Linear(W, 4 * W), nn.Linear(4 * W, W), nn.LayerNorm(W)

    def forward(self, query, tokens):
        x = query + self.cross_attn(query, tokens, tokens)[0]
        return x + self.linear2(F.gelu(self.linear1(self.norm(x))))


class Layer(nn.Module):
    """A decoder layer by its names: one stream at a time."""

    def __init__(self, W, heads):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(W, heads, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(W, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(W, 4 * W), nn.Linear(4 * W, W)
        for name in ("norm1", "norm2", "norm_q", "norm_c"):
            setattr(self, name, nn.LayerNorm(W))

    def stream(self, x, normed, content, memory, hidden):
        x = x + self.self_attn(normed, content, content, attn_mask=hidden)[0]
        x = x + self.cross_attn(self.norm1(x), memory, memory)[0]
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class Reference(nn.Module):
    """The whole decoder by its names, in the simplest way that reads: all is computed anew for each character."""

    def __init__(self, shape, fmu):
        super().__init__()
        W = shape.width
        if fmu:
            self.token_query, self.fmu = nn.Parameter(torch.zeros(1, 26, W)), Merge(W, shape.heads)
        self.decoder = nn.Module()
        self.decoder.layers = nn.ModuleList(Layer(W, shape.heads) for _ in range(shape.depth))
        self.decoder.norm = nn.LayerNorm(W)
        ids = len(shape.characters) + 3
        self.head, self.pos_queries = nn.Linear(W, ids - 2), nn.Parameter(torch.zeros(1, shape.max_length + 1, W))
        self.text_embed = nn.Module()
        self.text_embed.embedding = nn.Embedding(ids, W)
        self.bos, self.scale, self.has_fmu = ids - 2, math.sqrt(W), fmu

    def memory(self, tokens):
        return self.fmu(self.token_query.expand(len(tokens), -1, -1), tokens) if self.has_fmu else tokens

    def logits(self, memory, inputs, hidden, hidden_content):
        """(1, S, head) for one sample: inputs (1, S), BOS first; hidden masks (S, S), True where not to look."""
        S = inputs.shape[1]
        query, content = self.pos_queries[:, :S], self.text_embed.embedding(inputs) * self.scale
        content = torch.cat([content[:, :1], content[:, 1:] + self.pos_queries[:, : S - 1]], 1)
        for layer in self.decoder.layers:
            seen = layer.norm_c(content)
            query, content = (
                layer.stream(query, layer.norm_q(query), seen, memory, hidden),
                layer.stream(content, seen, seen, memory, hidden_content),
            )
        return self.head(self.decoder.norm(query))

    def read(self, memory, refinements):
        """Ids of one sample up to its end: greedy, left to right, then cloze passes with one mask for both streams.

        The released class changes the mask of the query in place, and the content stream has the same tensor.
        """
        ids, S = [], self.pos_queries.shape[1]
        for step in range(S):
            later = torch.ones(step + 1, step + 1, dtype=torch.bool).triu(1)
            ids.append(int(self.logits(memory, torch.tensor([[self.bos, *ids]]), later, later)[0, -1].argmax()))
            if ids[-1] == EOS:
                break
        for _ in range(refinements):
            inputs = torch.tensor([[self.bos, *ids, *[EOS] * S][:S]])
            unread = (inputs == EOS).cumsum(-1) > 0
            cloze = torch.ones(S, S, dtype=torch.bool).triu(1).tril(1) | unread
            ids = self.logits(memory, inputs, cloze, cloze)[0].argmax(-1).tolist()
        return ids[: ids.index(EOS)] if EOS in ids else ids


def loaded(folder, shape, fmu):
    """What a strict load of the written checkpoint gives, and the checkpoint; plain types, so torch trusts them."""
    checkpoint = torch.load(folder / "openocr.pth", weights_only=True)
    reference = Reference(shape, fmu).eval()
    whole = nn.Module()
    whole.decoder = reference
    whole.load_state_dict(checkpoint["state_dict"], strict=True)
    return reference, checkpoint


@torch.no_grad()
@pytest.mark.parametrize(("depth", "end", "refinements"), [(1, 2.5, 1), (2, 1.5, 0)])
def test_recogniser_with_fmu_reads_the_same(tmp_path, say, depth, end, refinements):
    run, model = finetuned(tmp_path / "run", vision(32), 26, end, depth=depth)
    done = export(run, tmp_path / "out", "openocr", say)
    assert done["files"] == ["openocr.pth", "openocr_dict.txt"]
    assert done["openocr"]["is_pretrain"] is False
    assert done["openocr"]["refine_iters"] == refinements
    assert any("refine_iters is 0" in line for line in say.lines) == (not refinements)
    assert say.lines[-1].startswith("the image encoder is not part of this format")
    reference, checkpoint = loaded(tmp_path / "out", model.config.decoder, True)
    assert checkpoint["global_step"] == 1200
    tokens = model.tokens(pictures(model, 12))
    memory = reference.memory(tokens)
    assert torch.allclose(memory, model.memory(tokens), atol=1e-5)
    texts = ["".join(CHARACTERS_94[i - 1] for i in reference.read(one[None], refinements)) for one in memory]
    assert texts == model.charset.decode(model.decoder.read(memory, None, refinements)[0])
    assert len({len(text) for text in texts}) > 2


@torch.no_grad()
def test_pretrained_run_gives_the_same_logits(tmp_path, say):
    run, model = pretrained(tmp_path / "run")
    done = export(run, tmp_path / "out", "openocr", say)
    assert done["openocr"]["is_pretrain"] is True
    reference, _ = loaded(tmp_path / "out", model.config, False)
    memory = torch.randn(3, 9, 32)
    inputs = model.charset.encode(["abcdef", "Z9!?xy", "street"])[:, :-1]
    later = torch.ones(7, 7, dtype=torch.bool).triu(1)
    seen = torch.cat([~later, ~later])[None, None].expand(3, 1, -1, -1)
    query, content = model.positions.expand(3, 1, -1, -1), model._embed(inputs)[:, None]
    expected = model._run(query, content, model.memory_keys_values(memory), seen, None)[:, 0]
    found = torch.cat([reference.logits(m[None], i[None], later, later) for m, i in zip(memory, inputs, strict=True)])
    assert torch.allclose(found, expected, atol=1e-5)


def test_released_size_has_the_released_names_and_shapes():
    """DPTR's: depth 6, width 512, 26 positions, 97 ids, a head of 95."""
    decoder, fmu = Decoder(Config()), FMU(512, 8, 0.1)

    def attention(name):
        found = {"in_proj_weight": (1536, 512), "in_proj_bias": (1536,)}
        found |= {"out_proj.weight": (512, 512), "out_proj.bias": (512,)}
        return {f"{name}.{part}": shape for part, shape in found.items()}

    def linear(name, out, given):
        return {f"{name}.weight": (out, given), f"{name}.bias": (out,)}

    def norm(name):
        return {f"{name}.weight": (512,), f"{name}.bias": (512,)}

    expected = {"pos_queries": (1, 26, 512), "text_embed.embedding.weight": (97, 512)}
    expected |= linear("head", 95, 512) | norm("decoder.norm")
    for n in range(6):
        layer = f"decoder.layers.{n}."
        expected |= attention(layer + "self_attn") | attention(layer + "cross_attn")
        expected |= linear(layer + "linear1", 2048, 512) | linear(layer + "linear2", 512, 2048)
        for one in ("norm1", "norm2", "norm_q", "norm_c"):
            expected |= norm(layer + one)
    assert {name: tuple(tensor.shape) for name, tensor in decoder_weights(decoder).items()} == expected
    expected = {"token_query": (1, 26, 512), **attention("fmu.cross_attn"), **norm("fmu.norm")}
    expected |= linear("fmu.linear1", 2048, 512) | linear("fmu.linear2", 512, 2048)
    assert {name: tuple(tensor.shape) for name, tensor in fmu_weights(fmu).items()} == expected


@pytest.mark.parametrize("characters", [CHARACTERS_94, "aé0"])
def test_dictionary_has_a_character_a_line_in_the_order_of_ids(tmp_path, say, characters):
    run, model = pretrained(tmp_path / "run", characters=characters)
    export(run, tmp_path / "out", "openocr", say)
    lines = (tmp_path / "out" / "openocr_dict.txt").read_bytes().decode("utf-8").split("\n")
    assert lines == [*characters, ""]
    state = torch.load(tmp_path / "out" / "openocr.pth", weights_only=True)["state_dict"]
    row = 1 + lines.index("a")  # EOS has 0
    assert torch.equal(state[PREFIX + "head.weight"][row], model.head.weight[row])
    assert ("as its character_dict_path" in say.lines[0]) == (characters != CHARACTERS_94)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda folder: pretrained(folder, memory_width=20), "reads memories of width 20 with a decoder of 32"),
        (lambda folder: finetuned(folder, vision(20), 26), "adapts tokens of width 20 to a decoder of 32"),
        (lambda folder: finetuned(folder, vision(32), 5), "an FMU of 26 queries, but this run has 5"),
        (lambda folder: finetuned(folder, vision(32), 0), "an FMU of 26 queries, but this run has none"),
    ],
)
def test_other_shapes_are_refused(tmp_path, say, make, why):
    run, _ = make(tmp_path / "run")
    with pytest.raises(WrongUse, match=why):
        export(run, tmp_path / "out", "openocr", say)
    assert not (tmp_path / "out").exists()
