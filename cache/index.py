"""The FAISS index of a bank: an inner-product index over the class tokens, as unit vectors, in the order of the bank.

Up to EXACT pictures every vector is compared. Beyond that they lie in cells around the centroids of k-means, and a
search looks into the nearest cells only (`ivf`; Sivic and Zisserman, ICCV 2003). By choice, vectors are kept as codes
of a few bytes (`pq`; Jégou et al., TPAMI 2011) or as a graph (`hnsw`; Malkov and Yashunin, arXiv 1603.09320). How far a
search looks is the least power of two that finds GOAL of the TOP true neighbours of a sample, or beyond which codes
limit what is found. It is kept in the file.

The file is a function of the bank and the kind. Centroids come from the first 2^b pictures, where 2^b is the largest
power of two within the bank. So an index is added to until the bank has doubled, and is then made anew. A graph depends
on the calls that made it, so it is always made anew. Vectors are added in blocks whose edges depend on the bank alone.

torch and FAISS each bring an OpenMP. Whichever is imported first, they may come to share one, so the number of threads
is set for the time of one call, at most one for each core, and put back.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.class_tokens import BLOCK, ClassTokens, Vectors
from cache.errors import WrongUse

KINDS = ("auto", "exact", "ivf", "pq", "hnsw")
EXACT = 50_000  # pictures up to which `auto` compares all
A_CELL = 64  # vectors from which k-means finds one centroid
SCENE = 8  # the same where cells are not for searching but for balance
CODES = 16_384  # vectors, at least, from which the codes of `pq` are learned
LINKS, CARE = 32, 80  # of a graph: links of each vector, and candidates looked at to find them
SAMPLE, TOP, GOAL = 256, 10, 0.95  # pictures searched to measure recall, neighbours of each, and the share to be found
GAIN = 0.005  # of that share; where looking twice as far brings less, codes are what limits it


def chosen(kind: str, pictures: int) -> str:
    """The kind that `auto` stands for. WrongUse for a kind that does not exist."""
    if kind not in KINDS:
        raise WrongUse(f"there is no index of kind '{kind}': choose {', '.join(KINDS[:-1])} or {KINDS[-1]}.")
    return kind if kind != "auto" else "exact" if pictures <= EXACT else "ivf"


def base(pictures: int) -> int:
    """How many of the first pictures centroids come from: the largest power of two within the bank."""
    return 1 << (pictures.bit_length() - 1)


def empty_index(kind: str, tokens: ClassTokens) -> Any:
    """An index without vectors, with its centroids. WrongUse if there are too few pictures or values for codes."""
    import faiss

    E, metric = tokens.width, faiss.METRIC_INNER_PRODUCT
    if kind == "exact":
        return faiss.IndexFlatIP(E)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(E, LINKS, metric)
        index.hnsw.efConstruction = CARE
        return index
    cells, among, quantiser = _cells(len(tokens)), base(len(tokens)), faiss.IndexFlatIP(E)
    if kind == "ivf":
        index = faiss.IndexIVFFlat(quantiser, E, cells, metric)
    elif E % 4 or among < 256:
        raise WrongUse(
            f"codes (--index pq) need 256 pictures and a width that 4 divides, and this bank has {len(tokens):,} of "
            f"width {E}: choose --index exact."
        )
    else:
        index = faiss.IndexIVFPQ(quantiser, E, cells, E // 4, 8, metric)
        index.pq.cp.min_points_per_centroid = 1  # or FAISS warns of samples that a small bank cannot make larger
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, 1 << 30
    count = A_CELL * cells if kind == "ivf" else max(CODES, A_CELL * cells)
    with _threads():
        index.train(tokens.spread(count, among)[1])
    return index


def add(index: Any, tokens: ClassTokens) -> None:
    """Add the vectors that the index does not hold yet. Damaged if a shard has changed."""
    import faiss

    known = index.ntotal
    for first, block in tokens.blocks(known, checked=True):
        new = np.ascontiguousarray(block[max(0, known - first) :])
        with _threads(1 if hasattr(index, "hnsw") else None):  # a graph that several build is never the same twice
            if not hasattr(index, "nlist"):
                index.add(new)
                continue
            whole = np.zeros((BLOCK, tokens.width), np.float32)  # the same product, whichever part of it is new
            whole[: len(block)] = block
            cells = index.quantizer.search(whole, 1)[1][len(block) - len(new) : len(block), 0].copy()
            index.add_core(len(new), faiss.swig_ptr(new), None, faiss.swig_ptr(cells))


def exact(tokens: ClassTokens, queries: Vectors, k: int) -> NDArray[np.int64]:
    """The numbers (n, k) of the vectors with the largest products with each query, every one of them compared."""
    best, numbers = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for first, block in tokens.blocks():
        best = np.concatenate([best, queries @ block.T], 1)
        here = np.broadcast_to(np.arange(first, first + len(block)), (len(queries), len(block)))
        numbers = np.concatenate([numbers, here], 1)
        kept = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, numbers = np.take_along_axis(best, kept, 1), np.take_along_axis(numbers, kept, 1)
    return numbers


def search(index: Any, queries: Vectors, k: int) -> NDArray[np.int64]:
    """The numbers (n, k) of the vectors with the largest products with each query, as far as the index looks."""
    import faiss

    with _threads():
        found = index.search(queries, k)[1]
        few = np.flatnonzero((found < 0).any(1))  # not k vectors in the cells, or within reach of the graph
        if len(few) and hasattr(index, "nlist"):
            everywhere = faiss.SearchParametersIVF(nprobe=index.nlist)
            found[few] = index.search(queries[few], k, params=everywhere)[1]
        elif len(few):
            found[few] = faiss.downcast_index(index.storage).search(queries[few], k)[1]
    return found


def tune(index: Any, tokens: ClassTokens, queries: Vectors, own: NDArray[np.int64] | None = None) -> float:
    """Set how far a search looks, so that it finds GOAL of the queries' true neighbours; returns the share it finds.

    `own` (n,) is the number of each query if it is itself of the bank, and does not count.
    """
    if not _reaches(index):
        return 1.0
    truth = exact(tokens, queries, TOP + 1)
    share = 0.0
    for far in _reaches(index):
        set_reach(index, far)
        before, share = share, recall(search(index, queries, truth.shape[1]), truth, own)
        if share >= GOAL or share < before + GAIN:
            break
    return share


def recall(found: NDArray[np.int64], truth: NDArray[np.int64], own: NDArray[np.int64] | None = None) -> float:
    """The share of the TOP true neighbours, both (n, TOP + 1), that are among those found. `own` as in `tune`."""
    hits = total = 0
    for n, (one, other) in enumerate(zip(found.tolist(), truth.tolist(), strict=True)):
        found_here, true = ([x for x in row if own is None or x != own[n]][:TOP] for row in (one, other))
        hits, total = hits + len(set(found_here) & set(true)), total + len(true)
    return round(hits / max(1, total), 4)


def reach(index: Any) -> int:
    """How far a search looks: cells, or candidates in a graph; 0 if everywhere."""
    return int(index.nprobe if hasattr(index, "nlist") else index.hnsw.efSearch if hasattr(index, "hnsw") else 0)


def set_reach(index: Any, far: int) -> None:
    """The inverse of `reach`."""
    if hasattr(index, "nlist"):
        index.nprobe = far
    elif hasattr(index, "hnsw"):
        index.hnsw.efSearch = far


def cells_of(index: Any) -> NDArray[np.int32]:
    """The cell of each picture (N,): that of the index, or of k-means with SCENE pictures each if it has none."""
    import faiss

    N = index.ntotal
    found = np.empty(N, np.int32)
    if hasattr(index, "nlist"):
        for cell in range(index.nlist):
            lists, size = index.invlists, index.invlists.list_size(cell)
            if size:
                found[faiss.rev_swig_ptr(lists.get_ids(cell), size)] = cell
        return found
    rows = index.reconstruct_n(0, N)
    with _threads():
        means = faiss.Kmeans(index.d, _cells(N, SCENE), spherical=True, min_points_per_centroid=1)
        means.train(rows)
        return means.index.search(rows, 1)[1][:, 0].astype(np.int32)


@contextmanager
def _threads(count: int | None = None) -> Iterator[None]:
    """FAISS may use `count` threads, by default one for each core that this process may use."""
    import faiss

    before = faiss.omp_get_max_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    faiss.omp_set_num_threads(count or min(before, cores))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _cells(pictures: int, each: int = A_CELL) -> int:
    """Some 4 sqrt(N) cells, as FAISS's guidelines have it, but with `each` pictures of the base on the average."""
    return max(1, min(4 << (base(pictures).bit_length() - 1) // 2, base(pictures) // each))


def _reaches(index: Any) -> list[int]:
    if hasattr(index, "nlist"):
        return [1 << n for n in range(int(index.nlist).bit_length())]
    return [1 << n for n in range(4, 11)] if hasattr(index, "hnsw") else []
