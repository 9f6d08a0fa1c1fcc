"""GPM and the natural gradient, a step of SGD against their formulas in dense matrices."""

import pytest
import torch

RATE = 0.1


@pytest.fixture
def one_step(make_method, train):
    """A method after a first task, and its layers with factors and gradients as a step of the second found them."""

    def make(name, **settings):
        method, found = make_method(name, **settings), {}
        train(method, 0)
        before_step = method.before_step

        def watch(step):
            for key, layer in method.shaped.items():
                found[key] = [each.detach().double() for each in (layer.a, layer.b, layer.a.grad, layer.b.grad)]
                found[key] = [each.clone() for each in found[key]]
            before_step(step)

        method.before_step = watch
        train(method, 1, 1, optimizer=lambda them: torch.optim.SGD(them, lr=RATE), end=False)
        return method, found

    return make


def dense(tracker):
    """C of a tracker that keeps all of it."""
    state = tracker.state_dict()
    return state["products"].double() / state["sampled"]


def damped(c, damping):
    """(C/μ + I)⁻¹ with μ in units of the mean eigenvalue."""
    identity = torch.eye(len(c), dtype=c.dtype)
    return torch.linalg.inv(c / (damping * c.trace() / len(c)) + identity)


def test_gpm_moves_a_outside_of_the_basis_alone(one_step):
    method, found = one_step("gpm", threshold=0.9)
    for key, (a, b, a_grad, b_grad) in found.items():
        layer = method.shaped[key]
        basis = method.bases[layer.key].double()
        assert 0 < basis.shape[1] < basis.shape[0]
        expected = -RATE * (a_grad - a_grad @ basis @ basis.T)
        torch.testing.assert_close(layer.a.detach().double() - a, expected, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(layer.b.detach().double() - b, -RATE * b_grad, atol=1e-6, rtol=1e-4)
        assert (layer.a.detach().double() - a).norm() < 0.9 * RATE * a_grad.norm()


@pytest.mark.parametrize("damping", [1.0, 0.1])
def test_the_natural_step_is_that_of_both_covariances_on_gradient_and_update(damping, one_step):
    method, found = one_step("natural", damping=damping)
    past = {key: dense(tracker) for key, tracker in method.past.items()}
    for key, (a, b, a_grad, b_grad) in found.items():
        layer = method.shaped[key]
        c, s = past[layer.key], past[key]
        on_inputs, on_outputs = damped(c, damping), damped(s, damping)
        of_a, of_b = damped(b.T @ s @ b, damping), damped(a @ c @ a.T, damping)
        moved_a = -RATE * of_a @ of_a @ a_grad @ on_inputs @ on_inputs
        moved_b = -RATE * on_outputs @ on_outputs @ b_grad @ of_b @ of_b
        torch.testing.assert_close(layer.a.detach().double() - a, moved_a, atol=2e-6, rtol=1e-3)
        torch.testing.assert_close(layer.b.detach().double() - b, moved_b, atol=2e-6, rtol=1e-3)
