"""Theorems of every covariance storage against the dense formula, in float64."""

from itertools import pairwise, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from same.maths._sketch import without_mean
from same.maths._storage import every, find_slots
from same.maths.covariance import CovarianceTracker, squared_norms

ALL = ("exact", "nystrom", "frequent_directions", "incremental")
SUMS = ("exact", "nystrom")  # linear in x xᵀ
ROWS = ("frequent_directions", "incremental")
shapes = st.tuples(st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))  # tokens, width, seed
some = settings(max_examples=25, deadline=None)


def draw(tokens, dim, seed=0, rank=None):
    """Tokens whose spectrum decays, of full or given rank."""
    generator = torch.Generator().manual_seed(seed)
    held = dim if rank is None else rank
    rows = torch.randn(tokens, held, dtype=torch.float64, generator=generator) * 0.8 ** torch.arange(held)
    return rows @ torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator))[0][:held]


def tracked(storage, *batches, dim=None, size=64, stride=1, **settings):
    tracker = CovarianceTracker(
        dim or batches[0].shape[-1], storage, sketch_size=size, token_stride=stride, dtype=torch.float64, **settings
    )
    for batch in batches:
        tracker.update(batch)
    return tracker


def mean_square(rows):
    return rows.T @ rows / len(rows)


def close(first, second, scale=1e-9):
    torch.testing.assert_close(first, second, rtol=0, atol=scale * max(1e-300, float(second.abs().max())))


@pytest.mark.parametrize("storage", ALL)
@given(shape=shapes)
@some
def test_as_many_directions_as_dimensions_give_the_exact_spectrum(storage, shape):
    rows = draw(*shape)
    spectrum = tracked(storage, rows).spectrum()
    dense = mean_square(rows)
    close(spectrum.matrix(), dense)
    close(spectrum.eigenvalues, torch.linalg.eigvalsh(dense).flip(0).clamp_min(0))
    assert spectrum.eigenvectors.shape == (shape[1], shape[1])
    assert spectrum.trace == pytest.approx(float(dense.trace()), rel=1e-12)
    for k in (1, shape[1]):
        best = torch.linalg.eigvalsh(dense).flip(0).clamp_min(0)[:k].sum()
        close((spectrum.eigenvectors[:, :k].T @ dense @ spectrum.eigenvectors[:, :k]).trace(), best)


@pytest.mark.parametrize("storage", ALL)
@pytest.mark.parametrize("size", [3, 5, 20])
def test_spectra_are_orthonormal_descending_and_not_negative(storage, size):
    spectrum = tracked(storage, draw(60, 12), size=size).spectrum()
    count = len(spectrum.eigenvalues)
    assert count == (12 if storage == "exact" else min(size, 12))
    torch.testing.assert_close(spectrum.eigenvectors.T @ spectrum.eigenvectors, torch.eye(count, dtype=torch.float64))
    assert (spectrum.eigenvalues.diff() <= 0).all()
    assert (spectrum.eigenvalues >= 0).all()
    assert spectrum.eigenvalues.sum() <= spectrum.trace * (1 + 1e-9)
    assert spectrum.eigenvalues.dtype == torch.float64


@pytest.mark.parametrize("storage", ALL)
def test_inputs_of_low_rank_are_stored_exactly_in_any_order(storage):
    rows = draw(70, 15, rank=4)
    parts = rows.split([10, 1, 30, 29])
    for order in permutations(range(4)):
        merged = tracked(storage, dim=15, size=7)
        for index in order:
            merged.merge(tracked(storage, parts[index], size=7))
        close(merged.spectrum().matrix(), mean_square(rows), 1e-8)
        assert merged.spectrum().tokens == 70


@pytest.mark.parametrize("storage", SUMS)
@pytest.mark.parametrize("size", [3, 64])
@given(shape=shapes, cuts=st.lists(st.integers(0, 40), max_size=4))
@some
def test_sums_do_not_depend_on_grouping_or_order(storage, size, shape, cuts):
    rows = draw(*shape)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [rows[a:b] for a, b in pairwise(edges)]
    whole = tracked(storage, rows, size=size)
    stream = tracked(storage, *parts, size=size)
    merged = tracked(storage, dim=shape[1], size=size)
    for part in reversed(parts):
        merged.merge(tracked(storage, part, dim=shape[1], size=size))
    for other in (stream, merged):
        for mine, theirs in zip(whole.state_dict().values(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
        close(other.spectrum().matrix(), whole.spectrum().matrix(), 1e-6)


def test_a_wide_exact_covariance_is_whole_after_every_question():
    """Its products are made block by block on one side of the diagonal."""
    rows = draw(40, 300)
    tracker = tracked("exact", rows[:25])
    torch.testing.assert_close(tracker.state_dict()["products"], rows[:25].T @ rows[:25])
    tracker.update(rows[25:])
    close(tracker.spectrum().matrix(), mean_square(rows))
    other = tracked("exact", rows)
    other.merge(tracker)
    torch.testing.assert_close(other.state_dict()["products"], 2 * rows.T @ rows)


@pytest.mark.parametrize("storage", ALL)
@pytest.mark.parametrize("stride", [1, 3])
def test_norms_that_are_known_already_change_nothing(storage, stride):
    rows = draw(41, 8)
    rows[5] = float("nan")
    valid = torch.arange(41) != 5
    plain, told = (tracked(storage, dim=8, size=5, stride=stride) for _ in range(2))
    plain.update(rows, valid)
    told.update(rows, valid, squared_norms(rows, rows.dtype))
    for mine, theirs in zip(plain.state_dict().values(), told.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_squared_norms_are_of_the_values_given_and_of_each_row_alone(dtype):
    rows = draw(70, 33).to(dtype)
    rows[3] = float("nan")
    norms = squared_norms(rows, torch.promote_types(dtype, torch.float32))
    assert norms.isnan().nonzero().flatten().tolist() == [3]
    expected = rows.double().square().sum(1)
    rtol = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(norms.double(), expected, rtol=rtol, atol=0, equal_nan=True)


@pytest.mark.parametrize("storage", ALL)
def test_three_tasks_give_the_token_weighted_mean(storage):
    tasks = [draw(count, 6, seed) for seed, count in enumerate((50, 8, 21))]
    past = tracked(storage, tasks[0], size=6)
    sizes = {name: tensor.shape for name, tensor in past.state_dict().items()}
    for task in tasks[1:]:
        past.merge(tracked(storage, task, size=6))
    expected = sum(len(task) * mean_square(task) for task in tasks) / 79
    close(past.spectrum().matrix(), expected)
    assert {name: tensor.shape for name, tensor in past.state_dict().items()} == sizes


@pytest.mark.parametrize("storage", ALL)
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize(("tokens", "length"), [(41, 60), (300, 700)])
def test_padding_never_changes_a_statistic(storage, stride, tokens, length):
    rows = draw(tokens, 8)
    padded = torch.full((2, length, 8), float("nan"), dtype=torch.float64)
    valid = torch.zeros(2, length, dtype=torch.bool)
    first = tokens // 3
    padded[0, :first], valid[0, :first] = rows[:first], True
    padded[1, first - tokens :], valid[1, first - tokens :] = rows[first:], True
    plain = tracked(storage, rows, size=5, stride=stride)
    masked = tracked(storage, dim=8, size=5, stride=stride)
    masked.update(padded, valid)
    masked.update(padded[:, :0], valid[:, :0])
    for name, tensor in plain.state_dict().items():
        if name in ("tokens", "trace", "sampled", "sketch", "products"):
            torch.testing.assert_close(masked.state_dict()[name], tensor)
    torch.testing.assert_close(masked.spectrum().matrix(), plain.spectrum().matrix())


@pytest.mark.parametrize("storage", SUMS)
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_batches_of_one_row_count_as_one_batch(storage, stride):
    rows = draw(6 * 11, 8).reshape(6, 11, 8)
    valid = torch.arange(11) < torch.tensor([11, 4, 1, 0, 7, 10])[:, None]
    whole, single = (tracked(storage, dim=8, size=5, stride=stride) for _ in range(2))
    whole.update(rows, valid)
    for row, mask in zip(rows, valid, strict=True):
        single.update(row[None], mask[None])
    for mine, theirs in zip(whole.state_dict().values(), single.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs)


@given(shape=shapes, stride=st.integers(1, 9), phase=st.integers(0, 8), padded=st.booleans())
@settings(max_examples=80, deadline=None)
def test_every_stride_th_valid_token_of_each_stream_is_counted(shape, stride, phase, padded):
    rows = torch.stack([draw(*shape), draw(*shape) + 1])
    valid = torch.rand(rows.shape[:2], generator=torch.Generator().manual_seed(shape[2])) < 0.6 if padded else None
    phases = torch.tensor([phase, 3 * phase]) % stride
    slots = find_slots(rows.shape, valid, phases, stride)
    chosen, count = every(rows, slots), slots.sampled
    expected = [
        (each if valid is None else each[valid[number]])[first::stride]
        for number, (each, first) in enumerate(zip(rows, phases.tolist(), strict=True))
    ]
    assert int(count) == sum(map(len, expected))
    for found, wanted in zip(chosen.view(2, -(-rows.shape[1] // stride), -1), expected, strict=True):
        assert torch.equal(found[: len(wanted)], wanted)
        assert not found[len(wanted) :].any()


@pytest.mark.parametrize("storage", ["exact", "nystrom"])
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_of_numbered_streams_the_same_tokens_count_however_they_are_cut_and_padded(storage, stride):
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(6, 11, 7, dtype=torch.float64, generator=generator)
    valid = torch.arange(11) < torch.tensor([11, 3, 7, 1, 10, 8])[:, None]
    numbers = torch.tensor([4, 17, 0, 9, 2, 33])
    whole, cut = (tracked(storage, dim=7, size=5, stride=stride) for _ in range(2))
    whole.update(rows, valid, streams=numbers)
    for part in ([5], [3, 0], [1, 4, 2]):  # in another order, and padded on the left
        shifted = torch.cat([rows.new_full((len(part), 2, 7), torch.nan), rows[part]], 1)
        cut.update(shifted, torch.nn.functional.pad(valid[part], (2, 0)), streams=numbers[part])
    for mine, theirs in zip(whole.state_dict().values(), cut.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs)
    kept = torch.cat(
        [row[mask][number % stride :: stride] for row, mask, number in zip(rows, valid, numbers, strict=True)]
    )
    assert float(whole.counted) == len(kept)
    if storage == "exact":
        torch.testing.assert_close(whole.state_dict()["products"], kept.T @ kept)


@pytest.mark.parametrize("storage", ALL[1:])
def test_a_stride_keeps_tokens_and_trace_exact(storage):
    rows = draw(101, 9)
    spectrum = tracked(storage, rows[:13], rows[13:], size=9, stride=8).spectrum()
    assert spectrum.tokens == 101
    assert spectrum.trace == pytest.approx(float(mean_square(rows).trace()), rel=1e-12)
    close(spectrum.matrix(), mean_square(rows[::8]))


@pytest.mark.parametrize("storage", ALL)
def test_trackers_of_different_strides_do_not_merge(storage):
    """Their sums would weigh tokens by how many of them were sampled."""
    first, second = (tracked(storage, draw(200, 9, seed), size=4, stride=1 + 9 * seed) for seed in range(2))
    before = first.state_dict()
    with pytest.raises(ValueError, match="one in as many tokens to merge; got strides 1 and 10"):
        first.merge(second)
    assert all(torch.equal(tensor, before[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize("others", list(permutations(ALL, 2)))
def test_trackers_of_different_storages_do_not_merge(others):
    first, second = (tracked(storage, draw(20, 6), size=6) for storage in others)
    with pytest.raises(ValueError, match="one storage and size to merge"):
        first.merge(second)


@pytest.mark.parametrize("storage", ALL)
@pytest.mark.parametrize("size", [2, 7])
def test_one_token_and_no_energy(storage, size):
    token = draw(1, 7)
    for stride in (1, 8):
        spectrum = tracked(storage, token, size=size, stride=stride).spectrum()
        close(spectrum.matrix(), token.T @ token)
        assert spectrum.rank(0.99) == 1
    empty = tracked(storage, torch.zeros(5, 7, dtype=torch.float64), size=size).spectrum()
    assert not empty.eigenvalues.any()
    assert torch.isfinite(empty.eigenvectors).all()
    assert empty.trace == 0
    assert empty.rank(0.9) == len(empty.eigenvalues)
    nothing = tracked(storage, dim=7, size=size)
    nothing.update(token, torch.zeros(1, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least one token"):
        nothing.spectrum()


@pytest.mark.parametrize("storage", ALL)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)])
def test_low_precision_inputs_stay_within_their_own_rounding(storage, dtype, tolerance):
    rows = torch.cat([draw(500, 48, seed, rank=10) for seed in range(2)])
    tracker = CovarianceTracker(48, storage, sketch_size=32, token_stride=1)
    for batch in rows.split(125):
        tracker.update(batch.to(dtype))
    dense = mean_square(rows.to(dtype).double())
    error = torch.linalg.matrix_norm(tracker.spectrum().matrix() - dense, ord=2)
    assert error < tolerance * torch.linalg.matrix_norm(dense, ord=2)


@pytest.mark.parametrize("storage", ALL[1:])
def test_large_half_precision_inputs_do_not_overflow(storage):
    tracker = CovarianceTracker(16, storage, sketch_size=8, token_stride=1)
    tracker.update(torch.full((200, 16), 3e4, dtype=torch.float16))
    close(tracker.spectrum().eigenvalues[0], torch.tensor(16 * 30000.0**2, dtype=torch.float64), 1e-4)


@pytest.mark.parametrize("storage", ALL)
def test_a_resumed_stream_has_the_same_bits(storage):
    parts = draw(600, 10).split(150)
    through = tracked(storage, *parts, size=4, stride=4, centered=True)
    before = tracked(storage, *parts[:2], size=4, stride=4, centered=True)
    resumed = tracked(storage, dim=10, size=4, stride=4, centered=True)
    resumed.load_state_dict(before.state_dict())
    for part in parts[2:]:
        resumed.update(part)
    for mine, theirs in zip(through.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(through.spectrum().eigenvectors, resumed.spectrum().eigenvectors)


@pytest.mark.parametrize("storage", ALL)
def test_a_centered_covariance_removes_the_mean(storage):
    rows = draw(80, 7) + torch.arange(7)
    spectrum = tracked(storage, *rows.split(31), size=7, centered=True).spectrum()
    close(spectrum.matrix(), rows.T.cov(correction=0), 1e-8)
    assert spectrum.trace == pytest.approx(float(rows.T.cov(correction=0).trace()))


def test_the_mean_is_removed_within_the_directions_held():
    rows = draw(50, 9, rank=3)
    values, vectors = (part.flip(-1)[..., :4] for part in torch.linalg.eigh(mean_square(rows)))
    values, vectors = without_mean(values.clamp_min(0), vectors, rows.mean(0))
    close((vectors * values) @ vectors.T, rows.T.cov(correction=0), 1e-8)


@pytest.mark.parametrize("storage", [name for name in ALL if name != "frequent_directions"])
def test_counting_asks_the_device_for_no_value(storage):
    """Meta tensors have shapes only: what needs a value raises."""
    tracker = CovarianceTracker(12, storage, sketch_size=4, token_stride=3, centered=True, device="meta")
    rows = torch.empty(2, 20, 12, device="meta", dtype=torch.bfloat16)
    tracker.update(rows, torch.empty(2, 20, device="meta", dtype=torch.bool))
    tracker.update(rows)


def bound(rows, size):
    """The least over k < size of ‖X − X_k‖_F² / (size − k)."""
    tail = torch.linalg.svdvals(rows).square().flip(0).cumsum(0).flip(0)
    tail = torch.cat([tail, torch.zeros(size, dtype=torch.float64)])
    return min(float(tail[k]) / (size - k) for k in range(size))


@given(shape=shapes, size=st.integers(1, 6), cut=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_frequent_directions_keeps_its_bound_in_streams_and_merges(shape, size, cut):
    rows = draw(*shape)
    left, right = rows[: min(cut, len(rows))], rows[min(cut, len(rows)) :]
    stream = tracked("frequent_directions", left, right, size=size)
    merged = tracked("frequent_directions", right, size=size)
    merged.merge(tracked("frequent_directions", left, size=size))
    slack = 1e-9 * float(rows.square().sum())
    for tracker in (stream, merged):
        lost = torch.linalg.eigvalsh(rows.T @ rows - len(rows) * tracker.spectrum().matrix())
        assert lost.min() >= -slack
        assert lost.max() <= bound(rows, tracker.state_dict()["directions"].shape[0]) + slack


@pytest.mark.parametrize("blocks", [1, 7])
def test_frequent_directions_keeps_its_bound_over_a_long_stream(blocks):
    rows = draw(1400, 40)
    matrix = tracked("frequent_directions", *rows.chunk(blocks), size=10).spectrum().matrix()
    assert torch.linalg.matrix_norm(rows.T @ rows - 1400 * matrix, ord=2) <= bound(rows, 10)


def test_nystrom_never_overstates_the_covariance():
    rows = draw(300, 30)
    matrix = tracked("nystrom", rows, size=8).spectrum().matrix()
    assert torch.linalg.eigvalsh(mean_square(rows) - matrix).min() > -1e-10


@pytest.mark.parametrize(
    ("storage", "size", "stride", "captured"),
    [
        ("nystrom", 48, 8, 0.982),
        ("nystrom", 48, 1, 0.987),
        ("nystrom", 96, 1, 0.996),
        ("frequent_directions", 48, 1, 0.995),
        ("frequent_directions", 96, 1, 0.999),
        ("incremental", 48, 1, 0.999),
    ],
)
def test_sketches_capture_the_energy_of_the_leading_directions(storage, size, stride, captured):
    """Three tasks with a mean and a spectrum that decays as j^-1.5; 24 directions are asked for."""
    generator = torch.Generator().manual_seed(7)
    scales = torch.arange(1, 193, dtype=torch.float64) ** -0.75
    tracker, seen = tracked(storage, dim=192, size=size, stride=stride), []
    for _ in range(3):
        turn = torch.linalg.qr(torch.randn(192, 192, dtype=torch.float64, generator=generator))[0]
        noise = torch.randn(2048, 192, dtype=torch.float64, generator=generator)
        seen.append((noise * scales + 0.1 * torch.randn(192, dtype=torch.float64, generator=generator)) @ turn)
        task = tracked(storage, *seen[-1].split(512), size=size, stride=stride)
        tracker.merge(task)
    dense = mean_square(torch.cat(seen))
    leading = tracker.spectrum().eigenvectors[:, :24]
    share = (leading.T @ dense @ leading).trace() / torch.linalg.eigvalsh(dense)[-24:].sum()
    assert share > captured
