"""How postings keep vectors: the FAISS index that encodes and scans them, and the layout its scan expects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from index.spann.durable import whole_file
from index.spann.heads import HeadIndex
from index.spann.kernels import FaissIndex, faiss
from index.spann.parameters import Codec, Metric

CODEC_FILE = "codec.faiss"
ROTATION_FILE = "rotation.faiss"
BLOCK_VECTORS = 32
"""Vectors whose codes are interleaved, and scanned together."""
CODE_BITS = 4
CODED_TOGETHER = (2, 1)
"""Numbers that share a code of four bits: the first of these that divides the dimensions."""
INTERLEAVING = np.asarray([0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15])
"""Order of sixteen vectors in a block of FAISS's fast scan, which its shuffles undo."""


def train_codec(
    residuals: npt.NDArray[np.float32], heads: HeadIndex, codec: Codec, metric: Metric, *, seed: int = 0
) -> FaissIndex:
    """Fit a codec.

    Parameters
    ----------
    residuals
        float32 [n, D]: vectors less their heads; for L2 with ``pq``, whole vectors, see `encodes_residuals`.
    heads
        All heads.
    codec
        Which.
    metric
        What scores are.
    seed
        Of the training.

    Returns
    -------
    faiss.IndexIVF
        Trained, without postings, over the heads.
    """
    index = _untrained(heads, codec, metric)
    if codec == "pq":
        index.pq.cp.seed = seed
        index.pq.cp.niter = 12
        # FAISS subtracts the heads itself in `train`, which would assign all over again.
        index.pq.train(residuals)
        index.init_code_packer()
    elif codec == "sq8":
        index.sq.train(residuals)
    elif codec == "rabitq":
        index.rabitq.train(residuals)
    index.is_trained = True
    return index


def prepare_rotation(folder: Path, codec: Codec, dimensions: int, *, seed: int) -> FaissIndex | None:
    """Give the rotation that heads, vectors and queries go through before the codec sees them; made on the first call.

    The bound on RaBitQ's error holds for directions that are random to the data (Gao, Long, theorem 3.2); distances and
    inner products do not change. The other codecs need none.

    Parameters
    ----------
    folder
        Of the segment.
    codec
        Which.
    dimensions
        D.
    seed
        Of the rotation.

    Returns
    -------
    faiss.VectorTransform or None
        None where vectors stay as they are.
    """
    if codec == "rabitq" and not (folder / ROTATION_FILE).exists():
        rotation = faiss.RandomRotationMatrix(dimensions, dimensions)
        rotation.init(seed)
        with whole_file(folder / ROTATION_FILE) as part:
            faiss.write_VectorTransform(rotation, str(part))
    return open_rotation(folder)


def open_rotation(folder: Path) -> FaissIndex | None:
    """Read the rotation of a segment; None if it has none."""
    path = folder / ROTATION_FILE
    return faiss.read_VectorTransform(str(path)) if path.exists() else None


def rotated(rotation: FaissIndex | None, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rotate vectors, float32 [n, D], contiguous; without a rotation they are given back."""
    if rotation is None:
        return vectors
    turned: npt.NDArray[np.float32] = rotation.apply(vectors)
    return turned


def encodes_residuals(codec: Codec, metric: Metric) -> bool:
    """Say whether codes hold what is left of a vector without its head.

    For inner products the part of the head is one number per posting. For L2 the tables of ``pq`` would have to be
    computed per posting, which costs more than the closer codes gain.
    """
    return codec == "sq8" or codec == "rabitq" or (codec == "pq" and metric != "l2")


def save_codec(index: FaissIndex, path: Path) -> None:
    """Write a codec without the heads."""
    # FAISS keeps bare pointers: what it is given must live until it is taken back.
    quantizer, without_heads = index.quantizer, faiss.IndexFlat(index.d)
    index.quantizer = without_heads
    # It warns on standard error where there are no lists at all.
    lists = faiss.ArrayInvertedLists(index.nlist, index.code_size)
    index.replace_invlists(lists, False)
    faiss.write_index(index, str(path))
    index.replace_invlists(None, False)
    index.quantizer = quantizer


def open_codec(path: Path, heads: HeadIndex) -> FaissIndex:
    """Read what `save_codec` wrote; the index is good as long as `heads` is."""
    index = faiss.read_index(str(path))
    index.own_fields = False
    index.quantizer = heads.flat
    return index


def codec_bytes(index: FaissIndex, rotation: FaissIndex | None) -> int:
    """Say what a codec holds in memory, without the heads: its codebook, and the rotation before it."""
    if isinstance(index, faiss.IndexIVFPQFastScan):
        return int(4 * index.pq.centroids.size())
    if isinstance(index, faiss.IndexIVFScalarQuantizer):
        return int(4 * index.sq.trained.size())
    return 0 if rotation is None else int(4 * rotation.A.size())


def is_interleaved(index: FaissIndex) -> bool:
    """Say whether a posting holds blocks of `BLOCK_VECTORS` instead of one code after another."""
    return isinstance(index, faiss.IndexIVFFastScan)


def encode(index: FaissIndex, vectors: npt.NDArray[np.float32], lists: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Encode vectors, each for a posting.

    Parameters
    ----------
    index
        A trained codec.
    vectors
        float32 [n, D], contiguous.
    lists
        int64 [n]: the head whose posting a code is for.

    Returns
    -------
    numpy.ndarray
        uint8 [n, code bytes], one code after another.
    """
    codes = np.empty((len(vectors), index.code_size), np.uint8)
    index.encode_vectors(len(vectors), faiss.swig_ptr(vectors), faiss.swig_ptr(lists), faiss.swig_ptr(codes))
    return codes


def interleave(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Order codes as FAISS's fast scan reads them.

    A block holds, for each byte of the codes, 16 bytes of its low and 16 of its high halves, of two vectors each.

    Parameters
    ----------
    codes
        uint8 [n, code bytes]; n is a multiple of `BLOCK_VECTORS`.

    Returns
    -------
    numpy.ndarray
        uint8, as many bytes.
    """
    blocks = codes.reshape(-1, BLOCK_VECTORS, codes.shape[1]).transpose(0, 2, 1)
    first, second = blocks[..., INTERLEAVING], blocks[..., INTERLEAVING + 16]
    low = (first & 15) | ((second & 15) << 4)
    high = (first >> 4) | (second & 0xF0)
    return np.concatenate((low, high), axis=2).reshape(-1)


def _untrained(heads: HeadIndex, codec: Codec, metric: Metric) -> FaissIndex:
    measure = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    dimensions = heads.flat.d
    shape = (heads.flat, dimensions, len(heads))
    if codec == "pq":
        width = next(width for width in CODED_TOGETHER if dimensions % width == 0)
        index = faiss.IndexIVFPQFastScan(*shape, dimensions // width, CODE_BITS, measure)
        index.by_residual = encodes_residuals(codec, metric)
    elif codec == "sq8":
        index = faiss.IndexIVFScalarQuantizer(*shape, faiss.ScalarQuantizer.QT_8bit, measure, True)
    elif codec == "rabitq":
        index = faiss.IndexIVFRaBitQ(*shape, measure)
    else:
        index = faiss.IndexIVFFlat(*shape, measure)
    index.replace_invlists(None)
    index.own_fields = False
    return index
