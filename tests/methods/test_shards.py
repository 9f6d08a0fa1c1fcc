"""Rows of parameters that are cut over many processes: each row is on one, and some processes have none."""

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from same.methods._parking import Parking
from same.methods._shards import local, local_gradients, local_rows, whole


@pytest.fixture
def rank_of():
    """Become one rank of a world in which nobody answers; what needs no exchange works."""

    def become(rank, world):
        if distributed.is_initialized():
            distributed.destroy_process_group()
        distributed.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
        return init_device_mesh("cpu", (world,))

    yield become
    distributed.destroy_process_group()


@pytest.mark.parametrize(("rows", "world"), [(8, 16), (3, 2), (20, 8), (8, 1), (16, 4)])
def test_chosen_rows_are_found_where_they_are_and_nowhere_else(rank_of, rows, world):
    values = torch.arange(float(rows * 5)).view(rows, 5)
    chosen = torch.arange(0, rows, 3)
    found, held = [], []
    for rank in range(world):
        cut = distribute_tensor(values.clone(), rank_of(rank, world), [Shard(0)], src_data_rank=None)
        (here,) = local([cut])
        held.append(len(here))
        found.append(here[local_rows(cut, chosen)].clone())
        here.mul_(2)
        assert torch.equal(cut.to_local(), here)
    assert torch.equal(torch.cat(found), values[chosen])
    assert sum(held) == rows
    assert (min(held) == 0) == (rows < world or rows == 20)


def test_plain_parameters_pass_through():
    first, second = (torch.nn.Parameter(torch.randn(3, 2)) for _ in range(2))
    first.grad = torch.ones(3, 2)
    assert local([first, second])[1] is second
    assert local_gradients([first, second])[0] is first.grad
    assert len(local_gradients([first, second])) == 1
    assert whole([first, second])[0] is first
    assert torch.equal(local_rows(first, torch.tensor([0, 2])), torch.tensor([0, 2]))


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_moments_of_cut_parameters_come_back_with_the_same_cut(rank_of, rank):
    mesh = rank_of(rank, 4)
    values = torch.arange(15.0).view(5, 3)
    cut, other = (torch.nn.Parameter(distribute_tensor(values, mesh, [Shard(0)], src_data_rank=None)) for _ in range(2))
    cut.grad = distribute_tensor(values + 1, mesh, [Shard(0)], src_data_rank=None)
    optimizer, parking = torch.optim.AdamW([cut, other]), Parking()
    optimizer.step()
    before = dict(optimizer.state[cut])
    parking.settle(optimizer, [cut, other])
    assert cut not in optimizer.state
    assert other not in optimizer.state
    parking.settle(optimizer, [])
    assert other not in optimizer.state
    after = optimizer.state[cut]
    assert after.keys() == before.keys()
    assert after["step"] == 1
    for name in ("exp_avg", "exp_avg_sq"):
        assert (after[name].shape, after[name].placements) == (before[name].shape, before[name].placements)
        assert torch.equal(after[name].to_local(), before[name].to_local())
