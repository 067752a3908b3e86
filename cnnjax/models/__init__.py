"""Architectures, one a file, built from `cnnjax.nn` and `cnnjax.ops`.

lenet      LeNet, a small net with batch-norm; LeNet5, as published in 1998
mlp        MLP, the net without convolutions to compare with
vgg        VGG: vgg11, vgg13, vgg16, vgg19
resnet     ResNet: resnet18, resnet34, resnet50
mobilenet  MobileNetV2
convnext   ConvNeXt: convnext_tiny
speednet   SpeedNet, for CIFAR-10 with little arithmetic
resnet1d   ResNet1d, for waveforms
tcn        TCN, for series: causal and dilated
unet       UNet: unet2d, unet3d, a class for every pixel

Every classifier is called `model(x, *, train=False, key=None)` on pictures in [0, 1] and has two parts: `features(x)`,
what the convolutions extract, and `head(f)`, the layers that decide. Functions take the options of their class and
build what the paper published; each file says where it differs. Nothing comes trained. `remat=True` keeps less than
half between the passes, for a third more work, on GPU and TPU; XLA's plan for CPU takes as much memory with it. What is
computed again at a time is a block, but of VGG a stage and of U-Net a level.
"""

from cnnjax.models.convnext import ConvNeXt, convnext_tiny
from cnnjax.models.lenet import LeNet, LeNet5
from cnnjax.models.mlp import MLP
from cnnjax.models.mobilenet import MobileNetV2
from cnnjax.models.resnet import ResNet, resnet18, resnet34, resnet50
from cnnjax.models.resnet1d import ResNet1d
from cnnjax.models.speednet import SpeedNet, whitening_kernel
from cnnjax.models.tcn import TCN
from cnnjax.models.unet import UNet, unet2d, unet3d
from cnnjax.models.vgg import VGG, vgg11, vgg13, vgg16, vgg19

__all__ = [
    "LeNet",
    "LeNet5",
    "MLP",
    "VGG",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "ResNet",
    "resnet18",
    "resnet34",
    "resnet50",
    "MobileNetV2",
    "ConvNeXt",
    "convnext_tiny",
    "SpeedNet",
    "whitening_kernel",
    "ResNet1d",
    "TCN",
    "UNet",
    "unet2d",
    "unet3d",
]
