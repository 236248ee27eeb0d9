"""Packs prompts so that each prefix they have in common is computed once.

In a causal transformer, a token's state depends only on the tokens up to it. The prompts of a batch are therefore a
tree with one node for each distinct prefix. Sorted prompts fill rows of equal length; each prompt adds only the nodes
that the prompts before it in the row did not, and each node attends to its own ancestors only.

Shape letters: N prompts, K nodes of the longest prompt, C rows of a batch, S nodes of a row, P shared tokens.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
ROW = 64  # nodes per row: shorter rows repeat more prefixes, longer rows compute more attention that is masked


class Batch(NamedTuple):
    """Some rows of nodes, and where their states belong."""

    tokens: Integers  # (C, S), 0 after a row's last node
    positions: Integers  # (C, S)
    ancestors: NDArray[np.bool_]  # (C, S, P + S): the shared tokens, then this row's nodes, the node itself included
    source: Integers  # (R,) nodes whose states are needed, numbered across all rows; some come up more than once
    target: Integers  # (R,) the rows of the result where these states go
    prompts: int  # number of prompts that the batch finishes


class PrefixTree:
    """The nodes after the `shared` tokens that all prompts begin with."""

    def __init__(self, prompts: Sequence[Sequence[int]], shared: int) -> None:
        """Every prompt must have at least one token after the shared ones."""
        lengths = np.array([len(p) for p in prompts]) - shared
        tokens = np.full((len(prompts), int(lengths.max())), -1)  # -1 is no token's id, but 0 is
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt) - shared] = prompt[shared:]
        results = np.cumsum(lengths) - lengths  # where each prompt's rows begin in the result
        order = np.lexsort(tokens.T[::-1])
        self._shared = shared
        self._tokens, self._lengths, self._results = tokens[order], lengths[order], results[order]
        self.width = max(ROW, int(lengths.max()))  # S
        self._pack()

    def _pack(self) -> None:
        """Assigns a node to every token of every prompt: (N, K) places in the prompt's row."""
        tokens, lengths = self._tokens, self._lengths
        N, K = tokens.shape
        equal = np.zeros((N, K), bool)
        equal[1:] = tokens[1:] == tokens[:-1]
        known = np.minimum(np.logical_and.accumulate(equal, 1).sum(1), lengths)  # nodes the prompt before has too
        filled = np.cumsum(lengths - known)
        first = [0]  # prompts that begin a row, so they share nothing
        while (end := int(np.searchsorted(filled, filled[first[-1]] + self.width - lengths[first[-1]], "right"))) < N:
            first.append(end)
        known[first] = 0
        self.rows = len(first)
        self._first = np.array([*first, N])
        self._row = np.repeat(np.arange(self.rows), np.diff(self._first))  # (N,)
        begins = np.cumsum(lengths - known) - (lengths - known)
        begins -= begins[first][self._row]
        depth = np.arange(K)
        self._made = (depth >= known[:, None]) & (depth < lengths[:, None])  # (N, K) nodes this prompt adds
        maker = np.maximum.accumulate(np.where(self._made, np.arange(N)[:, None], 0), 0)
        self._node = (begins - known)[maker] + depth

    def batches(self, positions: int) -> Iterator[Batch]:
        """Batches of whole rows: as many as fit into `positions` nodes, but at least one."""
        size = max(1, positions // self.width)
        for row in range(0, self.rows, size):
            yield self._batch(row, min(row + size, self.rows))

    def _batch(self, start: int, stop: int) -> Batch:
        some = slice(self._first[start], self._first[stop])
        made, node, row = self._made[some], self._node[some], self._row[some] - start
        C, S, P = stop - start, self.width, self._shared
        tokens, positions = np.zeros((C, S), np.int64), np.zeros((C, S), np.int64)
        ancestors = np.zeros((C, S, P + S), bool)
        ancestors[:, :, :P] = True
        ancestors[:, np.arange(S), P + np.arange(S)] = True  # padding attends to itself
        for depth in range(node.shape[1]):
            new = np.flatnonzero(made[:, depth])
            here = row[new], node[new, depth]
            tokens[here], positions[here] = self._tokens[some][new, depth], self._shared + depth
            ancestors[here[0][:, None], here[1][:, None], P + node[new, : depth + 1]] = True
        prompt, level = np.nonzero(np.arange(node.shape[1]) < self._lengths[some][:, None])
        source = row[prompt] * S + node[prompt, level]
        return Batch(tokens, positions, ancestors, source, self._results[some][prompt] + level, len(row))


def distinct_prefixes(prompts: Sequence[Sequence[int]], shared: int) -> int:
    """The number of distinct prefixes longer than `shared` tokens: the fewest states that must be computed."""
    seen: set[Any] = {tuple(p[:n]) for p in prompts for n in range(shared + 1, len(p) + 1)}
    return len(seen)
