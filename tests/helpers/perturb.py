"""What perturbations are made from, in a bank of its own."""

import numpy as np

from cache.bank import Bank
from tests.helpers.fingerprint import ONE
from train.perturb.material import Material


def material(folder, rows, features=None, layout="shared", table=None):
    """Rows (n, D) of memories, and a bank with features (N, T, D), written as two shards if it has more than one, with
    an index; `table` is as for Material.
    """
    if features is None:
        return Material(rows, None, layout)
    halves = np.array_split(features.half().numpy(), 2)
    bank, start = Bank(folder / "bank", ONE), 0
    for half in filter(len, halves):
        ids = [f"{start + n}.png" for n in range(len(half))]
        bank.add(ids, np.array([name.encode() for name in ids], "S16"), half, "")
        start += len(half)
    bank.write_index()
    return Material(rows, Bank(folder / "bank", ONE), layout, table)
