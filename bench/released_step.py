"""A training step as in DPTR's released code, which bench/pretrain_step.py compares with.

CLIP's text tower runs within the step, over all 77 positions. The memory has 78 rows and is perturbed with photograph
tokens gathered on the CPU. Labels are padded to 27 ids. Permutations are decoded one after another, and each projects
the memory's keys and values again. Computes in fp32, or with autocast on a GPU.
"""

from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.charset import EOS, Charset
from models.decoders.parseq.permutations import attention_masks, draw_permutations
from pipeline.prompt import PROMPT

LENGTH = 25  # characters that every label is padded to


class Layer(nn.Module):
    """One two-stream layer, made of torch's own modules."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(width, heads, 0.1, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(width, heads, 0.1, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * width, width))
        self.norm_query, self.norm_content, self.norm_cross, self.norm_feed = (nn.LayerNorm(width) for _ in range(4))
        self.dropout = nn.Dropout(0.1)

    def stream(self, x: Tensor, norm_x: Tensor, content: Tensor, memory: Tensor, mask: Tensor, padding: Tensor) -> Any:
        """Rows (B, S, W) after the layer; mask (S, S) and padding (B, S) are True where attention is not allowed."""
        x = x + self.dropout(self.self_attention(norm_x, content, content, padding, False, mask)[0])
        x = x + self.dropout(self.cross_attention(self.norm_cross(x), memory, memory, need_weights=False)[0])
        return x + self.dropout(self.feed(self.norm_feed(x)))

    def forward(
        self, query: Tensor, content: Tensor, memory: Tensor, masks: tuple[Tensor, Tensor], padding: Tensor, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Both streams after the layer; the last layer's content is not needed."""
        norm_content = self.norm_content(content)
        found = self.stream(query, self.norm_query(query), norm_content, memory, masks[0], padding)
        return found, content if last else self.stream(content, norm_content, norm_content, memory, masks[1], padding)


class ReleasedStep(nn.Module):
    """The decoder, preceded by frozen CLIP and a bank (N, T, D) of photograph tokens on the CPU."""

    def __init__(self, clip: Any, model: str, bank: Tensor, depth: int, width: int = 512, heads: int = 8) -> None:
        super().__init__()
        self._clip, self._tokenizer, self._bank = [clip], open_clip.get_tokenizer(model), bank
        self.charset = Charset()
        self.embedding = nn.Embedding(self.charset.ids, width)
        self.positions = nn.Parameter(torch.randn(LENGTH + 1, width) * 0.02)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm, self.head, self.dropout = nn.LayerNorm(width), nn.Linear(width, self.charset.head), nn.Dropout(0.1)

    @torch.no_grad()
    def memory(self, labels: list[str]) -> Tensor:
        """(B, 78, D): the projected end token, then the states of all 77 positions."""
        (clip,) = self._clip
        tokens = self._tokenizer([PROMPT.replace("{label}", label) for label in labels]).to(self.positions.device)
        x = clip.token_embedding(tokens) + clip.positional_embedding
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))
        end = x[torch.arange(len(labels)), tokens.argmax(-1)] @ clip.text_projection
        return torch.cat([end[:, None], x], 1)

    def loss(self, labels: list[str], memory: Tensor, permutations: int = 6) -> Tensor:
        """Perturb the memory and decode one permutation after another."""
        pictures = torch.randint(len(self._bank), (len(labels),))
        places = torch.randperm(self._bank.shape[1])[: memory.shape[1]]
        memory = memory + 0.1 * self._bank[pictures][:, places].float().to(memory.device)
        targets = self.charset.encode(labels)
        targets = F.pad(targets, (0, LENGTH + 2 - targets.shape[1]), value=self.charset.pad).to(memory.device)
        inputs, outputs = targets[:, :-1], targets[:, 1:].clone()
        padding = (inputs == self.charset.pad) | (inputs == EOS)
        total, count = memory.new_zeros(()), 0
        for n, order in enumerate(draw_permutations(LENGTH, permutations).to(memory.device)):
            masks = tuple(~mask[0] for mask in attention_masks(order[None]))
            content = self.embedding(inputs) * self.embedding.embedding_dim**0.5
            content = self.dropout(torch.cat([content[:, :1], content[:, 1:] + self.positions[:LENGTH]], 1))
            query = self.dropout(self.positions.expand(len(labels), -1, -1))
            for layer in self.layers:
                query, content = layer(query, content, memory, masks, padding, layer is self.layers[-1])
            logits = self.head(self.norm(query)).flatten(0, 1)
            found = int((outputs != self.charset.pad).sum())
            total = total + found * F.cross_entropy(logits, outputs.flatten(), ignore_index=self.charset.pad)
            count += found
            if n == 1:  # the end is predicted in the first two orders only
                outputs = outputs.masked_fill(outputs == EOS, self.charset.pad)
        return total / count
