"""The architectures agree with the same nets in torch.nn.functional: random parameters and statistics, float64."""

import functools
import math
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from models_helpers import drawn

from cnnjax import models
from cnnjax.models import lenet as lenet_file

torch = pytest.importorskip("torch", reason="compares with PyTorch")
functional = torch.nn.functional
relu = functional.relu


def tensor(parameter) -> Any:
    return None if parameter is None else torch.tensor(np.asarray(parameter[...]))


def conv(layer, x, **options):
    kernel = torch.movedim(tensor(layer.kernel), (-1, -2), (0, 1))
    return getattr(functional, f"conv{x.ndim - 2}d")(x, kernel, tensor(layer.bias), **options)


def dense(layer, x):
    return functional.linear(x, tensor(layer.kernel).T, tensor(layer.bias))


def batch_norm(layer, x, train):
    parameters = map(tensor, (layer.mean, layer.var, layer.scale, layer.bias))
    return functional.batch_norm(x, *parameters, training=train, eps=1e-5)


def layer_norm(layer, x):
    return functional.layer_norm(x, x.shape[-1:], tensor(layer.scale), tensor(layer.bias), 1e-6)


def channels_last(function, x):
    return torch.movedim(function(torch.movedim(x, 1, -1)), -1, 1)


def flat(x):
    return torch.movedim(x, 1, -1).flatten(1)


def lenet(model, x, train):
    for layer, norm in zip(model.convs, model.norms, strict=True):
        x = relu(batch_norm(norm, functional.max_pool2d(conv(layer, x, padding=1), 2), train))
    return dense(model.output, relu(dense(model.hidden, flat(x))))


def lenet5(model, x, train):
    def squash(x):
        return 1.7159 * torch.tanh(2 / 3 * x)

    def halve(layer, x):
        scale, bias = (tensor(parameter)[:, None, None] for parameter in (layer.scale, layer.bias))
        return squash(functional.avg_pool2d(x, 2) * scale + bias)

    x = halve(model.s2, squash(conv(model.c1, 1.275 * x - 0.1, padding=2)))
    kernels = torch.split(torch.movedim(tensor(model.c3.kernel), -1, 0), [len(maps) for maps in lenet_file._C3_INPUTS])
    maps = [
        functional.conv2d(x[:, inputs], kernel[None])
        for inputs, kernel in zip(map(list, lenet_file._C3_INPUTS), kernels, strict=True)
    ]
    x = halve(model.s4, squash(torch.cat(maps, 1) + tensor(model.c3.bias)[:, None, None]))
    return dense(model.output, squash(dense(model.f6, flat(squash(conv(model.c5, x))))))


def mlp(model, x, train):
    x = flat(x)
    for layer in model.hidden:
        x = relu(dense(layer, x))
    return dense(model.output, x)


def vgg(model, x, train):
    for stage in model.stages:
        for number, layer in enumerate(stage.convs):
            x = conv(layer, x, padding=1)
            x = relu(batch_norm(stage.norms[number], x, train) if stage.norms else x)
        x = functional.max_pool2d(x, 2)
    return mlp(model, x, train)


def resnet(model, x, train, *, cifar):
    x = conv(model.stem, x, padding=1) if cifar else conv(model.stem, x, stride=2, padding=3)
    x = relu(batch_norm(model.norm, x, train))
    x = x if cifar else functional.max_pool2d(x, 3, 2, 1)
    for block, stride in zip(model.blocks, (1, 1, 2), strict=True):
        strides = (stride, 1) if len(block.convs) == 2 else (1, stride, 1)
        y = x
        for layer, norm, step in zip(block.convs, block.norms, strides, strict=True):
            y = conv(layer, relu(y), stride=step, padding=layer.kernel.shape[0] // 2)
            y = batch_norm(norm, y, train)
        if x.shape != y.shape:
            x = batch_norm(block.projection_norm, conv(block.projection, x, stride=stride), train)
        x = relu(x + y)
    return dense(model.output, x.mean((2, 3)))


def mobilenet(model, x, train):
    relu6 = functional.relu6
    x = relu6(batch_norm(model.stem_norm, conv(model.stem, x, stride=2, padding=1), train))
    for number, stride in enumerate((1, 2, 1)):
        block = model.blocks[number]
        y = x if number == 0 else relu6(batch_norm(block.widen_norm, conv(block.widen, x), train))
        y = conv(block.filter, y, stride=stride, padding=1, groups=y.shape[1])
        y = conv(block.narrow, relu6(batch_norm(block.filter_norm, y, train)))
        y = batch_norm(block.narrow_norm, y, train)
        x = x + y if x.shape == y.shape else y
    x = relu6(batch_norm(model.last_norm, conv(model.last, x), train))
    return dense(model.output, x.mean((2, 3)))


def convnext(model, x, train):
    for number, (shrink, norm, blocks) in enumerate(zip(model.shrink, model.norms, model.stages, strict=True)):
        normalized = functools.partial(channels_last, functools.partial(layer_norm, norm))
        x = normalized(conv(shrink, x, stride=4)) if number == 0 else conv(shrink, normalized(x), stride=2)
        for block in blocks:
            y = torch.movedim(conv(block.filter, x, padding=3, groups=x.shape[1]), 1, -1)
            y = dense(block.narrow, functional.gelu(dense(block.widen, layer_norm(block.norm, y))))
            x = x + torch.movedim(y * tensor(block.scale), -1, 1)
    return dense(model.output, layer_norm(model.norm, x.mean((2, 3))))


def speednet(model, x, train):
    gelu = functools.partial(functional.gelu, approximate="tanh")
    kernel = torch.movedim(tensor(model.whitening), (-1, -2), (0, 1))
    x = gelu(functional.conv2d(x, kernel, tensor(model.bias)))
    for block in model.blocks:
        x = functional.max_pool2d(conv(block.conv1, x, padding=1), 2)
        x = conv(block.conv2, gelu(batch_norm(block.norm1, x, train)), padding=1)
        x = gelu(batch_norm(block.norm2, x, train))
    x = functional.max_pool2d(x, 3).flatten(1)
    return dense(model.output, x) / x.shape[1]


def resnet1d(model, x, train):
    length = x.shape[-1]
    missing = 4 * ((length - 1) // 4) + 80 - length
    x = functional.pad(x, (missing // 2, missing - missing // 2))
    x = relu(batch_norm(model.norm, conv(model.stem, x, stride=4), train))
    for blocks in model.stages:
        x = functional.max_pool1d(x, 4)
        for block in blocks:
            y = relu(batch_norm(block.norm1, conv(block.conv1, x, padding=1), train))
            y = batch_norm(block.norm2, conv(block.conv2, y, padding=1), train)
            x = relu(y + (x if x.shape == y.shape else torch.cat([x, x], 1)))
    return dense(model.output, x.mean(2))


def tcn(model, x, train):
    for number, block in enumerate(model.blocks):
        y, dilation = x, 2**number
        for layer in (block.conv1, block.conv2):
            direction = tensor(layer.direction)
            kernel = (direction * tensor(layer.scale) / direction.norm(dim=(0, 1))).permute(2, 1, 0)
            y = functional.pad(y, ((kernel.shape[-1] - 1) * dilation, 0))
            y = relu(functional.conv1d(y, kernel, tensor(layer.bias), dilation=dilation))
        x = relu(y + (x if x.shape == y.shape else conv(block.projection, x)))
    return dense(model.output, x[:, :, -1])


def unet(model, x, train, *, norm=None):
    def level(level, x):
        for number, layer in enumerate(level.convs):
            x = conv(layer, x, padding=1)
            if norm == "batch":
                x = batch_norm(level.norms[number], x, train)
            if norm == "group":
                after = level.norms[number]
                x = functional.group_norm(x, math.gcd(8, x.shape[1]), tensor(after.scale), tensor(after.bias), 1e-6)
            x = relu(x)
        return x

    rank, levels = x.ndim - 2, []
    pool, back = (getattr(functional, f"{name}{rank}d") for name in ("max_pool", "conv_transpose"))
    for encoder in model.encoders:
        levels.append(level(encoder, pool(levels[-1], 2, ceil_mode=True) if levels else x))
    x = levels.pop()
    for up, decoder in zip(model.ups, model.decoders, strict=True):
        x = back(x, torch.movedim(tensor(up.kernel), (-2, -1), (0, 1)), tensor(up.bias), stride=2)
        left = levels.pop()
        x = x[(..., *map(slice, left.shape[2:]))]
        x = level(decoder, torch.cat([left, x], 1))
    return conv(model.output, x)


RESIDUAL = {"blocks": (2, 1), "widths": (4, 6)}
NETS = {
    "lenet": (lenet, models.LeNet, (17, 10, 2), {"shape": (17, 10, 2)}),
    "lenet5": (lenet5, models.LeNet5, (28, 28, 1), {}),
    "mlp": (mlp, models.MLP, (5, 4, 2), {"shape": (5, 4, 2), "hidden": (7, 6)}),
    "vgg": (vgg, models.VGG, (9, 10, 3), {"convs": (1, 2), "widths": (4, 6), "shape": (9, 10, 3), "hidden": (8, 7)}),
    "vgg with batch-norm": (
        vgg, models.VGG, (9, 10, 3),
        {"convs": (1, 2), "widths": (4, 6), "shape": (9, 10, 3), "hidden": (8,), "batch_norm": True},
    ),
    "resnet": (functools.partial(resnet, cifar=False), models.ResNet, (33, 26, 3), RESIDUAL),
    "resnet with bottlenecks": (
        functools.partial(resnet, cifar=True), models.ResNet, (13, 16, 3),
        {**RESIDUAL, "bottleneck": True, "stem": "cifar"},
    ),
    "mobilenet": (mobilenet, models.MobileNetV2, (17, 14, 3), {"stages": ((1, 16, 1, 1), (2, 24, 2, 2))}),
    "convnext": (convnext, models.ConvNeXt, (19, 26, 3), {"depths": (1, 2), "widths": (6, 8)}),
    "speednet": (
        speednet, models.SpeedNet, (25, 32, 3), {"whitening": np.zeros((2, 2, 3, 24), np.float32), "widths": (8, 8, 4)}
    ),
    "resnet1d": (resnet1d, models.ResNet1d, (203, 1), {"blocks": (2, 1), "width": 4}),
    "tcn": (tcn, models.TCN, (20, 2), {"channels": 2, "widths": (2, 5), "kernel_size": 3}),
    "unet2d": (unet, models.UNet, (13, 10, 2), {"rank": 2, "channels": 2, "widths": (4, 6, 8)}),
    "unet2d with batch-norm": (
        functools.partial(unet, norm="batch"), models.UNet, (9, 6, 2),
        {"rank": 2, "channels": 2, "widths": (4, 6), "norm": "batch"},
    ),
    "unet3d": (
        functools.partial(unet, norm="group"), models.UNet, (5, 9, 6, 2),
        {"rank": 3, "channels": 2, "widths": (4, 16), "norm": "group"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_a_net_computes_what_it_does_in_torch(name):
    reference, make, shape, options = NETS[name]
    with jax.enable_x64(True):
        model = drawn(nnx.eval_shape(lambda: make(**options, num_classes=3, rngs=nnx.Rngs(0))), np.float64)
        x = np.random.default_rng(0).normal(size=(4, *shape))
        graphdef, state = nnx.split(model)
        modes = (False, True)
        ours = jax.jit(lambda state, x: [nnx.merge(graphdef, state)(x, train=train) for train in modes])(state, x)
        theirs = [reference(model, torch.tensor(x).movedim(-1, 1), train).movedim(1, -1) for train in modes]
    for y, expected in zip(ours, theirs, strict=True):
        assert np.std(np.asarray(y)) > 1e-3
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)
