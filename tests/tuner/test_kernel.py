"""The kernel against its definition, written as a loop over experts and tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from same.tuner.kernel import mix, project, routing_weights

N, R, D, M = 4, 3, 5, 6


def parts(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape):
        return torch.randn(*shape, dtype=dtype, generator=generator).requires_grad_()

    return leaf(2, 4, D), leaf(2, 4, M), leaf(N, D), [leaf(R, D) for _ in range(N)], [leaf(M, R) for _ in range(N)]


def moe_lora(x, base, router, factors_a, factors_b, **settings):
    """The two halves around a base layer, or around the output that one gave."""
    passed, projected = project(x, router, factors_a)
    return mix(base(passed) if isinstance(base, nn.Module) else base, projected, factors_b, **settings)[0]


def loop(x, base, router, factors_a, factors_b, scaling, top_k, experts):
    """H = W0 x + s Σ_i ω_i B_i A_i x, one expert at a time."""
    rows = range(N) if experts is None else experts.tolist()
    logits = torch.stack([x @ router[i] for i in rows], -1)
    if top_k is not None and top_k < len(rows):
        least = logits.sort(-1, descending=True).values[..., top_k - 1 : top_k]
        logits = torch.where(logits >= least, logits, -torch.inf)
    omega = logits.exp() / logits.exp().sum(-1, keepdim=True)
    total = base
    for i in range(len(rows)):
        total = total + scaling * omega[..., i : i + 1] * (x @ factors_a[i].T @ factors_b[i].T)
    return total


CASES = [(None, None), (2, None), (None, [0, 2]), (1, [1, 2, 3])]


@pytest.mark.parametrize(("top_k", "experts"), CASES)
def test_kernel_equals_the_loop_over_experts_with_its_gradients(top_k, experts):
    x, base, router, a, b = parts()
    chosen = None if experts is None else torch.tensor(experts)
    if experts is not None:
        a, b = a[: len(experts)], b[: len(experts)]
    leaves = [x, base, router, *a, *b]
    ours = moe_lora(x, base, router, a, b, scaling=1.7, top_k=top_k, experts=chosen)
    theirs = loop(x, base, router, a, b, 1.7, top_k, chosen)
    torch.testing.assert_close(ours, theirs)
    weight = torch.linspace(-1, 1, ours.numel(), dtype=ours.dtype).view_as(ours)
    expected = torch.autograd.grad((theirs * weight).sum(), leaves)
    torch.testing.assert_close(torch.autograd.grad((ours * weight).sum(), leaves), expected)


@given(
    sizes=st.tuples(*[st.integers(1, 5)] * 4),  # tokens, width, outputs, experts
    rank=st.integers(1, 9),
    chosen=st.integers(0, 2**5 - 1),
    top_k=st.none() | st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_kernel_equals_the_loop_for_any_shape(sizes, rank, chosen, top_k):
    """One token, one expert, ranks above both widths, any experts at rest, more of them asked for than there are."""
    tokens, width, outputs, count = sizes
    generator = torch.Generator().manual_seed(rank)

    def leaf(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    active = [i for i in range(count) if chosen >> i & 1] or [0]
    x, base, router = leaf(tokens, width), leaf(tokens, outputs), leaf(count, width)
    a, b = ([leaf(*shape) for _ in active] for shape in ((rank, width), (outputs, rank)))
    ours = moe_lora(x, base, router, a, b, scaling=0.7, top_k=top_k, experts=torch.tensor(active))
    theirs = loop(x, base, router, a, b, 0.7, top_k, torch.tensor(active))
    torch.testing.assert_close(ours, theirs)
    leaves, weight = [x, base, router, *a, *b], torch.linspace(-1, 1, ours.numel(), dtype=ours.dtype).view_as(ours)
    expected = torch.autograd.grad((theirs * weight).sum(), leaves)
    torch.testing.assert_close(torch.autograd.grad((ours * weight).sum(), leaves), expected)


@pytest.mark.parametrize(("top_k", "experts"), CASES)
def test_the_input_gradient_is_added_to_that_of_the_base_layer(top_k, experts):
    x, _, router, a, b = parts()
    linear = nn.Linear(D, M, dtype=torch.float64).requires_grad_(False)
    chosen = None if experts is None else torch.tensor(experts)
    if experts is not None:
        a, b = a[: len(experts)], b[: len(experts)]
    leaves = [x, router, *a, *b]

    def gradients(adapted):
        inner = x * 2  # no leaf, and read by something else beside the layer
        out = adapted(inner)
        return out, torch.autograd.grad((out.square().sum(-1, keepdim=True) * inner).sum(), leaves)

    ours = gradients(lambda y: moe_lora(y, linear, router, a, b, scaling=1.7, top_k=top_k, experts=chosen))
    theirs = gradients(lambda y: loop(y, linear(y), router, a, b, 1.7, top_k, chosen))
    torch.testing.assert_close(ours, theirs)


def test_inputs_without_gradient_cost_the_base_layer_no_backward():
    x, _, router, a, _ = parts()
    passed, projected = project(x.detach(), router, a)
    assert not passed.requires_grad
    assert projected.requires_grad


@pytest.mark.parametrize(("top_k", "experts"), CASES)
def test_gradients_pass_gradcheck(top_k, experts):
    x, base, router, a, b = parts()
    chosen = None if experts is None else torch.tensor(experts)
    if experts is not None:
        a, b = a[: len(experts)], b[: len(experts)]

    def call(x, base, router, *factors):
        half = len(factors) // 2
        return moe_lora(x, base, router, factors[:half], factors[half:], scaling=0.5, top_k=top_k, experts=chosen)

    assert torch.autograd.gradcheck(call, (x, base, router, *a, *b))


def test_base_output_of_a_layer_is_added_to_in_place():
    x, _, router, a, b = parts()
    base = nn.Linear(D, M, bias=False, dtype=torch.float64)(x.detach())
    before = base.clone()
    out = moe_lora(x, base.detach(), router, a, b, scaling=1.0)
    assert out.data_ptr() == base.data_ptr()
    torch.testing.assert_close(out, loop(x, before, router, a, b, 1.0, None, None))


def test_only_input_projections_and_weights_are_kept_for_backward():
    x, base, router, a, b = parts()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        moe_lora(x, base, router, a, b, scaling=1.0)
    leaves = {t.data_ptr() for t in [router, *a, *b]}
    activations = sorted(tuple(t.shape) for t in kept if t.data_ptr() not in leaves)
    assert activations == sorted([(8, D), (8, N, R), (8, N)])


def test_weights_are_a_softmax_in_float32_and_top_k_renormalises():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.bfloat16)
    assert routing_weights(logits).dtype == torch.float32
    top = routing_weights(logits, 2)
    torch.testing.assert_close(top, torch.tensor([[0.73105858, 0.26894142, 0, 0]]))
    assert torch.equal(routing_weights(logits, 4), routing_weights(logits))


def test_bfloat16_base_keeps_float32_gradients():
    x, _, router, a, b = parts(dtype=torch.float32)
    base = torch.zeros(2, 4, M, dtype=torch.bfloat16)
    out = moe_lora(x, base, router, a, b, scaling=1.0)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert {t.grad.dtype for t in [x, router, *a, *b]} == {torch.float32}
