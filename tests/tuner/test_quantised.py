"""Adapters over base layers whose weight is a packed integer tensor."""

import pytest
import torch
from peft import get_peft_model
from torch import nn

from same.backbones import load_backbone
from same.backbones._base import Backbone
from same.tuner import MoELoraConfig
from same.tuner.observe import moe_layers

TARGETS = Backbone.layout(Backbone.Config()).targets


class PackedLinear(nn.Module):
    """A linear layer that keeps two 4-bit numbers a byte, in a shape that is not [outputs, inputs]."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.detach().abs().amax() / 7
        levels = (linear.weight.detach() / scale).round().to(torch.int8).flatten() & 15
        self.weight = nn.Parameter((levels[::2] << 4) | levels[1::2], requires_grad=False)
        self.register_buffer("scale", scale)

    def unpacked(self) -> torch.Tensor:
        levels = torch.stack([self.weight >> 4, (self.weight << 4) >> 4], 1)
        return levels.view(self.out_features, self.in_features).to(torch.bfloat16) * self.scale.to(torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x.to(torch.bfloat16), self.unpacked())


class Rounded(PackedLinear):
    """The same layer with its weight in bfloat16."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.weight = nn.Parameter(self.unpacked(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x.to(torch.bfloat16), self.weight)


def learned(model, kind, batch):
    """Losses of three steps, with every target layer in the given kind, and the model."""
    for name in [name for name, _ in model.named_modules() if name.endswith(("gate_proj", "up_proj", "down_proj"))]:
        model.set_submodule(name, kind(model.get_submodule(name)))
    torch.manual_seed(1)
    model = get_peft_model(model, MoELoraConfig(target_modules=TARGETS, num_experts=3, r=2)).train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.05)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model


def test_adapters_over_packed_integers_train_as_over_the_numbers_they_stand_for(make_llava, make_batch):
    packed, model = learned(make_llava().to(torch.bfloat16), PackedLinear, make_batch())
    plain, _ = learned(make_llava().to(torch.bfloat16), Rounded, make_batch())
    assert packed == plain
    assert packed[2] < packed[0]
    for layer in moe_layers(model).values():
        assert layer.get_base_layer().weight.dtype == torch.int8
        assert {p.dtype for p in (layer.router, *layer.experts_a, *layer.experts_b)} == {torch.float32}
        assert layer(torch.randn(2, layer.in_features)).dtype == torch.bfloat16


@pytest.mark.parametrize(("weights", "dtype"), [("int8", torch.int8), ("nf4", torch.uint8)])
def test_the_embedded_backbone_trains_in_the_weights_of_bitsandbytes(weights, dtype):
    loaded = load_backbone("tiny", {"weights": weights})
    model = get_peft_model(loaded.model, MoELoraConfig(target_modules=loaded.layout.targets, num_experts=2, r=2))
    ids = torch.randint(10, 500, (2, 12), generator=torch.Generator().manual_seed(0))
    loss = model.train()(input_ids=ids, labels=ids).loss
    loss.backward()
    for layer in moe_layers(model).values():
        assert layer.get_base_layer().weight.dtype == dtype
        assert layer.router.dtype == torch.float32
        assert all(factor.grad is not None and factor.grad.any() for factor in layer.experts_b)
