"""The random basis of sketches: the same wherever it is made, and one for all of a width."""

import pytest
import torch

from same.maths._sketch import random_basis
from same.maths.covariance import CovarianceTracker
from tests.maths.test_storages import draw


def test_the_random_basis_is_fixed_and_orthonormal():
    basis = random_basis(200, 30)
    random_basis.cache_clear()
    assert torch.equal(basis, random_basis(200, 30))
    torch.testing.assert_close(basis.float().T @ basis.float(), torch.eye(30), atol=2**-8, rtol=0)
    assert torch.equal(basis.float().bfloat16(), basis)


@pytest.mark.parametrize("storage", ["nystrom", "incremental"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_trackers_and_their_clones_share_one_random_basis(storage, dtype):
    first, second = (CovarianceTracker(40, storage, sketch_size=6, token_stride=2) for _ in range(2))
    for tracker in (first, second):
        tracker.update(draw(30, 40).to(dtype))
    clone = first.clone()
    clone.update(draw(30, 40, 1).to(dtype))
    places = {tracker._storage.shared(dtype).data_ptr() for tracker in (first, second, clone)}
    assert len(places) == 1
    assert first.shared_bytes(dtype) == 40 * 6 * (2 if dtype == torch.bfloat16 and storage == "nystrom" else 4)
    held = [value for value in vars(clone._storage).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.nbytes for tensor in held) == sum(tensor.nbytes for tensor in clone._storage.tensors().values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_shared_basis_stays_as_it_is_and_gives_the_bits_of_one_made_anew(dtype):
    rows, tracker = draw(30, 40).to(dtype), CovarianceTracker(40, "nystrom", sketch_size=6, dtype=torch.float64)
    tracker.update(rows)
    tracker.spectrum()
    random_basis.cache_clear()
    omega = random_basis(40, 6).to(dtype if dtype == torch.bfloat16 else torch.float64)
    rows = rows.to(omega.dtype)
    assert torch.equal(tracker.state_dict()["sketch"], (rows.T @ (rows @ omega)).double())
    assert torch.equal(tracker._storage.shared(dtype), omega)


@pytest.mark.parametrize("storage", ["exact", "frequent_directions"])
def test_storages_without_a_random_basis_share_nothing(storage):
    assert CovarianceTracker(40, storage, sketch_size=6).shared_bytes(torch.float32) == 0
