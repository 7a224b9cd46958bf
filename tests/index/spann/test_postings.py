from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.spann.closure import assign_replicas
from index.spann.codecs import BLOCK_VECTORS, encode, interleave, train_codec
from index.spann.heads import HeadIndex
from index.spann.kernels import faiss
from index.spann.parameters import Codec, Metric
from index.spann.postings import Postings, cut_postings, sort_members, write_postings
from tests.index.spann.clouds import cloud


def test_codes_are_interleaved_as_faiss_does_it() -> None:
    vectors = cloud(64, 8)
    index = faiss.IndexPQFastScan(8, 4, 4)
    index.train(vectors)
    index.add(vectors)
    codes = index.pq.compute_codes(vectors)
    expected = faiss.rev_swig_ptr(index.codes.get(), codes.size)
    np.testing.assert_array_equal(interleave(codes), expected)
    assert len(codes) % BLOCK_VECTORS == 0


@settings(max_examples=40)
@given(st.data())
def test_members_are_the_closure_turned_round(data: st.DataObject) -> None:
    heads, count, replicas = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 30)), data.draw(st.integers(1, 3))
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    closure = np.full((count, replicas), -1, np.int32)
    for row in closure:
        chosen = random.permutation(heads)[: random.integers(1, replicas + 1)]
        row[: len(chosen)] = chosen
    limit = data.draw(st.integers(1, 12))
    kept = cut_postings(closure, heads, limit)
    members, starts = sort_members(closure, kept)
    own = np.bincount(closure[:, 0], minlength=heads)
    for head in range(heads):
        rows = members[starts[head] : starts[head + 1]].tolist()
        assert rows == sorted(set(rows))
        assert set(np.flatnonzero(closure[:, 0] == head).tolist()) <= set(rows)
        assert all(head in closure[row] for row in rows)
        assert len(rows) <= max(limit, own[head])
    if limit >= count:
        assert len(members) == int((closure >= 0).sum())


@pytest.mark.parametrize("codec", ["pq", "sq8", "float32", "rabitq"])
@pytest.mark.parametrize("metric", ["ip", "l2"])
def test_mapped_postings_hold_what_was_written(codec: Codec, metric: Metric, tmp_path: Path) -> None:
    vectors = cloud(700, 12)
    heads = HeadIndex.build(np.ascontiguousarray(vectors[::20]), metric)
    closure = assign_replicas(vectors, heads, replicas=3)
    members, starts = sort_members(closure, cut_postings(closure, len(heads), 1000))
    index = train_codec(vectors, heads, codec, metric)
    write_postings(tmp_path, vectors, members, starts, index)
    postings = Postings(tmp_path, index)
    lists = index.invlists
    for head in range(len(heads)):
        size = int(starts[head + 1] - starts[head])
        assert lists.list_size(head) == size
        if size:
            rows = faiss.rev_swig_ptr(lists.get_ids(head), size)
            np.testing.assert_array_equal(rows, members[starts[head] : starts[head + 1]])
    if codec != "pq":
        rows = members[starts[3] : starts[4]]
        codes = faiss.rev_swig_ptr(lists.get_codes(3), len(rows) * index.code_size).reshape(len(rows), -1)
        np.testing.assert_array_equal(codes, encode(index, np.ascontiguousarray(vectors[rows]), np.full(len(rows), 3)))
    postings.fetch(np.array([[0, 3, -1], [3, 5, 5]]))
    assert postings.page_bytes(np.array([[0, -1]])) in (4096, 8192)
    postings.close()
    postings.close()
