"""The uncentred covariance of a layer's inputs over all past tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from same.maths._frequent_directions import FrequentDirections
from same.maths._incremental import IncrementalSketch
from same.maths._nystrom import NystromSketch
from same.maths._sketch import Sketch
from same.maths._storage import ExactStorage, Place, Slots, Storage, find_slots, squared_norms
from same.maths.spectrum import Spectrum

__all__ = ["CovarianceSettings", "CovarianceTracker", "Spectrum", "StorageName", "squared_norms"]

StorageName = Literal["exact", "nystrom", "frequent_directions", "incremental"]

SKETCHES: dict[str, type[Sketch]] = {
    "nystrom": NystromSketch,
    "frequent_directions": FrequentDirections,
    "incremental": IncrementalSketch,
}


@dataclass(frozen=True)
class CovarianceSettings:
    """How covariances are stored.

    Args:
        storage: for inputs wider than `exact_max_dim`; narrower ones, and all with "exact", are stored in full.
        exact_max_dim: widest input stored in full, d² numbers.
        sketch_size: directions that a sketch holds; 192 is cheap, 320 accurate.
        token_stride: one in so many valid tokens counts; their number, and the trace of a sketch, are of all.
        centered: remove the mean (for comparison; the paper's covariance is not centred).
    """

    storage: StorageName = "nystrom"
    exact_max_dim: int = 1024
    sketch_size: int = 192
    token_stride: int = 16
    centered: bool = False

    def directions(self, dim: int) -> int:
        """Directions that are held of inputs of width `dim`."""
        return dim if self.storage == "exact" or dim <= self.exact_max_dim else min(self.sketch_size, dim)

    def tracker(
        self, dim: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> CovarianceTracker:
        """An empty tracker of inputs of width `dim`."""
        return CovarianceTracker(
            dim,
            "exact" if dim <= self.exact_max_dim else self.storage,
            sketch_size=self.sketch_size,
            token_stride=self.token_stride,
            centered=self.centered,
            dtype=dtype,
            device=device,
        )


class CovarianceTracker:
    """Counts inputs batch by batch and gives the spectrum of their covariance.

    With "exact" and "nystrom" every operation is a sum, so order and grouping do not matter; "frequent_directions" and
    "incremental" depend on them within their errors. What is kept does not grow with the tokens or the tasks.

    Source: SAME, C^t = (α_{t-1} C^{t-1} + n_t Ĉ^t) / α_t, kept as the sums α_t C^t and α_t.

    Args:
        dim: width d of the inputs.
        storage: "exact" [d, d]; "nystrom", "frequent_directions" and "incremental" [d, sketch_size].
        sketch_size: directions that a sketch holds.
        token_stride: one in so many valid tokens counts.
        centered: remove the mean (for comparison; the paper's covariance is not centred).
        dtype: of the sums; at least float32.
    """

    def __init__(
        self,
        dim: int,
        storage: StorageName = "exact",
        *,
        sketch_size: int = CovarianceSettings.sketch_size,
        token_stride: int = 1,
        centered: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype of the sums must be float32 or float64; got {dtype}. Inputs may be of any dtype.")
        if storage not in get_args(StorageName):
            raise ValueError(f"storage must be one of {', '.join(get_args(StorageName))}; got {storage!r}.")
        if sketch_size < 1 or token_stride < 1:
            raise ValueError(
                f"sketch_size and token_stride must be at least 1; got {sketch_size} and {token_stride}. "
                "192 and 16 are the usual ones."
            )
        place = Place(dtype, device, centered)
        self.dim, self.token_stride, self.dtype = dim, token_stride, dtype
        self._storage: Storage
        if storage == "exact":
            self._storage = ExactStorage(dim, token_stride, place)
        else:
            self._storage = SKETCHES[storage](dim, sketch_size, token_stride, place)
        self.tokens = place.count()

    @torch.no_grad()
    def update(
        self,
        inputs: Float[Tensor, "*batch d"],
        valid: Bool[Tensor, "*batch"] | None = None,
        energy: Float[Tensor, " tokens"] | None = None,
        streams: Int64[Tensor, " streams"] | None = None,
        slots: Slots | None = None,
    ) -> None:
        """Count a batch of tokens. Never waits for the device (but for Frequent Directions on CUDA, see there).

        Args:
            inputs: tokens, in order.
            valid: those where it is False leave no trace; None counts all.
            energy: `squared_norms` of the tokens, where the caller has them already.
            streams: numbers of the streams of tokens that `inputs` [streams, tokens, d] holds whole. Which of a
                stream's tokens count then depends on its number and its own valid tokens, not on who came before or is
                beside it, so batches and processes may be cut anyhow. Without it all tokens ever given are one stream.
            slots: what `slots` gave for these streams, where the caller has it already.
        """
        if inputs.shape[-1] != self.dim:
            raise ValueError(f"inputs must be {self.dim} wide; got shape {tuple(inputs.shape)}.")
        if inputs.numel() == 0:
            return
        rows = inputs.detach()
        if streams is None:
            rows, valid = rows.reshape(1, -1, self.dim), None if valid is None else valid.reshape(1, -1)
            phase = torch.remainder(-self.tokens, self.token_stride).long()[None]
            slots = find_slots(rows.shape, valid, phase, self.token_stride)
        elif slots is None:
            slots = self.slots(rows.shape, valid, streams)
        self._storage.add(rows, valid, slots, energy)
        self.tokens += slots.tokens

    def slots(
        self, shape: Sequence[int], valid: Bool[Tensor, "streams tokens"] | None, streams: Int64[Tensor, " streams"]
    ) -> Slots:
        """Which tokens of numbered streams count; the same for all trackers of one stride, so found once for them."""
        return find_slots(shape, valid, torch.remainder(streams, self.token_stride), self.token_stride)

    @torch.no_grad()
    def merge(self, other: CovarianceTracker) -> None:
        """Add what another tracker of the same storage, size and stride counted.

        Raises:
            ValueError: it is of another storage, size or stride.
        """
        shapes = [{name: value.shape for name, value in each._tensors().items()} for each in (self, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"trackers must be of one storage and size to merge; got {shapes[0]} and {shapes[1]}. "
                "Make both with the same settings."
            )
        if self.token_stride != other.token_stride:  # the sums would weigh each by the tokens it sampled
            raise ValueError(
                f"trackers must count one in as many tokens to merge; got strides {self.token_stride} and "
                f"{other.token_stride}. Make both with the same settings."
            )
        self._storage.merge(other._storage)
        self.tokens += other.tokens

    @torch.no_grad()
    def reduce(self, all_reduce: Callable[[Tensor], None], rank: int = 0, world: int = 1) -> None:
        """Merge over processes, in place: every process then holds the same bits.

        Args:
            all_reduce: sums a tensor over all processes, in place.
            rank: this process's number; only the storages that are no sums ask for it.
            world: number of processes.
        """
        self._storage.reduce(all_reduce, rank, world)
        all_reduce(self.tokens)

    @property
    def counted(self) -> Tensor:
        """How many tokens the spectrum is of: one in `token_stride`."""
        return self._storage.sampled

    def shared_bytes(self, dtype: torch.dtype) -> int:
        """Bytes beside the state that all trackers of one storage, size and device share, for inputs of `dtype`."""
        shared = self._storage.shared(dtype)
        return 0 if shared is None else shared.nbytes

    def clone(self) -> CovarianceTracker:
        return deepcopy(self)

    @torch.no_grad()
    def spectrum(self) -> Spectrum:
        """Eigenvalues and eigenvectors in float64: all d, or those that the sketch holds (waits for the device)."""
        if not self.counted:
            raise ValueError("a spectrum needs at least one token; got none. Update the tracker first.")
        return self._storage.spectrum(float(self.tokens))

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all that is counted, flat and ready for safetensors; as large after ten tasks as after one."""
        return {name: tensor.clone() for name, tensor in self._tensors().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` of a tracker with the same settings gave; the stride is not in it.

        Raises:
            ValueError: it is of another storage or size.
        """
        for name, mine in self._tensors().items():
            if name not in state or mine.shape != state[name].shape:
                found = tuple(state[name].shape) if name in state else "none"
                raise ValueError(
                    f"{name} must have shape {tuple(mine.shape)}; got {found}. Use the storage and size that saved it."
                )
            mine.copy_(state[name])

    def _tensors(self) -> dict[str, Tensor]:
        return {**self._storage.tensors(), "tokens": self.tokens}
