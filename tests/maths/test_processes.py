"""Covariances merged over processes: every one then holds the same bits."""

import threading

import pytest
import torch

from tests.maths.test_storages import ALL, ROWS, draw, tracked


def in_processes(world, work):
    """Run `work(rank, all_reduce)` in threads that sum their tensors together."""
    barrier, box, results = threading.Barrier(world), [None] * world, [None] * world

    def run(rank):
        def all_reduce(tensor):
            box[rank] = tensor.clone()
            barrier.wait(30)
            total = sum(box)
            barrier.wait(30)
            tensor.copy_(total)

        try:
            results[rank] = work(rank, all_reduce)
        except ValueError as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


@pytest.mark.parametrize("storage", ALL)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_process_holds_the_bits_of_a_merge_in_rank_order(storage, world):
    parts = draw(400, 11).split([200, 50, 150])[:world]

    def work(rank, all_reduce):
        mine = tracked(storage, parts[rank], size=4)
        mine.reduce(all_reduce, rank, world)
        return mine

    found = in_processes(world, work)
    expected = tracked(storage, parts[0], size=4)
    for part in parts[1:]:
        expected.merge(tracked(storage, part, size=4))
    for each in found:
        for mine, theirs in zip(each.state_dict().values(), expected.state_dict().values(), strict=True):
            assert torch.equal(mine, theirs)
        assert torch.equal(each.spectrum().eigenvectors, expected.spectrum().eigenvectors)


@pytest.mark.parametrize("storage", ROWS)
def test_a_wrong_number_of_processes_is_refused(storage):
    def work(rank, all_reduce):
        tracked(storage, draw(20, 6), size=4).reduce(all_reduce)

    for error in in_processes(2, work):
        assert isinstance(error, ValueError)
        assert "got 0 and 1 of 2" in str(error)
