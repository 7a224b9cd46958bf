"""Postings on disk: which vectors each head stands for, in one file that is mapped and scanned in place.

A posting is its codes, then its rows as int64. Postings follow one another in the order of heads, so that those of near
heads share pages.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.spann.codecs import BLOCK_VECTORS, encode, interleave, is_interleaved, rotated
from index.spann.durable import whole_file
from index.spann.kernels import FaissIndex, faiss
from index.spann.memory import PAGE_BYTES
from index.spann.vectors import MappedFile

POSTINGS_FILE = "postings.bin"
DIRECTORY_FILE = "postings.u64"
"""uint64 [H, 2]: vectors in a posting, and where it starts."""
ALIGNMENT = 64
CHUNK_MEMBERS = 32_768
FAISS_RECORD_BYTES = 24
Progress = Callable[[str, int, int], None]


def cut_postings(closure: npt.NDArray[np.int32], heads: int, limit: int) -> npt.NDArray[np.int64]:
    """Say how many replicas count in each posting, so that none is longer than the limit where that can be.

    Parameters
    ----------
    closure
        int32 [N, R]: heads per vector, nearest first, -1 for none.
    heads
        H.
    limit
        Longest posting. One whose own vectors are more keeps them all: nothing is ever lost.

    Returns
    -------
    numpy.ndarray
        int64 [H]: a copy in column r of the closure stays if r is less than this; at least 1.
    """
    lengths = np.zeros(heads, np.int64)
    kept = np.ones(heads, np.int64)
    full = np.zeros(heads, np.bool_)
    for column in range(closure.shape[1]):
        members = closure[:, column]
        lengths += np.bincount(members[members >= 0], minlength=heads)
        full |= lengths > limit
        if column:
            kept[~full] = column + 1
    return kept


def sort_members(
    closure: npt.NDArray[np.int32], kept: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Turn "heads of a vector" into "vectors of a head".

    Parameters
    ----------
    closure
        int32 [N, R], as `assign_replicas` gives it.
    kept
        int64 [H], as `cut_postings` gives it.

    Returns
    -------
    tuple of numpy.ndarray
        int64 [members]: rows, head after head, ascending in each; and int64 [H + 1]: where each head's begin.
    """
    stays = closure >= 0
    for column in range(1, closure.shape[1]):
        stays[:, column] &= kept[closure[:, column]] > column
    heads = closure[stays]
    rows = np.nonzero(stays)[0]
    order = np.argsort(heads, kind="stable")
    starts = np.concatenate(([0], np.cumsum(np.bincount(heads, minlength=len(kept)))))
    return rows[order], starts


def write_postings(
    folder: Path,
    vectors: npt.NDArray[np.float32],
    members: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    codec: FaissIndex,
    *,
    rotation: FaissIndex | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Encode all postings and write `POSTINGS_FILE` and `DIRECTORY_FILE`.

    Parameters
    ----------
    folder
        Where they go.
    vectors
        float32 [N, D], usually mapped from a file.
    members
        int64: rows, head after head.
    starts
        int64 [H + 1]: where each head's members begin.
    codec
        Trained.
    rotation
        What vectors go through before they are encoded.
    on_progress
        Called with ``"postings"``, members written and members.
    """
    heads = len(starts) - 1
    directory = np.zeros((heads, 2), np.uint64)
    directory[:, 0] = np.diff(starts)
    at = 0
    first = 0
    with whole_file(folder / POSTINGS_FILE) as part, part.open("wb") as file:
        while first < heads:
            last = max(first + 1, int(np.searchsorted(starts, starts[first] + CHUNK_MEMBERS, side="right")) - 1)
            rows = members[starts[first] : starts[last]]
            lists = np.repeat(np.arange(first, last), np.diff(starts[first : last + 1]))
            codes = encode(codec, rotated(rotation, np.ascontiguousarray(vectors[rows])), lists)
            for head in range(first, last):
                own = slice(starts[head] - starts[first], starts[head + 1] - starts[first])
                content = _posting(codes[own], rows[own], interleaved=is_interleaved(codec))
                directory[head, 1] = at
                padding = -len(content) % ALIGNMENT
                file.write(content + bytes(padding))
                at += len(content) + padding
            first = last
            if on_progress is not None:
                on_progress("postings", int(starts[last]), len(members))
    with whole_file(folder / DIRECTORY_FILE) as part:
        directory.tofile(part)


def _posting(codes: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], *, interleaved: bool) -> bytes:
    if not interleaved:
        return codes.tobytes() + rows.tobytes()
    padded = np.zeros((-(-len(rows) // BLOCK_VECTORS) * BLOCK_VECTORS, codes.shape[1]), np.uint8)
    padded[: len(codes)] = codes
    return interleave(padded).tobytes() + rows.tobytes()


def _capacity(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return -(-sizes // BLOCK_VECTORS) * BLOCK_VECTORS


class Postings:
    """The mapped postings of a segment, as the inverted lists of its codec.

    Parameters
    ----------
    folder
        Where `write_postings` wrote.
    codec
        The index that scans them; it is given the lists.
    """

    _lists: Any = None

    def __init__(self, folder: Path, codec: FaissIndex) -> None:
        self._file = MappedFile(folder / POSTINGS_FILE)
        directory = np.fromfile(folder / DIRECTORY_FILE, np.uint64).reshape(-1, 2)
        sizes = directory[:, 0].astype(np.int64)
        capacities = _capacity(sizes) if is_interleaved(codec) else sizes
        self._starts = directory[:, 1].astype(np.int64)
        self._sizes = sizes.astype(np.int32)
        self._code_size = codec.code_size
        self._is_interleaved = is_interleaved(codec)
        records = np.ascontiguousarray(np.stack((sizes, capacities, self._starts), axis=1).astype(np.uint64))
        self._lists = faiss.OnDiskInvertedLists()
        self._lists.nlist = len(sizes)
        self._lists.code_size = codec.code_size
        self._lists.lists.resize(len(sizes))
        faiss.memcpy(self._lists.lists.data(), faiss.swig_ptr(records), records.nbytes)
        self._lists.ptr = faiss.swig_ptr(self._file.content)
        self._lists.read_only = True
        # FAISS would start threads for every search; `fetch` needs none.
        self._lists.prefetch_nthread = 0
        self._codec = codec
        codec.replace_invlists(self._lists, False)

    def fetch(self, heads: npt.NDArray[np.int64]) -> None:
        """Ask the system to read the postings of heads, all at the same time, without waiting for them."""
        wanted = np.unique(heads)
        wanted = wanted[wanted >= 0]
        if len(wanted):
            self._file.fetch(self._starts[wanted], self._stops(wanted))

    def rows(self, lists: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Give the rows in any of some postings, int64 [n] with -1 for none, each once and ascending."""
        wanted = lists[lists >= 0]
        stops = self._stops(wanted)
        starts = stops - 8 * self._sizes[wanted].astype(np.int64)
        spans = zip(starts.tolist(), stops.tolist(), strict=True)
        parts = [self._file.content[start:stop].view(np.int64) for start, stop in spans]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def page_bytes(self, lists: npt.NDArray[np.int64]) -> int:
        """Count the bytes of pages that postings, int64 [B, n] with -1 for none, span for all queries together."""
        total = 0
        for row in lists:
            wanted = row[row >= 0]
            first, last = self._starts[wanted] // PAGE_BYTES, (self._stops(wanted) - 1) // PAGE_BYTES
            total += int((last - first + 1).sum()) * PAGE_BYTES
        return total

    @property
    def memory_bytes(self) -> int:
        """What it holds in memory: its records, and those of FAISS."""
        return self._starts.nbytes + self._sizes.nbytes + FAISS_RECORD_BYTES * len(self._sizes)

    def _stops(self, heads: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        sizes = self._sizes[heads].astype(np.int64)
        places = _capacity(sizes) if self._is_interleaved else sizes
        stops: npt.NDArray[np.int64] = self._starts[heads] + places * self._code_size + 8 * sizes
        return stops

    def close(self) -> None:
        """Take the lists from the codec and let go of the file."""
        if self._lists is not None:
            self._codec.replace_invlists(None, False)
            # The map is ours: FAISS must not unmap it.
            self._lists.ptr = None
            self._lists = None
            self._file.close()

    def __del__(self) -> None:
        self.close()
