"""Every row of an epoch is seen once, in the same global batches whatever the number of processes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from same.engine.trainer import plan_epoch, split

SHARES = st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]))


@given(count=st.integers(1, 200), batch_size=st.integers(1, 40), seed=st.integers(0, 3))
def test_no_row_is_dropped_or_repeated(count, batch_size, seed):
    batches = list(plan_epoch(count, batch_size, seed))
    assert sorted(row for batch in batches for row in batch) == list(range(count))


@given(count=st.integers(8, 200), share=SHARES)
def test_processes_and_parts_share_each_global_batch_and_none_goes_empty(count, share):
    processes, parts = share
    for batch in plan_epoch(count, 8, 0):
        shared = [split(batch, rank, processes, parts) for rank in range(processes)]
        assert [row for pieces in shared for piece in pieces for row in piece] == batch
        assert all(piece for pieces in shared for piece in pieces)


@given(count=st.integers(16, 200))
def test_batches_differ_in_length_by_at_most_one(count):
    lengths = {len(batch) for batch in plan_epoch(count, 16, 0)}
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= 16


def test_the_order_depends_on_the_seed_alone():
    assert list(plan_epoch(50, 8, 1)) == list(plan_epoch(50, 8, 1))
    assert list(plan_epoch(50, 8, 1)) != list(plan_epoch(50, 8, 2))


@pytest.mark.parametrize("count", [1, 7])
def test_fewer_rows_than_a_batch_make_one_batch(count):
    assert [len(batch) for batch in plan_epoch(count, 8, 0)] == [count]
