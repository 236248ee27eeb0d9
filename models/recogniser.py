"""The recogniser: image encoder, Feature Merge Unit (FMU), decoder. Pictures of words in, text out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.decoders import DecoderConfig, TextDecoder, confidence, make
from models.image_encoder import ImageEncoder, VisionConfig
from models.layers import Attention, Dropout, feed_forward, initialise

QUERIES = 26  # as many as the released decoder has positions
GUIDE = "guide."  # how the names of those weights begin that training alone needs


class FMU(nn.Module):
    """The Feature Merge Unit: learned queries gather character features from image tokens (B, T, W): (B, queries, W).

    From DPTR (arXiv 2408.05706), as the released code computes it: cross-attention with a residual, then norm and
    feed-forward with a residual. The released code leaves the queries uninitialised; here they are drawn like position
    embeddings.
    """

    def __init__(self, width: int, heads: int, dropout: float, queries: int = QUERIES) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.attention = Attention(width, width, heads, dropout)
        self.norm = nn.LayerNorm(width)
        self.feed = feed_forward(width, dropout)
        self.dropout = Dropout(dropout)
        self.apply(initialise)
        nn.init.trunc_normal_(self.queries, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.queries.expand(tokens.shape[0], -1, -1)
        x = x + self.dropout(self.attention(x, self.attention.keys_values(tokens)))
        return torch.as_tensor(x + self.dropout(self.feed(self.norm(x))))


@dataclass(frozen=True)
class RecogniserConfig:
    """Everything that decides a recogniser's shape."""

    vision: VisionConfig
    decoder: DecoderConfig
    queries: int  # of the FMU; 0: no FMU, the decoder attends to the image tokens

    def to_dict(self) -> dict[str, Any]:
        return {"vision": self.vision.to_dict(), "decoder": self.decoder.to_dict(), "queries": self.queries}

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "RecogniserConfig":
        """Inverse of `to_dict`."""
        return cls(VisionConfig.of(fields["vision"]), DecoderConfig.of(fields["decoder"]), fields["queries"])


class Recogniser(nn.Module):
    """Reads pictures (B, 3, H, W) uint8, or the tokens (B, T, E) that the encoder computed for them earlier."""

    def __init__(self, config: RecogniserConfig) -> None:
        super().__init__()
        self.config = config
        D, E = config.decoder.memory_width, config.vision.tokens_width
        self.encoder = ImageEncoder(config.vision)
        # for encoders whose two widths differ
        self.adapt: nn.Module = nn.Identity() if D == E else nn.Linear(E, D)
        heads = config.decoder.heads if D % config.decoder.heads == 0 else 1
        self.fmu = FMU(D, heads, config.decoder.dropout, config.queries) if config.queries else nn.Identity()
        self.decoder = make(config.decoder)
        self.guide: TextDecoder | None = None  # learns from the same memory, in training alone

    @property
    def charset(self) -> Any:
        return self.decoder.charset

    def tokens(self, pictures: Tensor) -> Tensor:
        """The image encoder's tokens (B, T, E) of pixels (B, 3, H, W) uint8."""
        return torch.as_tensor(self.encoder(self.encoder.normalised(pictures)))

    def memory(self, pictures: Tensor) -> Tensor:
        """The memory (B, M, D) that the decoder reads, from pictures (B, 3, H, W) uint8 or their tokens (B, T, E)."""
        tokens = self.tokens(pictures) if pictures.dtype == torch.uint8 else pictures.float()
        return torch.as_tensor(self.fmu(self.adapt(tokens)))

    def loss(self, pictures: Tensor, targets: Tensor, taught: Tensor | None = None) -> Tensor:
        """The decoder's loss, a scalar, plus its guide's; targets (B, S + 1) as `Charset.encode` gives them.

        `taught` is the memory (B, M, D) that another recogniser has of the pictures: `unexplained` is added.
        """
        memory = self.memory(pictures)
        loss = self.decoder.loss(memory, None, targets)
        if self.guide is not None:
            loss = loss + self.guide.loss(memory, None, targets)
        return loss if taught is None else loss + unexplained(memory, taught)

    def read(self, pictures: Tensor) -> tuple[list[str], list[float]]:
        """The text of each picture and its confidence, 0 to 1. The module must be in evaluation mode."""
        texts, shares = self.read_characters(pictures)
        return texts, confidence(shares).tolist()

    @torch.inference_mode()
    def read_characters(self, pictures: Tensor) -> tuple[list[str], Tensor]:
        """The text of each picture, and the probabilities (B, S) of its characters and of the EOS after them."""
        ids, shares = self.decoder.read(self.memory(pictures), None)
        return self.decoder.charset.decode(ids), shares


def unexplained(memory: Tensor, taught: Tensor) -> Tensor:
    """How much of the variance among the `taught` memories of a batch these (B, M, D) leave unexplained, a scalar.

    0 where they are equal; 1 where every picture has the mean memory. A batch of one has no variance, and counts as 0.
    """
    wrong, all_of_it = (memory - taught).float().square().mean(), taught.float().var(0, unbiased=False).mean()
    return wrong / all_of_it if len(taught) > 1 else wrong * 0


def groups(recogniser: Recogniser, encoder_rate: float, rate: float) -> list[dict[str, Any]]:
    """Parameter groups for the optimizer, each with its peak learning rate: the image encoder and the rest."""
    encoder = {id(p) for p in recogniser.encoder.parameters()}
    rest = [p for p in recogniser.parameters() if id(p) not in encoder]
    parts: Sequence[tuple[list[nn.Parameter], float]] = (
        (list(recogniser.encoder.parameters()), encoder_rate),
        (rest, rate),
    )
    return [{"params": [p for p in params if p.requires_grad], "peak": peak} for params, peak in parts]
