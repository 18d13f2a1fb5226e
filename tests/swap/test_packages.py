"""U-Nets of packages: MONAI's and nnU-Net's own, in two and three dimensions, as people get them."""

import pytest
from checks import assert_verified, captured, graphs, same_tensors
from forms import randn, randomized
from torch import nn

import fastnorm


def monai(name, **settings):
    return lambda: randomized(getattr(pytest.importorskip("monai.networks.nets"), name), **settings)


def nnunet(name, dims, **settings):
    """As nnU-Net's plans make it."""
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims]
    usual = dict(
        input_channels=1, n_stages=3, features_per_stage=(4, 6, 8), conv_op=conv, kernel_sizes=3, strides=(1, 2, 2),
        num_classes=2, n_conv_per_stage_decoder=1, conv_bias=True, norm_op=norm, norm_op_kwargs=dict(eps=1e-5, affine=True),
        nonlin=nn.LeakyReLU, nonlin_kwargs=dict(inplace=True),
    )  # fmt: skip
    return lambda: randomized(
        getattr(pytest.importorskip("dynamic_network_architectures.architectures.unet"), name), **usual | settings
    )


DYNUNET = dict(
    in_channels=1, out_channels=2, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2], filters=[4, 6, 8]
)
BASIC = dict(in_channels=1, out_channels=2, features=(4, 4, 6, 6, 8, 4))

UNET = dict(in_channels=1, out_channels=2, channels=(4, 6, 8), strides=(2, 2))

MODELS = {
    "monai-unet-2d": (monai("UNet", spatial_dims=2, act="LEAKYRELU", **UNET), (16, 24)),
    "monai-unet-3d": (monai("UNet", spatial_dims=3, num_res_units=1, **UNET), (8, 12, 16)),
    "monai-basicunet-2d": (monai("BasicUNet", spatial_dims=2, **BASIC), (32, 48)),
    "monai-basicunet-3d": (monai("BasicUNet", spatial_dims=3, **BASIC), (32, 32, 48)),
    "monai-dynunet-2d": (monai("DynUNet", spatial_dims=2, res_block=True, **DYNUNET), (32, 48)),
    "monai-dynunet-3d": (monai("DynUNet", spatial_dims=3, **DYNUNET), (8, 12, 16)),
    "nnunet-plain-2d": (nnunet("PlainConvUNet", 2, n_conv_per_stage=2), (32, 48)),
    "nnunet-plain-3d": (nnunet("PlainConvUNet", 3, n_conv_per_stage=2, deep_supervision=True), (8, 12, 16)),
    "nnunet-residual-3d": (nnunet("ResidualEncoderUNet", 3, n_blocks_per_stage=(1, 2, 1)), (8, 12, 16)),
}


LONG = "monai-basicunet-2d", "monai-basicunet-3d"


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in MODELS])
def test_it_computes_the_same(name):
    make, size = MODELS[name]
    model = make()
    tensors, keys = same_tensors(model), list(model.state_dict())
    assert_verified(fastnorm.verify(make(), captured(model), (randn(2, 1, *size),)))
    assert same_tensors(model) == tensors and list(model.state_dict()) == keys


# How many norms there are, and what they become at least, with or without a sum between.
NORMS = {
    "monai-unet-2d": (4, "norm, leaky_relu"),
    "monai-unet-3d": (6, "norm"),  # PReLU, whose slope is learned, is no activation of ours.
    "monai-basicunet-2d": (18, "norm, leaky_relu"),
    "monai-dynunet-3d": (10, "norm, leaky_relu"),
    "nnunet-plain-2d": (8, "norm, leaky_relu"),
    "nnunet-plain-3d": (8, "norm, leaky_relu"),
    "nnunet-residual-3d": (11, "norm, leaky_relu"),
}


@pytest.mark.parametrize("name", NORMS)
def test_norm_and_activation_are_one(name):
    make, size = MODELS[name]
    pieces = graphs(make(), randn(2, 1, *size))
    assert (len(pieces) == 1) == (name != "monai-basicunet-2d")  # torch.jit.isinstance breaks its graph.
    calls = [call for calls in pieces for call in calls]
    assert not {"instance_norm", "leaky_relu", "leaky_relu_"} & set(calls)
    count, words = NORMS[name]
    assert sum(call.replace("norm, add,", "norm,").startswith(words) for call in calls) == count, calls
