"""The slow layers in every form in which existing models write them, each as a small model of plain torch.

`FORMS`, at the end, names them all, with inputs and with what should come out of each. The order is that of the layers:
norms, adaptive norms, convolutions of padded and of upsampled maps, filters per sample, blends of norms, attention; then
what looks like one of them and is not, and what nobody may touch.
"""

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize


@dataclass(frozen=True)
class Form:
    """A small model, float32 and always the same, in the mode (training or not) in which it is meant to run.

    Args:
        make: makes it anew.
        inputs: what its forward takes, from a dtype: tensors, and for one form an integer.
        expects: the operator of fastnorm that should come out of it; None where the model must stay as it is. A norm
            whose rule `instance_norm` does not have (unbiased, or eps outside of the root) is `instance_stats` and a
            `scale_shift`. An `upsample_conv2d` and an `adaconv2d` may be called by more general names as well.
        breaks: torch.compile, as it is set by default, captures its forward in several graphs, or not at all.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[torch.dtype], tuple]
    expects: str | None
    breaks: bool = False


def randn(*shape, dtype=torch.float32, seed=0):
    """The same numbers in every type."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def randomized(make, *args, **kwargs):
    """A module without default parameters, as one or zero would hide one that was swapped or forgotten."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = make(*args, **kwargs)
        for name, parameter in model.named_parameters():
            if name.endswith("rho"):
                parameter.uniform_(0.1, 0.9)
            else:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand_like(buffer))
    return model


class Calls(nn.Module):
    """A model whose forward is one function."""

    def __init__(self, function, *args, **kwargs):
        super().__init__()
        self.function, self.args, self.kwargs = function, args, kwargs

    def forward(self, *inputs):
        return self.function(*inputs, *self.args, **self.kwargs)


# 1. Norms as modules.


class InstanceNormAlias(nn.InstanceNorm2d):
    """A subclass that computes what its parent does: a name and a default of its own (Ulyanov et al. 2016)."""

    def __init__(self, channels):
        super().__init__(channels, eps=1e-3, affine=True)


class NormResidual(nn.Module):
    """The end of a residual block: what was normalised is added to what came in (Johnson et al. 2016)."""

    def __init__(self, channels, relu=False):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.InstanceNorm2d(channels, affine=True)
        self.relu = relu

    def forward(self, x):
        out = self.norm(self.conv(x))
        out += x
        return F.relu(out) if self.relu else out


class FunctionalNorm(nn.Module):
    """torch.nn.functional.instance_norm with parameters of the model's own, and a LeakyReLU (Ulyanov et al. 2016)."""

    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.offset = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return F.leaky_relu(F.instance_norm(x, weight=self.scale, bias=self.offset), 0.2)


def norm_relu_partial(channels):
    """The norm's class comes from a functools.partial, as options of public code choose it (Zhu et al. 2017)."""
    norm_layer = functools.partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
    return nn.Sequential(norm_layer(channels), nn.ReLU(True))


# 2. Norms by hand. First statistics, (mean, std) as (N, C, 1, 1).


def unbiased_by_view(features, eps=1e-5):
    n, c = features.size()[:2]
    var = features.view(n, c, -1).var(dim=2) + eps
    std = var.sqrt().view(n, c, 1, 1)
    mean = features.view(n, c, -1).mean(dim=2).view(n, c, 1, 1)
    return mean, std


def biased_by_reshape(features, eps=1e-5):
    n, c = features.shape[:2]
    flat = features.reshape(n, c, -1)
    mean = flat.mean(dim=-1).reshape(n, c, 1, 1)
    std = (flat.var(dim=-1, unbiased=False) + eps).sqrt().reshape(n, c, 1, 1)
    return mean, std


def by_std_mean(features, eps=1e-5):
    std, mean = torch.std_mean(features, dim=(2, 3), keepdim=True)
    return mean, std + eps


def by_std_mean_of_view(features, eps=1e-5):
    n, c, h, w = features.shape
    std, mean = torch.std_mean(features.view(n, c, h * w), dim=2, unbiased=False)
    return mean.view(n, c, 1, 1), (std + eps).view(n, c, 1, 1)


def by_keepdim(features, eps=1e-5):
    mean = features.mean((2, 3), keepdim=True)
    std = features.var((2, 3), keepdim=True).add(eps).sqrt()
    return mean, std


def root_plus_eps(features, eps=1e-5):
    """eps outside of the root."""
    n, c = features.size()[:2]
    flat = features.view(n, c, -1)
    std = flat.var(dim=2).sqrt() + eps
    return flat.mean(dim=2).view(n, c, 1, 1), std.view(n, c, 1, 1)


def std_without_eps(features):
    flat = features.flatten(2)
    return flat.mean(2)[:, :, None, None], flat.std(2)[:, :, None, None]


def std_without_eps_squeezed(features):
    """(N, C) each, as a style loss compares them."""
    return features.mean([2, 3]), features.std([2, 3])


class MeanVarianceNorm(nn.Module):
    """Statistics, expanded, and the map normalised by them (SANet, Park and Lee 2019; AdaAttN, Liu et al. 2021)."""

    def __init__(self, statistics=unbiased_by_view):
        super().__init__()
        self.statistics = statistics

    def forward(self, x):
        size = x.size()
        mean, std = self.statistics(x)
        return (x - mean.expand(size)) / std.expand(size)


def norm_by_rsqrt(x, eps=1e-5):
    var, mean = torch.var_mean(x, dim=(2, 3), unbiased=False, keepdim=True)
    return (x - mean) * torch.rsqrt(var + eps)


def norm_by_rsqrt_unbiased(x, eps=1e-5):
    return (x - x.mean((-2, -1), keepdim=True)) * (x.var((-2, -1), keepdim=True) + eps).rsqrt()


def norm_by_moments(x, eps=1e-5):
    """E[x * x] - E[x]^2."""
    mean = torch.mean(x, dim=(2, 3), keepdim=True)
    var = torch.mean(x * x, dim=(2, 3), keepdim=True) - mean * mean
    return (x - mean) / torch.sqrt(var + eps)


def norm_by_squares(x, eps=1e-8):
    """The mean of the squares of what is left when the mean is gone."""
    x = x - torch.mean(x, (2, 3), True)
    return x * torch.rsqrt(torch.mean(torch.mul(x, x), (2, 3), True) + eps)


def norm_by_power(x, eps=1e-5):
    mean = x.mean(dim=[2, 3], keepdim=True)
    var = ((x - mean) ** 2).mean(dim=[2, 3], keepdim=True)
    return (x - mean) / (var + eps) ** 0.5


def norm_by_two_means(x, eps=1e-5):
    mean = x.mean(3, keepdim=True).mean(2, keepdim=True)
    centred = x - mean
    var = centred.pow(2).mean(3, keepdim=True).mean(2, keepdim=True)
    return centred / (var + eps).sqrt()


def norm_by_std(x, eps=1e-5):
    return (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + eps)


def norm_of_planes(x, eps=1e-5):
    """All planes of all samples in a row."""
    n, c, h, w = x.size()
    planes = x.contiguous().view(n * c, h * w)
    mean = planes.mean(1, keepdim=True)
    var = planes.var(1, keepdim=True, unbiased=False)
    return ((planes - mean) / (var + eps).sqrt()).view(n, c, h, w)


def norm_1d(x, eps=1e-5):
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + eps)


def norm_1d_std(x, eps=1e-5):
    std, mean = torch.std_mean(x, dim=2, keepdim=True)
    return (x - mean) / (std + eps)


def norm_3d(x, eps=1e-5):
    mean = x.mean((2, 3, 4), keepdim=True)
    var = (x - mean).square().mean((2, 3, 4), keepdim=True)
    return (x - mean) * (var + eps).rsqrt()


def norm_3d_by_view(x, eps=1e-5):
    n, c = x.shape[:2]
    flat = x.view(n, c, -1)
    mean, std = flat.mean(2).view(n, c, 1, 1, 1), (flat.var(2) + eps).sqrt().view(n, c, 1, 1, 1)
    return (x - mean.expand(x.size())) / std.expand(x.size())


class AffineByHand(nn.Module):
    """A norm by hand with a learned affine map and a ReLU (Ulyanov et al. 2016)."""

    def __init__(self, channels, norm=norm_by_power):
        super().__init__()
        self.norm = norm
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return F.relu(self.gamma * self.norm(x) + self.beta.view(1, -1, 1, 1))


# 2, AdaIN: the statistics of the style on the normalised content.


def adain(content, style, statistics=unbiased_by_view):
    size = content.size()
    style_mean, style_std = statistics(style)
    content_mean, content_std = statistics(content)
    normalized = (content - content_mean.expand(size)) / content_std.expand(size)
    return normalized * style_std.expand(size) + style_mean.expand(size)


def adain_broadcast(content, style, statistics=by_keepdim):
    content_mean, content_std = statistics(content)
    style_mean, style_std = statistics(style)
    return style_std * (content - content_mean) / content_std + style_mean


def adain_of_two_rules(content, style, eps=1e-5):
    """The first published code: content biased and with eps, style unbiased and without (Huang and Belongie 2017)."""
    n, c = style.shape[:2]
    flat = style.reshape(n, c, -1)
    mean, std = flat.mean(2), flat.std(2)
    return F.instance_norm(content, eps=eps) * std[..., None, None] + mean[..., None, None]


def adain_blend(content, style, alpha=0.6):
    target = adain(content, style)
    return alpha * target + (1 - alpha) * content


def adain_given(content, mean, std, statistics=unbiased_by_view):
    """Of a style whose statistics were kept, (N, C) each."""
    content_mean, content_std = statistics(content)
    return (content - content_mean) / content_std * std[:, :, None, None] + mean[:, :, None, None]


def adain_1d(content, style, eps=1e-5):
    c_mean, c_std = content.mean(-1, keepdim=True), (content.var(-1, keepdim=True) + eps).sqrt()
    s_mean, s_std = style.mean(-1, keepdim=True), (style.var(-1, keepdim=True) + eps).sqrt()
    return s_std * ((content - c_mean) / c_std) + s_mean


def adain_3d(content, style, eps=1e-5):
    c_std, c_mean = torch.std_mean(content, dim=(2, 3, 4), keepdim=True)
    s_std, s_mean = torch.std_mean(style, dim=(2, 3, 4), keepdim=True)
    return (content - c_mean) / (c_std + eps) * (s_std + eps) + s_mean


# 3. The batch norm of one sample of N * C channels.


class AdaptiveInstanceNorm2d(nn.Module):
    """A batch norm of a view, whose weight and bias somebody assigns before each call (MUNIT, Huang et al. 2018)."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = self.bias = None
        # Never read, as the copies that F.batch_norm updates are thrown away.
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):
        if self.weight is None or self.bias is None:
            raise RuntimeError("assign weight and bias before calling AdaptiveInstanceNorm2d")
        n, c = x.size(0), x.size(1)
        running_mean, running_var = self.running_mean.repeat(n), self.running_var.repeat(n)
        planes = x.contiguous().view(1, n * c, *x.size()[2:])
        out = F.batch_norm(planes, running_mean, running_var, self.weight, self.bias, True, self.momentum, self.eps)
        return out.view(n, c, *x.size()[2:])


def assign_adain_parameters(parameters, model):
    """Hands the columns of (N, total) to the layers that are called AdaptiveInstanceNorm2d, one after the other."""
    for layer in model.modules():
        if layer.__class__.__name__ == "AdaptiveInstanceNorm2d":
            c = layer.num_features
            layer.bias = parameters[:, :c].contiguous().view(-1)
            layer.weight = parameters[:, c : 2 * c].contiguous().view(-1)
            parameters = parameters[:, 2 * c :]


def count_adain_parameters(model):
    layers = (layer for layer in model.modules() if layer.__class__.__name__ == "AdaptiveInstanceNorm2d")
    return sum(2 * layer.num_features for layer in layers)


class AssignedNorms(nn.Module):
    """Two layers whose affine maps one linear layer makes (MUNIT, Huang et al. 2018)."""

    def __init__(self, channels, style_dim):
        super().__init__()
        self.layers = nn.Sequential(AdaptiveInstanceNorm2d(channels), nn.ReLU(), AdaptiveInstanceNorm2d(channels))
        self.mlp = nn.Linear(style_dim, count_adain_parameters(self.layers))

    def forward(self, x, style):
        assign_adain_parameters(self.mlp(style), self.layers)
        return self.layers(x)


def batch_norm_of_view(x, eps=1e-5):
    n, c = x.shape[:2]
    out = F.batch_norm(x.reshape(1, n * c, *x.shape[2:]), None, None, training=True, eps=eps)
    return out.reshape(x.shape)


class RepeatedAffine(nn.Module):
    """The batch norm of a view, with the parameters of all samples repeated (Ulyanov et al. 2016)."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        n, c, h, w = x.shape
        x = x.view(1, n * c, h, w)
        x = F.batch_norm(x, None, None, self.weight.repeat(n), self.bias.repeat(n), True, 0.0, 1e-5)
        return x.view(n, c, h, w)


# 4. An affine map that a linear layer makes of the style.

NORMS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class LinearAdaIN(nn.Module):
    """(1 + gamma) * IN(x) + beta, of one linear layer (StarGAN v2, Choi et al. 2020)."""

    def __init__(self, channels, style_dim, dims=2, affine=False):
        super().__init__()
        self.norm = NORMS[dims](channels, affine=affine)
        self.fc = nn.Linear(style_dim, channels * 2)

    def forward(self, x, style):
        h = self.fc(style)
        h = h.view(h.size(0), h.size(1), *[1] * (x.dim() - 2))
        gamma, beta = torch.chunk(h, chunks=2, dim=1)
        return (1 + gamma) * self.norm(x) + beta


class TwoLinears(nn.Module):
    """A linear layer for the scale and one for the shift, and the norm's result kept apart (Huang and Belongie 2017)."""

    def __init__(self, channels, style_dim):
        super().__init__()
        self.scale, self.shift = nn.Linear(style_dim, channels), nn.Linear(style_dim, channels)
        self.norm = nn.InstanceNorm2d(channels)

    def forward(self, x, style):
        normalized = self.norm(x)
        gamma = self.scale(style).unsqueeze(2).unsqueeze(3)
        beta = self.shift(style).unsqueeze(2).unsqueeze(3)
        return F.leaky_relu(normalized * (gamma + 1.0) + beta, 0.2)


class FiLMOfNorm(nn.Module):
    """gamma * IN(x) + beta as one addcmul, a norm by hand in it (FiLM, Perez et al. 2018)."""

    def __init__(self, channels, style_dim):
        super().__init__()
        self.film = nn.Linear(style_dim, 2 * channels)

    def forward(self, x, style):
        gamma, beta = self.film(style)[:, :, None, None].split(x.size(1), dim=1)
        return torch.addcmul(beta, gamma, norm_by_rsqrt(x))


class EmbeddedStyle(nn.Module):
    """A row of scales and shifts for each style (conditional instance norm, Dumoulin et al. 2017)."""

    def __init__(self, channels, styles):
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels, affine=False)
        self.embed = nn.Embedding(styles, 2 * channels)

    def forward(self, x, style):
        gamma, beta = self.embed(style).chunk(2, 1)
        return gamma.view(-1, x.size(1), 1, 1) * self.norm(x) + beta.view(-1, x.size(1), 1, 1)


# 5. Convolutions of what was padded, and of what was upsampled.


class PadConv(nn.Module):
    """A layer of padding and a convolution, called one after the other (Johnson et al. 2016)."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1):
        super().__init__()
        self.pad = nn.ReflectionPad2d(kernel_size // 2)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride)

    def forward(self, x):
        out = self.pad(x)
        return self.conv(out)


class FunctionalPadConv(nn.Module):
    """The same, the padding a call."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, mode="reflect"):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride)
        self.padding, self.mode = [kernel_size // 2] * 4, mode

    def forward(self, x):
        return self.conv(F.pad(x, self.padding, mode=self.mode))


class BareConv(nn.Module):
    """Padding and convolution as calls, with a weight of the model's own."""

    def __init__(self, in_channels, out_channels, kernel_size):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size) / kernel_size)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x):
        before, after = (self.weight.shape[2] - 1) // 2, self.weight.shape[2] // 2
        return F.conv2d(F.pad(x, (before, after, before, after), "reflect"), self.weight, self.bias)


class UpsampleConvLayer(nn.Module):
    """Upsampling where it is asked for, padding, convolution (Johnson et al. 2016, after Odena et al. 2016)."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, upsample=None):
        super().__init__()
        self.upsample = upsample
        self.reflection_pad = nn.ReflectionPad2d(kernel_size // 2)
        self.conv2d = nn.Conv2d(in_channels, out_channels, kernel_size, stride)

    def forward(self, x):
        if self.upsample:
            x = F.interpolate(x, mode="nearest", scale_factor=self.upsample)
        return self.conv2d(self.reflection_pad(x))


class UpsampleToSize(nn.Module):
    """Upsampling to twice the size, given as a size, then padding by a call."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3)

    def forward(self, x):
        x = F.interpolate(x, size=(2 * x.shape[2], 2 * x.shape[3]))
        return self.conv(F.pad(x, (1, 1, 1, 1), mode="reflect"))


class UpsampleByRepeat(nn.Module):
    """Upsampling by repeated rows and columns."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="reflect")

    def forward(self, x):
        return self.conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


def upsample_pad_conv(in_channels, out_channels, kernel_size, stride=1, upsample=None):
    upsample = upsample or nn.Upsample(scale_factor=2)
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride)
    return nn.Sequential(upsample, nn.ReflectionPad2d(kernel_size // 2), conv)


def upsample_conv(in_channels, out_channels, kernel_size, padding_mode, scale_factor=2):
    """The padding is the convolution's."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, padding_mode=padding_mode)
    return nn.Sequential(nn.Upsample(scale_factor=scale_factor, mode="nearest"), conv)


def norm_run(in_channels, out_channels, upsample=False, activation=nn.ReLU):
    """A norm, and all that follows until the next one has been (Johnson et al. 2016)."""
    return nn.Sequential(
        nn.InstanceNorm2d(in_channels, affine=True),
        activation(),
        *[nn.Upsample(scale_factor=2, mode="nearest")] * upsample,
        nn.ReflectionPad2d(1),
        nn.Conv2d(in_channels, out_channels, 3),
        nn.InstanceNorm2d(out_channels, affine=True),
    )


class ResidualBlock(nn.Module):
    """Two padded convolutions with norms, as modules in a Sequential, and their input (CycleGAN, Zhu et al. 2017)."""

    def __init__(self, channels, norm_layer=nn.InstanceNorm2d, dropout=False, bias=True):
        super().__init__()
        block = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm_layer(channels), nn.ReLU(True)]
        block += [nn.Dropout(0.5)] * dropout
        block += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm_layer(channels)]
        self.conv_block = nn.Sequential(*block)

    def forward(self, x):
        return x + self.conv_block(x)


# 6. Convolutions with a filter per sample.


def conv_by_loop(x, weight, bias):
    """weight (N, C_out, C_in / groups, k, k), bias (N, C_out)."""
    groups, padding = x.size(1) // weight.size(2), weight.size(3) // 2
    outputs = []
    for i in range(x.size(0)):
        outputs.append(F.conv2d(x[i : i + 1], weight[i], bias[i], padding=padding, groups=groups))
    return torch.cat(outputs, dim=0)


def conv_by_stack(x, weight):
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return torch.stack([F.conv2d(sample.unsqueeze(0), filters).squeeze(0) for sample, filters in zip(padded, weight)])


def conv_by_groups(x, weight, bias, stride=1):
    n, c, h, w = x.shape
    out = weight.size(1)
    filters = weight.view(n * out, c, weight.size(3), weight.size(4))
    output = F.conv2d(x.view(1, n * c, h, w), filters, bias.view(-1), stride, weight.size(3) // 2, groups=n)
    return output.view(n, out, output.size(2), output.size(3))


def conv_by_groups_padded(x, weight):
    n, c = x.shape[:2]
    x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.reshape(-1, *weight.shape[2:]), groups=n)
    return y.reshape(n, -1, *y.shape[2:])


def depthwise_by_groups(x, weight):
    """weight (N, C, k, k), a plane for each plane."""
    n, c, h, w = x.size()
    k = weight.size(-1)
    out = F.conv2d(x.contiguous().view(1, n * c, h, w), weight.view(n * c, 1, k, k), padding=k // 2, groups=n * c)
    return out.view(n, c, h, w)


def dynamic_norm_by_loop(x, weight):
    """A filter per sample on what was normalised (DIN, Jing et al. 2020)."""
    x = F.pad(F.instance_norm(x), [1] * 4, mode="reflect")
    return torch.cat([F.conv2d(x[i][None], weight[i]) for i in range(len(x))])


class AdaConv2d(nn.Module):
    """Normalise; a spatial, then a pointwise filter per sample; a plain convolution (AdaConv, Chandran et al. 2021)."""

    def __init__(self, in_channels, out_channels, kernel_size=3, groups=1, by_view=False):
        super().__init__()
        self.groups, self.by_view = groups, by_view
        self.pad = (kernel_size // 2, (kernel_size - 1) // 2)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding="same", padding_mode="reflect")

    def forward(self, x, spatial, pointwise, bias):
        x = F.instance_norm(x)
        together = self._all_at_once if self.by_view else self._one_by_one
        return self.conv(together(x, spatial, pointwise, bias))

    def _one_by_one(self, x, spatial, pointwise, bias):
        outputs = []
        for i in range(len(x)):
            sample = F.pad(x[i : i + 1], (*self.pad, *self.pad), mode="reflect")
            sample = F.conv2d(sample, spatial[i], groups=self.groups)
            outputs.append(F.conv2d(sample, pointwise[i], bias[i], groups=self.groups))
        return torch.cat(outputs)

    def _all_at_once(self, x, spatial, pointwise, bias):
        n = x.size(0)
        x = F.pad(x, (*self.pad, *self.pad), mode="reflect")
        x = x.view(1, -1, *x.shape[2:])
        x = F.conv2d(x, spatial.flatten(0, 1), groups=n * self.groups)
        x = F.conv2d(x, pointwise.flatten(0, 1), bias.flatten(), groups=n * self.groups)
        return x.view(n, -1, *x.shape[2:])


class Blur(nn.Module):
    """A separable binomial filter over every plane, as a depthwise convolution (StyleGAN2, Karras et al. 2020)."""

    def __init__(self, pad, upsample_factor=1, taps=(1, 3, 3, 1)):
        super().__init__()
        taps = torch.tensor(taps, dtype=torch.float32)
        kernel = taps[:, None] * taps[None, :]
        self.register_buffer("kernel", kernel / kernel.sum() * upsample_factor**2)
        self.pad = (*pad, *pad)

    def forward(self, x):
        c = x.size(1)
        return F.conv2d(F.pad(x, self.pad), self.kernel.to(x.dtype).expand(c, 1, -1, -1), groups=c)


class EqualLinear(nn.Module):
    """A linear layer whose weight is scaled at each call (Karras et al. 2018)."""

    def __init__(self, in_features, out_features, bias_init=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.full((out_features,), bias_init))
        self.scale = in_features**-0.5

    def forward(self, x):
        return F.linear(x, self.weight * self.scale, self.bias)


class ModulatedConv2d(nn.Module):
    """A shared filter, scaled and normalised for each sample (StyleGAN2, Karras et al. 2020).

    Args:
        resample: None; "up" for a transposed convolution and a blur; "down" for a blur and a strided convolution.
        fused: as one convolution of a group per sample; if not, what enters and leaves a shared filter is scaled.
    """

    def __init__(
        self, in_channels, out_channels, kernel_size, style_dim, demodulate=True, resample=None, fused=True
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, out_channels, in_channels, kernel_size, kernel_size))
        self.modulation = EqualLinear(style_dim, in_channels, bias_init=1.0)
        self.scale = (in_channels * kernel_size**2) ** -0.5
        self.padding = kernel_size // 2
        self.demodulate, self.resample, self.fused = demodulate, resample, fused
        if resample == "up":
            spread = 4 - 2 - (kernel_size - 1)
            self.blur = Blur(((spread + 1) // 2 + 1, spread // 2 + 1), upsample_factor=2)
        if resample == "down":
            spread = 4 - 2 + (kernel_size - 1)
            self.blur = Blur(((spread + 1) // 2, spread // 2))

    def forward(self, x, style):
        style = self.modulation(style)
        return self._fused(x, style) if self.fused else self._scaled(x, style)

    def _fused(self, x, style):
        n, c, h, w = x.shape
        _, out, _, k, _ = self.weight.shape
        weight = self.scale * self.weight * style.view(n, 1, c, 1, 1)
        if self.demodulate:
            demod = torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8)
            weight = weight * demod.view(n, out, 1, 1, 1)
        if self.resample == "up":
            x = x.view(1, n * c, h, w)
            weight = weight.transpose(1, 2).reshape(n * c, out, k, k)
            x = F.conv_transpose2d(x, weight, padding=0, stride=2, groups=n)
            return self.blur(x.view(n, out, x.size(2), x.size(3)))
        weight = weight.view(n * out, c, k, k)
        if self.resample == "down":
            x = self.blur(x)
            x = F.conv2d(x.view(1, n * c, x.size(2), x.size(3)), weight, padding=0, stride=2, groups=n)
        else:
            x = F.conv2d(x.view(1, n * c, h, w), weight, padding=self.padding, groups=n)
        return x.view(n, out, x.size(2), x.size(3))

    def _scaled(self, x, style):
        weight = self.scale * self.weight.squeeze(0)
        x = x * style[:, :, None, None]
        if self.resample == "up":
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), padding=0, stride=2))
        elif self.resample == "down":
            x = F.conv2d(self.blur(x), weight, padding=0, stride=2)
        else:
            x = F.conv2d(x, weight, padding=self.padding)
        if self.demodulate:
            demod = (weight.unsqueeze(0) * style[:, None, :, None, None]).square().sum((2, 3, 4)) + 1e-8
            x = x * demod.rsqrt()[:, :, None, None]
        return x


# 7. The blend of instance and layer norm, and the affine map per pixel.


class AdaILN(nn.Module):
    """rho * IN + (1 - rho) * LN, unbiased, with the affine map of a sample (U-GAT-IT, Kim et al. 2020)."""

    def __init__(self, num_features, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.rho = nn.Parameter(torch.full((1, num_features, 1, 1), 0.9))

    def forward(self, input, gamma, beta):
        in_mean, in_var = torch.mean(input, dim=[2, 3], keepdim=True), torch.var(input, dim=[2, 3], keepdim=True)
        out_in = (input - in_mean) / torch.sqrt(in_var + self.eps)
        ln_mean, ln_var = torch.mean(input, dim=[1, 2, 3], keepdim=True), torch.var(input, dim=[1, 2, 3], keepdim=True)
        out_ln = (input - ln_mean) / torch.sqrt(ln_var + self.eps)
        rho = self.rho.expand(input.shape[0], -1, -1, -1)
        out = rho * out_in + (1 - rho) * out_ln
        return out * gamma.unsqueeze(2).unsqueeze(3) + beta.unsqueeze(2).unsqueeze(3)


class ILN(nn.Module):
    """The same with an affine map that is learned, for maps of any dimensions (U-GAT-IT, Kim et al. 2020)."""

    def __init__(self, num_features, eps=1e-5, dims=2, unbiased=True):
        super().__init__()
        shape = (1, num_features, *[1] * dims)
        self.eps, self.unbiased = eps, unbiased
        self.of_plane, self.of_sample = list(range(2, dims + 2)), list(range(1, dims + 2))
        self.rho = nn.Parameter(torch.zeros(shape))
        self.gamma = nn.Parameter(torch.ones(shape))
        self.beta = nn.Parameter(torch.zeros(shape))

    def forward(self, input):
        n = input.shape[0]
        normed = []
        for dims in (self.of_plane, self.of_sample):
            mean = torch.mean(input, dim=dims, keepdim=True)
            var = torch.var(input, dim=dims, keepdim=True, unbiased=self.unbiased)
            normed.append((input - mean) / torch.sqrt(var + self.eps))
        rho = self.rho.expand(n, *self.rho.shape[1:])
        out = rho * normed[0] + (1 - rho) * normed[1]
        return out * self.gamma.expand(n, *self.gamma.shape[1:]) + self.beta.expand(n, *self.beta.shape[1:])


class BlendOfModules(nn.Module):
    """torch's own two norms, blended by a gate per channel (Nam and Kim 2018, of layer norm for batch norm)."""

    def __init__(self, channels):
        super().__init__()
        self.instance, self.layer = nn.InstanceNorm2d(channels), nn.GroupNorm(1, channels, affine=False)
        self.rho = nn.Parameter(torch.ones(channels))

    def forward(self, x):
        rho = self.rho.view(1, -1, 1, 1)
        return rho * self.instance(x) + (1 - rho) * self.layer(x)


CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class SPADE(nn.Module):
    """gamma and beta of every pixel, made of a map of labels by convolutions (SPADE, Park et al. 2019)."""

    def __init__(self, norm_nc, label_nc, hidden=128, dims=2, kernel_size=3):
        super().__init__()
        conv = functools.partial(CONVOLUTIONS[dims], kernel_size=kernel_size, padding=kernel_size // 2)
        self.param_free_norm = NORMS[dims](norm_nc, affine=False)
        self.mlp_shared = nn.Sequential(conv(label_nc, hidden), nn.ReLU())
        self.mlp_gamma, self.mlp_beta = conv(hidden, norm_nc), conv(hidden, norm_nc)

    def forward(self, x, segmap):
        normalized = self.param_free_norm(x)
        actv = self.mlp_shared(F.interpolate(segmap, size=x.size()[2:], mode="nearest"))
        return normalized * (1 + self.mlp_gamma(actv)) + self.mlp_beta(actv)


def spade_by_hand(x, gamma, beta, norm=norm_by_power):
    normalized = norm(x)
    return F.leaky_relu(normalized + normalized * gamma + beta, 0.2)


# Attention to a style, and of a map to itself.


def by_relu(weights, value, mean):
    return torch.sqrt(torch.relu(torch.bmm(weights, value**2) - mean**2))


def by_clamp(weights, value, mean):
    return (weights @ value.square() - mean * mean).clamp(min=0) ** 0.5


def by_eps(weights, value, mean):
    return (F.relu(torch.bmm(weights, value.pow(2)) - mean.pow(2)) + 1e-5).sqrt()


def by_eps_alone(weights, value, mean):
    return torch.sqrt(torch.matmul(weights, value * value) - mean.square() + 1e-5)


def variance(weights, value, mean):
    return torch.bmm(weights, value**2) - mean**2


def adaattn(content, style_key, style, deviation=by_relu):
    """The mean and the deviation of a style's values (AdaAttN, Liu et al. 2021)."""
    n, c, h, w = content.shape
    query, key = content.view(n, c, -1).permute(0, 2, 1), style_key.view(n, c, -1).contiguous()
    value = style.view(n, style.size(1), -1).transpose(1, 2).contiguous()
    weights = torch.softmax(torch.bmm(query, key), dim=-1)
    mean = torch.bmm(weights, value)
    found = mean, deviation(weights, value, mean)
    return tuple(tensor.view(n, h, w, -1).permute(0, 3, 1, 2).contiguous() for tensor in found)


class SANet(nn.Module):
    """The weighted mean of the style, added to the content (SANet, Park and Lee 2019)."""

    def __init__(self, in_planes):
        super().__init__()
        self.f, self.g, self.h, self.out_conv = (nn.Conv2d(in_planes, in_planes, (1, 1)) for _ in range(4))
        self.norm, self.sm = MeanVarianceNorm(), nn.Softmax(dim=-1)

    def forward(self, content, style):
        query, key, value = self.f(self.norm(content)), self.g(self.norm(style)), self.h(style)
        n, c, h, w = query.size()
        query = query.view(n, -1, w * h).permute(0, 2, 1)
        n, c, h, w = key.size()
        attention = self.sm(torch.bmm(query, key.view(n, -1, w * h)))
        out = torch.bmm(value.view(n, -1, w * h), attention.permute(0, 2, 1))
        n, c, h, w = content.size()
        out = self.out_conv(out.view(n, c, h, w))
        out += content
        return out


class SelfAttention(nn.Module):
    """Of a map to itself, by a learned part (SAGAN, Zhang et al. 2019)."""

    def __init__(self, channels, returns_weights=False):
        super().__init__()
        self.query, self.key = nn.Conv2d(channels, 2, 1), nn.Conv2d(channels, 2, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.returns_weights = returns_weights

    def forward(self, x):
        n, c, h, w = x.size()
        query, key = self.query(x).view(n, -1, h * w).permute(0, 2, 1), self.key(x).view(n, -1, h * w)
        weights = F.softmax(torch.bmm(query, key), dim=-1)
        out = torch.bmm(self.value(x).view(n, -1, h * w), weights.permute(0, 2, 1)).view(n, c, h, w)
        out = self.gamma * out + x
        return (out, weights) if self.returns_weights else out


class KeysFirst(nn.Module):
    """The same with weights (N, keys, queries), by 1-D convolutions and of pooled keys (BigGAN, Brock et al. 2019)."""

    def __init__(self, channels):
        super().__init__()
        self.query, self.key, self.value = (nn.Conv1d(channels, width, 1, bias=False) for width in (3, 3, channels))
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        flat = x.view(*x.size()[:2], -1)
        pooled = F.max_pool1d(flat, 2)
        weights = F.softmax(torch.bmm(self.key(pooled).transpose(1, 2), self.query(flat)), dim=1)
        return (self.gamma * torch.bmm(self.value(pooled), weights) + flat).view(*x.size()).contiguous()


class NonLocal(nn.Module):
    """Positions before channels, scores scaled, a dropout (Wang et al. 2018)."""

    def __init__(self, channels, inner=4, dropout=0.3):
        super().__init__()
        self.theta, self.phi, self.g = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Conv2d(inner, channels, 1)

    def forward(self, x):
        n, inner = x.size(0), self.theta.out_channels
        theta, phi, g = (conv(x).flatten(2) for conv in (self.theta, self.phi, self.g))
        scores = torch.matmul(theta.transpose(-2, -1), phi) / inner**0.5
        y = self.dropout(scores.softmax(dim=-1)) @ g.mT
        return self.out(y.permute(0, 2, 1).contiguous().view(n, inner, *x.shape[2:])) + x


def attention_of_rows(query, key, value, scale=0.25):
    """(N, L, C) all three, as of language; what is returned is what the product makes."""
    return torch.bmm(F.softmax(scale * query @ key.transpose(-1, -2) * 2, -1), value)


def attention_by_einsum(query, key, value):
    scores = torch.einsum("nci, ncj -> nij", query.flatten(2), key.flatten(2)) * 0.5
    return torch.einsum("nij,ndj->ndi", scores.softmax(2), value.flatten(2))


# What looks like one of these forms, and computes something else.


def layer_norm_by_hand(x, eps=1e-5):
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) / (x.var((1, 2, 3), keepdim=True, unbiased=False) + eps).sqrt()


def batch_norm_by_hand(x, eps=1e-5):
    mean = x.mean((0, 2, 3), keepdim=True)
    return (x - mean) * (x.var((0, 2, 3), keepdim=True, unbiased=False) + eps).rsqrt()


def pixel_norm(x, eps=1e-8):
    return x * torch.rsqrt(torch.mean(x**2, dim=1, keepdim=True) + eps)


def rows_norm(x, eps=1e-5):
    return (x - x.mean(3, keepdim=True)) / (x.var(3, keepdim=True, unbiased=False) + eps).sqrt()


def scale_of_another_map(x, y, eps=1e-5):
    """The mean of one map, the deviation of another."""
    return (x - x.mean((2, 3), keepdim=True)) / (y.var((2, 3), keepdim=True, unbiased=False) + eps).sqrt()


def norm_with_frozen_statistics(x):
    """The same numbers as an instance norm, and other gradients."""
    mean, std = unbiased_by_view(x)
    return (x - mean.detach()) / std.detach()


def norm_with_eps_of_the_map(x):
    """What is added to the variance depends on the map, and is no number."""
    var, mean = torch.var_mean(x, dim=(2, 3), unbiased=False, keepdim=True)
    return (x - mean) / (var + var.mean(1, keepdim=True)).sqrt()


def groups_that_mix_samples(x, weight):
    """All samples are one picture, and one group is as wide as two samples."""
    n, c, h, w = x.shape
    return F.conv2d(x.view(1, n * c, h, w), weight, padding=1).view(n, -1, h, w)


class PadWithOnes(nn.Module):
    """A border of ones, which no padding mode is."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3)

    def forward(self, x):
        return self.conv(F.pad(x, (1, 1, 1, 1), value=1.0))


def upsample_by_a_fraction(channels):
    """Nearest, but by no whole factor."""
    return nn.Sequential(nn.Upsample(scale_factor=1.5), nn.Conv2d(channels, channels, 3, padding=1))


def attention_of_lines(query, key, value):
    """Weights of queries, over which it adds, too."""
    return torch.bmm(F.softmax(torch.bmm(query.flatten(2).mT, key.flatten(2)), 1), value.flatten(2).mT)


def attention_of_samples(query, key, value):
    return torch.bmm(F.softmax(torch.bmm(query.flatten(2).mT, key.flatten(2)), 0), value.flatten(2).mT)


def attention_with_mask(query, key, value):
    """Only to positions that come before."""
    scores = torch.bmm(query.flatten(2).mT, key.flatten(2))
    mask = torch.full_like(scores, float("-inf")).triu(1)
    return torch.bmm((scores + mask).softmax(-1), value.flatten(2).mT)


def attention_and_scores(query, key, value):
    scores = torch.bmm(query.flatten(2).mT, key.flatten(2))
    return torch.bmm(scores.softmax(-1), value.flatten(2).mT), scores


def attention_and_second_moment(query, key, value):
    weights, value = torch.bmm(query.flatten(2).mT, key.flatten(2)).softmax(-1), value.flatten(2).mT
    mean, second = torch.bmm(weights, value), torch.bmm(weights, value**2)
    return mean, (second - mean**2).relu().sqrt(), second


def deviation_of_another_mean(query, key, value, other):
    weights, value = torch.bmm(query.flatten(2).mT, key.flatten(2)).softmax(-1), value.flatten(2).mT
    mean = torch.bmm(weights, other.flatten(2).mT)
    return (torch.bmm(weights, value**2) - mean**2).relu().sqrt()


def attention_of_two_types(query, key, value):
    """Weights and values in float64, scores not."""
    weights = F.softmax(torch.bmm(query.flatten(2).mT, key.flatten(2)), dim=-1, dtype=torch.float64)
    return torch.bmm(weights, value.flatten(2).mT.double()).to(value.dtype)


def attention_by_torch(query, key, value):
    return F.scaled_dot_product_attention(*(map.flatten(2).mT for map in (query, key, value)))


# 8. What must be left alone, as it cannot be replaced safely.


class CallOfItsOwn(nn.InstanceNorm2d):
    """What is called is not the forward alone."""

    def __call__(self, x):
        return super().__call__(x) * 0.5


class OtherForward(nn.InstanceNorm2d):
    """An instance norm by name and by its parameters, a layer norm by what it computes."""

    def forward(self, input):
        return F.group_norm(input, 1, self.weight, self.bias, self.eps)


def clamped_norm(self, x):
    return nn.InstanceNorm2d.forward(self, x).clamp(-1, 1)


def forward_of_an_instance(channels):
    """A forward assigned to one module, as public code patches layers of a network that it loaded."""
    norm = nn.InstanceNorm2d(channels, affine=True)
    norm.forward = types.MethodType(clamped_norm, norm)
    return nn.Sequential(norm, nn.ReLU())


class Watched(nn.Module):
    """A hook keeps the result of the layer inside, for a loss or for a picture."""

    def __init__(self, first, second):
        super().__init__()
        self.layers = nn.Sequential(first, second)
        self.seen = None
        first.register_forward_hook(self.keep)

    def keep(self, layer, inputs, output):
        self.seen = output.detach()

    def forward(self, x):
        return self.layers(x)


def halve(layer, inputs, output):
    return output * 0.5


def halve_input(layer, inputs):
    return (inputs[0] * 0.5,)


def double_gradient(layer, grad_input, grad_output):
    return tuple(None if grad is None else grad * 2 for grad in grad_input)


def hooked(register, hook, *layers, at=0):
    """A Sequential with a hook at one of its layers: `register` is the name of the method that takes it."""
    getattr(layers[at], register)(hook)
    return nn.Sequential(*layers)


def pad_conv_modules(channels):
    return nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)


def norm_modules(channels):
    return nn.InstanceNorm2d(channels, affine=True), nn.ReLU()


class SharedModules(nn.Module):
    """One norm and one convolution, each in two places (recursive networks, as DRCN, Kim et al. 2016)."""

    def __init__(self, channels):
        super().__init__()
        pad, conv = pad_conv_modules(channels)
        norm = nn.InstanceNorm2d(channels, affine=True)
        self.first = nn.Sequential(pad, conv, norm, nn.ReLU())
        self.second = nn.Sequential(pad, conv, norm)

    def forward(self, x):
        return x + self.second(self.first(x))


class SharedBuffers(nn.Module):
    """Two norms with one set of running statistics, which each of them updates."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.InstanceNorm2d(channels, track_running_stats=True)
        self.second = nn.InstanceNorm2d(channels, track_running_stats=True)
        self.second.running_mean, self.second.running_var = self.first.running_mean, self.first.running_var

    def forward(self, x, y):
        return self.first(x) + self.second(y)


class ChosenByIndex(nn.Module):
    """A norm for each style, one of which a call chooses (Dumoulin et al. 2017, as modules)."""

    def __init__(self, channels, styles):
        super().__init__()
        self.norms = nn.ModuleList(nn.InstanceNorm2d(channels, affine=True) for _ in range(styles))

    def forward(self, x, style_index):
        return F.relu(self.norms[style_index](x))


class Exponential(nn.Module):
    """A parametrisation: what is stored is the logarithm."""

    def forward(self, weight):
        return weight.exp()


def parametrized_norm(channels):
    norm = nn.InstanceNorm2d(channels, affine=True)
    parametrize.register_parametrization(norm, "weight", Exponential())
    return nn.Sequential(norm, nn.ReLU())


def parametrized_conv(parametrization, channels):
    pad, conv = pad_conv_modules(channels)
    return nn.Sequential(pad, parametrization(conv))


class DependsOnData(nn.Module):
    """Whether the map is flipped in sign between padding and convolution depends on its numbers."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3)

    def forward(self, x):
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        if x.mean() > 0:
            x = -x
        return self.conv(x)


class ReadsANumber(nn.Module):
    """`.item()` in the middle of a norm by hand."""

    def forward(self, x):
        mean = x.mean((2, 3), keepdim=True)
        largest = mean.abs().max().item()
        var = x.var((2, 3), keepdim=True, unbiased=False)
        return (x - mean) / (var + 1e-5 * max(largest, 1.0)).sqrt()


class Prints(nn.Module):
    """A print that someone forgot, between padding and convolution."""

    def __init__(self, channels):
        super().__init__()
        self.pad, self.conv = pad_conv_modules(channels)

    def forward(self, x):
        x = self.pad(x)
        print("padded:", x.mean())
        return self.conv(x)


def running_norm(channels, training, momentum=0.1):
    norm = nn.InstanceNorm2d(channels, momentum=momentum, affine=True, track_running_stats=True)
    return nn.Sequential(norm, nn.ReLU()).train(training)


# The registry.

N, C, STYLE = 2, 6, 5
LINE, MAP, VOLUME = (N, C, 13), (N, C, 12, 10), (N, C, 5, 6, 4)
ODD = (N, C, 11, 9)
STYLE_MAP = (N, C, 7, 8)


def tensors(*shapes):
    """Makes a tensor of each shape, normally distributed, each of other numbers."""
    return lambda dtype: tuple(randn(*shape, dtype=dtype, seed=seed) for seed, shape in enumerate(shapes))


def tensor_and(other):
    """Makes a map and hands on what is no floating-point tensor."""
    return lambda dtype: (randn(*MAP, dtype=dtype), other)


def form(expects, inputs, make, *args, breaks=False, **kwargs):
    return Form(functools.partial(randomized, make, *args, **kwargs), inputs, expects, breaks)


def calls(expects, inputs, function, *args, **kwargs):
    return form(expects, inputs, Calls, function, *args, **kwargs)


on_line, on_map, on_odd_map, on_volume = tensors(LINE), tensors(MAP), tensors(ODD), tensors(VOLUME)
on_two_maps, on_styled_map = tensors(MAP, STYLE_MAP), tensors(MAP, (N, STYLE))
filters = N, 8, C, 3, 3

MODULES = {
    "InstanceNorm1d": form("instance_norm", on_line, nn.InstanceNorm1d, C, affine=True),
    "InstanceNorm2d": form("instance_norm", on_map, nn.InstanceNorm2d, C),
    "InstanceNorm2d affine": form("instance_norm", on_odd_map, nn.InstanceNorm2d, C, eps=1e-3, affine=True),
    "InstanceNorm2d one picture": form("instance_norm", tensors(MAP[1:]), nn.InstanceNorm2d, C, affine=True),
    "InstanceNorm3d": form("instance_norm", on_volume, nn.InstanceNorm3d, C, affine=True),
    "InstanceNorm2d ReLU": form("instance_norm", on_map, lambda: nn.Sequential(*norm_modules(C))),
    "InstanceNorm2d LeakyReLU": form(
        "instance_norm", on_map, lambda: nn.Sequential(nn.InstanceNorm2d(C), nn.LeakyReLU(0.2, inplace=True))
    ),
    "InstanceNorm3d LeakyReLU": form(
        "instance_norm", on_volume, lambda: nn.Sequential(nn.InstanceNorm3d(C, affine=True), nn.LeakyReLU(inplace=True))
    ),
    "InstanceNorm2d partial": form("instance_norm", on_map, norm_relu_partial, C),
    "InstanceNorm2d subclass": form("instance_norm", on_map, InstanceNormAlias, C),
    "InstanceNorm2d residual": form("instance_norm", on_map, NormResidual, C),
    "InstanceNorm2d residual ReLU": form("instance_norm", on_odd_map, NormResidual, C, relu=True),
    "InstanceNorm2d DataParallel": form(
        "instance_norm", on_map, lambda: nn.DataParallel(nn.Sequential(*norm_modules(C)))
    ),
    "F.instance_norm": form("instance_norm", on_map, FunctionalNorm, C),
}

BY_HAND = {
    "norm view": form("instance_stats", on_map, MeanVarianceNorm, unbiased_by_view),
    "norm reshape": form("instance_norm", on_odd_map, MeanVarianceNorm, biased_by_reshape),
    "norm std_mean": form("instance_stats", on_map, MeanVarianceNorm, by_std_mean),
    "norm std_mean of view": form("instance_stats", on_map, MeanVarianceNorm, by_std_mean_of_view),
    "norm keepdim": form("instance_stats", on_odd_map, MeanVarianceNorm, by_keepdim),
    "norm eps outside": form("instance_stats", on_map, MeanVarianceNorm, root_plus_eps),
    "norm without eps": form("instance_stats", on_map, MeanVarianceNorm, std_without_eps),
    "norm std plus eps": calls("instance_stats", on_map, norm_by_std),
    "norm rsqrt": calls("instance_norm", on_map, norm_by_rsqrt),
    "norm rsqrt unbiased": calls("instance_stats", on_map, norm_by_rsqrt_unbiased),
    "norm moments": calls("instance_norm", on_map, norm_by_moments),
    "norm squares": calls("instance_norm", on_odd_map, norm_by_squares),
    "norm power": calls("instance_norm", on_map, norm_by_power),
    "norm two means": calls("instance_norm", on_map, norm_by_two_means),
    "norm planes": calls("instance_norm", on_map, norm_of_planes),
    "norm affine ReLU": form("instance_norm", on_map, AffineByHand, C),
    "norm moments affine ReLU": form("instance_norm", on_map, AffineByHand, C, norm_by_moments),
    "norm 1d": calls("instance_norm", on_line, norm_1d),
    "norm 1d std": calls("instance_stats", on_line, norm_1d_std),
    "norm 3d": calls("instance_norm", on_volume, norm_3d),
    "norm 3d view": calls("instance_stats", on_volume, norm_3d_by_view),
    "statistics": calls("instance_stats", on_map, unbiased_by_view),
    "statistics of a loss": calls("instance_stats", on_map, std_without_eps_squeezed),
    "AdaIN": calls("adain", on_two_maps, adain),
    "AdaIN reshape": calls("adain", on_two_maps, adain, biased_by_reshape),
    "AdaIN std_mean": calls("adain", on_two_maps, adain, by_std_mean),
    "AdaIN eps outside": calls("adain", on_two_maps, adain, root_plus_eps),
    "AdaIN broadcast": calls("adain", on_two_maps, adain_broadcast),
    "AdaIN two rules": calls("adain", on_two_maps, adain_of_two_rules),
    "AdaIN blend": calls("adain", on_two_maps, adain_blend),
    "AdaIN given": calls("adain", tensors(MAP, (N, C), (N, C)), adain_given),
    "AdaIN 1d": calls("adain", tensors(LINE, (N, C, 9)), adain_1d),
    "AdaIN 3d": calls("adain", tensors(VOLUME, (N, C, 3, 4, 5)), adain_3d),
}

BY_BATCH_NORM = {
    "batch_norm assigned": form("instance_norm", on_styled_map, AssignedNorms, C, STYLE),
    "batch_norm plain": calls("instance_norm", on_odd_map, batch_norm_of_view),
    "batch_norm plain 1d": calls("instance_norm", on_line, batch_norm_of_view),
    "batch_norm plain 3d": calls("instance_norm", on_volume, batch_norm_of_view),
    "batch_norm repeated": form("instance_norm", on_map, RepeatedAffine, C),
}

BY_LINEAR = {
    "linear chunk": form("instance_norm", on_styled_map, LinearAdaIN, C, STYLE),
    "linear chunk affine": form("instance_norm", on_styled_map, LinearAdaIN, C, STYLE, affine=True),
    "linear chunk 1d": form("instance_norm", tensors(LINE, (N, STYLE)), LinearAdaIN, C, STYLE, dims=1),
    "linear chunk 3d": form("instance_norm", tensors(VOLUME, (N, STYLE)), LinearAdaIN, C, STYLE, dims=3),
    "linear twice": form("instance_norm", on_styled_map, TwoLinears, C, STYLE),
    "linear addcmul": form("instance_norm", on_styled_map, FiLMOfNorm, C, STYLE),
    "embedding": form("instance_norm", tensor_and(torch.tensor([2, 0])), EmbeddedStyle, C, 3),
}

PADDED = {
    "pad conv modules": form("norm_conv2d", on_map, lambda: nn.Sequential(*pad_conv_modules(C))),
    "pad conv 5x5": form("norm_conv2d", on_map, PadConv, C, 8, 5),
    "pad conv 7x7": form("norm_conv2d", on_odd_map, PadConv, C, 3, 7),
    "pad conv strided": form("norm_conv2d", on_odd_map, PadConv, C, 8, 3, 2),
    "pad conv 4x4 strided": form(
        "norm_conv2d", on_map, lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(C, 8, 4, 2))
    ),
    "pad conv dilated": form(
        "norm_conv2d", on_map, lambda: nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(C, C, 3, dilation=2, groups=2))
    ),
    "pad conv replicate": form(
        "norm_conv2d", on_map, lambda: nn.Sequential(nn.ReplicationPad2d(1), nn.Conv2d(C, 8, 3, bias=False))
    ),
    "pad conv zeros": form("norm_conv2d", on_map, lambda: nn.Sequential(nn.ZeroPad2d(2), nn.Conv2d(C, 8, 5))),
    "F.pad conv": form("norm_conv2d", on_map, FunctionalPadConv, C, 8, 3),
    "F.pad conv strided": form("norm_conv2d", on_odd_map, FunctionalPadConv, C, 8, 5, 2),
    "F.pad conv circular": form("norm_conv2d", on_map, FunctionalPadConv, C, 8, 3, mode="circular"),
    "F.pad F.conv2d": form("norm_conv2d", on_map, BareConv, C, 8, 3),
    "padding_mode": form("norm_conv2d", on_map, nn.Conv2d, C, 8, 3, padding=1, padding_mode="reflect"),
    "padding_mode strided": form("norm_conv2d", on_odd_map, nn.Conv2d, C, 8, 3, 2, 1, padding_mode="reflect"),
    "norm activation pad conv norm": form("norm_conv2d", on_map, norm_run, C, 8),
    "residual block": form("norm_conv2d", on_map, ResidualBlock, C),
}

UPSAMPLED = {
    "upsample pad conv": form("upsample_conv2d", on_map, upsample_pad_conv, C, 8, 3),
    "upsample pad conv 5x5": form("upsample_conv2d", on_map, upsample_pad_conv, C, 4, 5),
    "upsample pad conv 1x1": form("upsample_conv2d", on_map, upsample_pad_conv, C, 8, 1),
    "upsample pad conv strided": form("norm_conv2d", on_odd_map, upsample_pad_conv, C, 8, 3, 2),
    "upsample conv padding_mode": form("upsample_conv2d", on_map, upsample_conv, C, 8, 3, "reflect"),
    "upsample conv 5x5 padding_mode": form("upsample_conv2d", on_map, upsample_conv, C, 8, 5, "replicate"),
    "upsample conv zeros": form("upsample_conv2d", on_odd_map, upsample_conv, C, 8, 3, "zeros"),
    "upsample conv 1x1": form("upsample_conv2d", on_map, upsample_conv, C, 3, 1, "zeros"),
    "upsample conv by 4": form("upsample_conv2d", on_map, upsample_conv, C, 8, 3, "reflect", scale_factor=4),
    "upsample conv by 2 and 1": form("upsample_conv2d", on_map, upsample_conv, C, 8, 3, "zeros", scale_factor=(2, 1)),
    "UpsamplingNearest2d pad conv": form(
        "upsample_conv2d", on_map, lambda: upsample_pad_conv(C, 8, 3, upsample=nn.UpsamplingNearest2d(scale_factor=2))
    ),
    # The padding and the convolution alone.
    "upsample bilinear pad conv": form(
        "norm_conv2d", on_map, lambda: upsample_pad_conv(C, 8, 3, upsample=nn.Upsample(scale_factor=2, mode="bilinear"))
    ),
    "F.interpolate pad conv": form("upsample_conv2d", on_map, UpsampleConvLayer, C, 8, 3, upsample=2),
    "F.interpolate pad conv strided": form("norm_conv2d", on_map, UpsampleConvLayer, C, 8, 3, 2, upsample=2),
    "F.interpolate size": form("upsample_conv2d", on_odd_map, UpsampleToSize, C, 8),
    "repeat_interleave": form("upsample_conv2d", on_map, UpsampleByRepeat, C, 8),
    "norm activation upsample pad conv norm": form("norm_conv2d", on_map, norm_run, C, 8, upsample=True),
}

PER_SAMPLE = {
    "filters loop": calls("dynamic_conv2d", tensors(MAP, filters, (N, 8)), conv_by_loop),
    "filters loop 1x1": calls("dynamic_conv2d", tensors(ODD, (N, 8, C, 1, 1), (N, 8)), conv_by_loop),
    "filters loop depthwise": calls("dynamic_conv2d", tensors(MAP, (N, C, 1, 3, 3), (N, C)), conv_by_loop),
    "filters stack padded": calls("dynamic_conv2d", tensors(MAP, filters), conv_by_stack),
    "filters groups": calls("dynamic_conv2d", tensors(MAP, filters, (N, 8)), conv_by_groups),
    "filters groups strided": calls("dynamic_conv2d", tensors(ODD, filters, (N, 8)), conv_by_groups, 2),
    "filters groups padded": calls("dynamic_conv2d", tensors(MAP, filters), conv_by_groups_padded),
    "filters groups depthwise": calls("dynamic_conv2d", tensors(MAP, (N, C, 5, 5)), depthwise_by_groups),
    "filters of normalised": calls("dynamic_conv2d", tensors(MAP, filters), dynamic_norm_by_loop),
    "AdaConv loop": form(
        "dynamic_conv2d", tensors(MAP, (N, C, 3, 3, 3), (N, C, 3, 1, 1), (N, C)), AdaConv2d, C, 8, groups=2
    ),
    "AdaConv view": form(
        "dynamic_conv2d", tensors(ODD, (N, C, 2, 3, 3), (N, C, 2, 1, 1), (N, C)), AdaConv2d, C, 8, groups=3, by_view=True
    ),
    "modulated": form("dynamic_conv2d", on_styled_map, ModulatedConv2d, C, 8, 3, STYLE),
    "modulated 1x1": form("dynamic_conv2d", on_styled_map, ModulatedConv2d, C, 3, 1, STYLE, demodulate=False),
    "modulated up": form("dynamic_conv2d", on_styled_map, ModulatedConv2d, C, 8, 3, STYLE, resample="up"),
    "modulated down": form("dynamic_conv2d", on_styled_map, ModulatedConv2d, C, 8, 3, STYLE, resample="down"),
    "modulated scaled": form("norm_conv2d", on_styled_map, ModulatedConv2d, C, 8, 3, STYLE, fused=False),
    # The shared filter is torch's, as nothing here is faster.
    "modulated scaled up": form(None, on_styled_map, ModulatedConv2d, C, 8, 3, STYLE, resample="up", fused=False),
    "modulated scaled down": form(None, on_styled_map, ModulatedConv2d, C, 8, 3, STYLE, resample="down", fused=False),
}

BLENDED = {
    "AdaILN": form("layer_instance_norm", tensors(MAP, (N, C), (N, C)), AdaILN, C),
    "ILN": form("layer_instance_norm", on_odd_map, ILN, C),
    "ILN biased": form("layer_instance_norm", on_map, ILN, C, unbiased=False),
    "ILN 1d": form("layer_instance_norm", on_line, ILN, C, dims=1),
    "ILN 3d": form("layer_instance_norm", on_volume, ILN, C, dims=3),
    "ILN of modules": form("layer_instance_norm", on_map, BlendOfModules, C),
    "SPADE": form("spatially_adaptive_norm", tensors(MAP, (N, 3, 6, 5)), SPADE, C, 3, hidden=4),
    "SPADE 1d": form("spatially_adaptive_norm", tensors(LINE, (N, 3, 13)), SPADE, C, 3, hidden=4, dims=1),
    "SPADE 3d": form("spatially_adaptive_norm", tensors(VOLUME, (N, 3, 5, 3, 2)), SPADE, C, 3, hidden=4, dims=3),
    "SPADE by hand": calls("spatially_adaptive_norm", tensors(MAP, MAP, MAP), spade_by_hand),
    "SPADE by hand moments": calls("spatially_adaptive_norm", tensors(ODD, ODD, ODD), spade_by_hand, norm_by_moments),
}

STYLE_KEYS = (N, C, 6, 8)
on_attention, on_rows = tensors(MAP, STYLE_KEYS, (N, 7, 6, 8)), tensors((N, 9, 4), (N, 11, 4), (N, 11, 5))

ATTENTION = {
    "AdaAttN": calls("attention_stats", on_attention, adaattn),
    "AdaAttN clamp": calls("attention_stats", on_attention, adaattn, by_clamp),
    "AdaAttN eps": calls("attention_stats", on_attention, adaattn, by_eps),
    "AdaAttN eps alone": calls("attention_stats", on_attention, adaattn, by_eps_alone),
    "AdaAttN variance": calls("attention_stats", on_attention, adaattn, variance),
    "SANet": form("attention_stats", on_two_maps, SANet, C),
    "self-attention": form("attention_stats", on_odd_map, SelfAttention, C),
    "self-attention keys first": form("attention_stats", on_map, KeysFirst, C),
    "non-local": form("attention_stats", on_map, lambda: NonLocal(C).eval()),
    "attention of rows": calls("attention_stats", on_rows, attention_of_rows),
    "attention einsum": calls("attention_stats", on_attention, attention_by_einsum),
}

NO_ATTENTION = {
    "attention map returned": form(None, on_odd_map, SelfAttention, C, returns_weights=True),
    "attention of lines": calls(None, tensors(MAP, MAP, MAP), attention_of_lines),
    "attention of samples": calls(None, on_attention, attention_of_samples),
    "attention with mask": calls(None, tensors(MAP, MAP, MAP), attention_with_mask),
    "attention and scores": calls(None, on_attention, attention_and_scores),
    "attention and second moment": calls(None, on_attention, attention_and_second_moment),
    "deviation of another mean": calls(
        None, tensors(MAP, STYLE_KEYS, (N, 7, 6, 8), (N, 7, 6, 8)), deviation_of_another_mean
    ),
    "attention of two types": calls(None, on_attention, attention_of_two_types),
    "attention by torch": calls(None, on_attention, attention_by_torch),
}

LOOKALIKES = {
    "layer norm": calls(None, on_map, layer_norm_by_hand),
    "batch norm": calls(None, on_map, batch_norm_by_hand),
    "pixel norm": calls(None, on_map, pixel_norm),
    "norm of rows": calls(None, on_map, rows_norm),
    "scale of another map": calls(None, on_two_maps, scale_of_another_map),
    "frozen statistics": calls(None, on_map, norm_with_frozen_statistics),
    "eps of the map": calls(None, on_map, norm_with_eps_of_the_map),
    "groups that mix samples": calls(None, tensors(MAP, (8, N * C, 3, 3)), groups_that_mix_samples),
    "pad with ones": form(None, on_map, PadWithOnes, C),
    "upsample by a fraction": form(None, on_map, upsample_by_a_fraction, C),
}

LEFT_ALONE = {
    "running statistics eval": form(None, on_map, running_norm, C, training=False),
    "running statistics training": form(None, on_map, running_norm, C, training=True, momentum=0.3),
    "call of its own": form(None, on_map, lambda: nn.Sequential(CallOfItsOwn(C), nn.ReLU())),
    "other forward": form(None, on_map, lambda: nn.Sequential(OtherForward(C, affine=True), nn.ReLU())),
    "forward of an instance": form(None, on_map, forward_of_an_instance, C),
    "hook looks at pad": form(None, on_map, lambda: Watched(*pad_conv_modules(C))),
    "hook looks at norm": form(None, on_map, lambda: Watched(*norm_modules(C))),
    "hook changes pad": form(None, on_map, lambda: hooked("register_forward_hook", halve, *pad_conv_modules(C))),
    "hook changes norm": form(None, on_map, lambda: hooked("register_forward_hook", halve, *norm_modules(C))),
    "pre-hook of conv": form(
        None, on_map, lambda: hooked("register_forward_pre_hook", halve_input, *pad_conv_modules(C), at=1)
    ),
    "backward hook": form(
        None, on_map, lambda: hooked("register_full_backward_hook", double_gradient, *norm_modules(C)),
        breaks=True,
    ),
    "shared modules": form(None, on_map, SharedModules, C),
    "shared buffers": form(None, tensors(MAP, MAP), SharedBuffers, C),
    "chosen by index": form(None, tensor_and(1), ChosenByIndex, C, 3),
    "spectral norm": form(None, on_map, parametrized_conv, parametrizations.spectral_norm, C),
    "spectral norm by hook": form(None, on_map, parametrized_conv, nn.utils.spectral_norm, C),
    "weight norm": form(None, on_map, parametrized_conv, parametrizations.weight_norm, C),
    "weight norm by hook": form(None, on_map, parametrized_conv, nn.utils.weight_norm, C),
    "parametrised norm": form(None, on_map, parametrized_norm, C),
    "depends on data": form(None, on_map, DependsOnData, C, breaks=True),
    "reads a number": form(None, on_map, ReadsANumber, breaks=True),
    "prints": form(None, on_map, Prints, C, breaks=True),
}

FORMS: dict[str, Form] = {
    **MODULES, **BY_HAND, **BY_BATCH_NORM, **BY_LINEAR, **PADDED, **UPSAMPLED, **PER_SAMPLE, **BLENDED, **ATTENTION,
    **NO_ATTENTION, **LOOKALIKES, **LEFT_ALONE,
}  # fmt: skip
