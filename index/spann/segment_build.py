"""Building a segment: phases that each end in a file, so that a build that was killed goes on where it stopped.

::

    vectors.f32      the vectors as they came, checked; every `CHECKPOINT_BYTES` are a point to go on from
    chosen.f32       the heads (scratch)
    heads.f32/.faiss the heads, rotated if the codec wants it (rotation.faiss), and the way to them
    closure.i32      the postings of every vector (scratch)
    codec.faiss      how postings keep vectors
    postings.bin/.u64
    segment.json     written last: what the other files must be

A file has its name only once it is whole and on the disk. Vectors are read from the mapped file; what is held in memory
is one block of them, the heads, 4 bytes per vector and possible replica, and some 20 per replica.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from index.manifest import sync
from index.spann import codecs, heads, postings
from index.spann.closure import assign_replicas
from index.spann.clustering import choose_heads, move_heads
from index.spann.durable import PART_SUFFIX, whole_file, write_json
from index.spann.heads import HeadIndex
from index.spann.kernels import FaissIndex
from index.spann.parameters import Metric, SpannParameters
from index.spann.vectors import MappedFile, VectorStream, prepare_vectors
from rankers.errors import InvalidInputError

VECTORS_FILE = "vectors.f32"
SEGMENT_FILE = "segment.json"
STATE_FILE = "build.json"
CHOSEN_FILE = "chosen.f32"
CLOSURE_FILE = "closure.i32"
STRUCTURE_FILES = (
    heads.VECTORS_FILE,
    heads.ACCESS_FILE,
    codecs.ROTATION_FILE,
    codecs.CODEC_FILE,
    postings.POSTINGS_FILE,
    postings.DIRECTORY_FILE,
)
EXACT_VECTORS = 2_048
"""Up to so many vectors a segment is only their file: comparing all is faster than anything else."""
BLOCK_ROWS = 16_384
CLOSURE_ROWS = 2_048
TRAINING_VECTORS = 16_384
CHECKPOINT_BYTES = 1 << 28
READ_BYTES = 1 << 22
Progress = Callable[[str, int, int], None]


def build_segment(
    folder: Path, vectors: VectorStream, parameters: SpannParameters, on_progress: Progress | None = None
) -> None:
    """Build a segment, or finish one whose build was interrupted; see `Segment.build`."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / SEGMENT_FILE).exists():
        raise InvalidInputError(f"{folder} holds a finished segment, which never changes; build into another folder")
    progress = on_progress or _no_progress
    if len(vectors) > EXACT_VECTORS:
        parameters = parameters.with_codec(len(vectors), vectors.dimensions)
    _begin(folder, vectors, parameters)
    if not (folder / VECTORS_FILE).exists():
        _write_vectors(folder, vectors, parameters.metric, progress)
    names = [VECTORS_FILE]
    if len(vectors) > EXACT_VECTORS:
        names += _write_structures(folder, vectors.dimensions, parameters, progress)
    info = {
        "vectors": len(vectors),
        "dimensions": vectors.dimensions,
        "parameters": asdict(parameters),
        "files": {name: {"bytes": (folder / name).stat().st_size, "crc32": checksum(folder / name)} for name in names},
    }
    write_json(folder / SEGMENT_FILE, info)
    for name in (STATE_FILE, CHOSEN_FILE, CLOSURE_FILE):
        (folder / name).unlink(missing_ok=True)
    sync(folder)


def checksum(path: Path) -> int:
    """Give the CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            crc = zlib.crc32(block, crc)
    return crc


def _no_progress(phase: str, done: int, total: int) -> None:
    pass


def _begin(folder: Path, vectors: VectorStream, parameters: SpannParameters) -> None:
    """Keep what an earlier attempt left if it was at the same work, else remove it."""
    first = next(iter(vectors.blocks(1)), np.empty(0, np.float32))
    work = {
        "parameters": asdict(parameters),
        "vectors": len(vectors),
        "dimensions": vectors.dimensions,
        "first": zlib.crc32(first.tobytes()),
    }
    path = folder / STATE_FILE
    try:
        same = json.loads(path.read_text())["work"] == json.loads(json.dumps(work))
    except (OSError, ValueError, KeyError):
        same = False
    if not same:
        for name in (VECTORS_FILE, CHOSEN_FILE, CLOSURE_FILE, *STRUCTURE_FILES):
            (folder / name).unlink(missing_ok=True)
            (folder / f"{name}{PART_SUFFIX}").unlink(missing_ok=True)
        write_json(path, {"work": work, "rows": 0})


def _write_vectors(folder: Path, vectors: VectorStream, metric: Metric, progress: Progress) -> None:
    state = json.loads((folder / STATE_FILE).read_text())
    row_bytes = 4 * vectors.dimensions
    row = unsynced = 0
    with whole_file(folder / VECTORS_FILE) as part, part.open("r+b" if part.exists() else "w+b") as file:
        done = min(int(state["rows"]), part.stat().st_size // max(1, row_bytes))
        file.truncate(done * row_bytes)
        file.seek(0, os.SEEK_END)
        for block in vectors.blocks(BLOCK_ROWS):
            first, row = row, row + len(block)
            if row <= done:
                continue
            new = block[max(0, done - first) :]
            file.write(prepare_vectors(new, metric, first_row=row - len(new)).tobytes())
            unsynced += new.nbytes
            if unsynced >= CHECKPOINT_BYTES:
                file.flush()
                os.fsync(file.fileno())
                write_json(folder / STATE_FILE, {**state, "rows": row})
                unsynced = 0
            progress("vectors", row, len(vectors))
        if row != len(vectors):
            raise InvalidInputError(
                f"a stream of {len(vectors):,} vectors gave {row:,}; it must not change while it is read"
            )


def _write_structures(folder: Path, dimensions: int, parameters: SpannParameters, progress: Progress) -> list[str]:
    """Run the phases after the vectors; gives the names of the files that stay."""
    metric = parameters.metric
    file = MappedFile(folder / VECTORS_FILE, read_ahead=True)
    vectors = file.content.view(np.float32).reshape(-1, dimensions)
    count = max(1, min(parameters.heads(len(vectors), dimensions), len(vectors)))
    if not (folder / CHOSEN_FILE).exists():
        rows = choose_heads(vectors, count, seed=parameters.seed, on_progress=progress)
        rows = rows[np.arange(min(count, len(rows))) * len(rows) // min(count, len(rows))]  # never more than wanted
        moved = move_heads(vectors, HeadIndex.build(np.ascontiguousarray(vectors[rows]), "l2"))
        with whole_file(folder / CHOSEN_FILE) as part:
            moved.tofile(part)
    chosen = np.fromfile(folder / CHOSEN_FILE, np.float32).reshape(-1, dimensions)
    if not (folder / CLOSURE_FILE).exists():
        # Whatever the metric, what is near lies together.
        nearest = HeadIndex.build(chosen, "l2")
        with whole_file(folder / CLOSURE_FILE) as part:
            _closure(vectors, nearest, parameters, progress).tofile(part)
    rotation = codecs.prepare_rotation(folder, parameters.codec_or_default, dimensions, seed=parameters.seed)
    if not (folder / heads.VECTORS_FILE).exists():
        HeadIndex.build(codecs.rotated(rotation, chosen), metric).save(folder)
    head_index = HeadIndex.open(folder, dimensions, metric)
    closure = np.fromfile(folder / CLOSURE_FILE, np.int32).reshape(len(vectors), -1)
    if not (folder / codecs.CODEC_FILE).exists():
        codec = _trained(vectors, closure, head_index, parameters, rotation)
        with whole_file(folder / codecs.CODEC_FILE) as part:
            codecs.save_codec(codec, part)
    if not (folder / postings.DIRECTORY_FILE).exists():
        codec = codecs.open_codec(folder / codecs.CODEC_FILE, head_index)
        kept = postings.cut_postings(closure, len(head_index), parameters.posting_limit)
        members, starts = postings.sort_members(closure, kept)
        postings.write_postings(folder, vectors, members, starts, codec, rotation=rotation, on_progress=progress)
    file.close()
    return [name for name in STRUCTURE_FILES if (folder / name).exists()]


def _closure(
    vectors: npt.NDArray[np.float32], head_index: HeadIndex, parameters: SpannParameters, progress: Progress
) -> npt.NDArray[np.int32]:
    closure = np.empty((len(vectors), parameters.replicas), np.int32)
    for start in range(0, len(vectors), CLOSURE_ROWS):
        block = np.ascontiguousarray(vectors[start : start + CLOSURE_ROWS])
        closure[start : start + len(block)] = assign_replicas(
            block, head_index, replicas=parameters.replicas, rng_factor=parameters.rng_factor
        )
        progress("closure", start + len(block), len(vectors))
    return closure


def _trained(
    vectors: npt.NDArray[np.float32],
    closure: npt.NDArray[np.int32],
    head_index: HeadIndex,
    parameters: SpannParameters,
    rotation: FaissIndex | None,
) -> FaissIndex:
    random = np.random.default_rng(parameters.seed)
    rows = np.sort(random.choice(len(vectors), min(TRAINING_VECTORS, len(vectors)), replace=False))
    sample = codecs.rotated(rotation, np.ascontiguousarray(vectors[rows]))
    codec = parameters.codec_or_default
    if codecs.encodes_residuals(codec, parameters.metric):
        sample = sample - head_index.array[closure[rows, 0]]
    return codecs.train_codec(np.ascontiguousarray(sample), head_index, codec, parameters.metric, seed=parameters.seed)
