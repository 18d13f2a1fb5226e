"""The public generators, written from their descriptions in plain torch and organised as their public code is.

`ZOO`, at the end, makes each at its published sizes or at tiny ones. Layers that several have, and those which are a slow
form of their own, are in `forms`.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from forms import (
    SPADE,
    AdaConv2d,
    AdaILN,
    AdaptiveInstanceNorm2d,
    Blur,
    ILN,
    MeanVarianceNorm,
    ModulatedConv2d,
    PadConv,
    ResidualBlock,
    UpsampleConvLayer,
    assign_adain_parameters,
    count_adain_parameters,
    randn,
    randomized,
)
from torch import nn
from torch.nn.utils import spectral_norm


@dataclass(frozen=True)
class System:
    """A published network.

    Args:
        make: makes it, at the published sizes or at those given; float32, always with the same parameters.
        tiny: sizes of a network that runs in milliseconds.
        inputs: what its forward takes, from (batch, size, dtype, **sizes): a size or one for each dimension, of the
            first map, and the sizes that were given to `make`.
        tiny_size: of the first map that a tiny one takes.
    """

    make: Callable[..., nn.Module]
    tiny: dict
    inputs: Callable[..., tuple]
    tiny_size: int | tuple[int, ...]

    def make_tiny(self):
        return self.make(**self.tiny)

    def tiny_inputs(self, dtype, batch=2):
        return self.inputs(batch, self.tiny_size, dtype, **self.tiny)


# Fast style transfer.


class TransformerResidualBlock(nn.Module):
    """Two padded convolutions with a norm each (Johnson et al. 2016)."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = PadConv(channels, channels, 3)
        self.in1 = nn.InstanceNorm2d(channels, affine=True)
        self.conv2 = PadConv(channels, channels, 3)
        self.in2 = nn.InstanceNorm2d(channels, affine=True)
        self.relu = nn.ReLU()

    def forward(self, x):
        out = self.relu(self.in1(self.conv1(x)))
        return self.in2(self.conv2(out)) + x


class TransformerNet(nn.Module):
    """Johnson's network: Perceptual Losses for Real-Time Style Transfer (Johnson et al. 2016, arXiv:1603.08155)."""

    def __init__(self, channels=(32, 64, 128), residual_blocks=5, kernel_size=9):
        super().__init__()
        first, second, third = channels
        self.conv1, self.in1 = PadConv(3, first, kernel_size), nn.InstanceNorm2d(first, affine=True)
        self.conv2, self.in2 = PadConv(first, second, 3, stride=2), nn.InstanceNorm2d(second, affine=True)
        self.conv3, self.in3 = PadConv(second, third, 3, stride=2), nn.InstanceNorm2d(third, affine=True)
        self.residual = nn.ModuleList(TransformerResidualBlock(third) for _ in range(residual_blocks))
        self.deconv1, self.in4 = UpsampleConvLayer(third, second, 3, upsample=2), nn.InstanceNorm2d(second, affine=True)
        self.deconv2, self.in5 = UpsampleConvLayer(second, first, 3, upsample=2), nn.InstanceNorm2d(first, affine=True)
        self.deconv3 = PadConv(first, 3, kernel_size)
        self.relu = nn.ReLU()

    def forward(self, x):
        y = self.relu(self.in1(self.conv1(x)))
        y = self.relu(self.in2(self.conv2(y)))
        y = self.relu(self.in3(self.conv3(y)))
        for block in self.residual:
            y = block(y)
        y = self.relu(self.in4(self.deconv1(y)))
        y = self.relu(self.in5(self.deconv2(y)))
        return self.deconv3(y)


class KernelPredictor(nn.Module):
    """A spatial and a pointwise filter and a bias for each sample, from its style (AdaConv, Chandran et al. 2021)."""

    def __init__(self, in_channels, out_channels, style_channels, groups, kernel_size=3):
        super().__init__()
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        spatial, pointwise = in_channels * in_channels // groups, out_channels * in_channels // groups
        padding = kernel_size // 2
        self.spatial = nn.Conv2d(style_channels, spatial, kernel_size, padding=padding, padding_mode="reflect")
        pooled = nn.AdaptiveAvgPool2d(1)
        self.pointwise = nn.Sequential(pooled, nn.Conv2d(style_channels, pointwise, 1))
        self.bias = nn.Sequential(pooled, nn.Conv2d(style_channels, out_channels, 1))

    def forward(self, style):
        n, c = style.size(0), self.in_channels
        spatial = self.spatial(style).reshape(n, c, c // self.groups, *style.shape[2:])
        pointwise = self.pointwise(style).reshape(n, self.out_channels, c // self.groups, 1, 1)
        return spatial, pointwise, self.bias(style).reshape(n, self.out_channels)


class AdaConvBlock(nn.Module):
    """Filters from the style, and the map that they are for (AdaConv, Chandran et al. 2021)."""

    def __init__(self, in_channels=256, out_channels=256, style_channels=512, groups=128, style_size=3, by_view=False):
        super().__init__()
        self.predictor = KernelPredictor(in_channels, in_channels, style_channels, groups)
        self.conv = AdaConv2d(in_channels, out_channels, style_size, groups, by_view)

    def forward(self, x, style):
        return self.conv(x, *self.predictor(style))


class AdaConvDecoder(nn.Module):
    """From features of VGG at relu4_1 to a picture (Adaptive Convolutions, Chandran et al. 2021)."""

    def __init__(
        self, channels=(512, 256, 128, 64), groups=(512, 128, 32, 8), convs=(1, 4, 2, 2), style_channels=512,
        by_view=False,
    ):  # fmt: skip
        super().__init__()
        self.blocks, self.plain = nn.ModuleList(), nn.ModuleList()
        for width, after, group, count in zip(channels, (*channels[1:], 3), groups, convs):
            out = width if count > 1 else after
            self.blocks.append(AdaConvBlock(width, out, style_channels, group, by_view=by_view))
            layers = []
            for i in range(1, count):
                out = after if i == count - 1 else width
                layers += [nn.ReLU(), nn.Conv2d(width, out, 3, padding=1, padding_mode="reflect")]
            self.plain.append(nn.Sequential(*layers))
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, content, style):
        x = content
        last = len(self.blocks) - 1
        for i, (block, plain) in enumerate(zip(self.blocks, self.plain)):
            x = plain(block(x, style))
            if i < last:
                x = self.upsample(F.relu(x))
        return x


class AdaAttN(nn.Module):
    """Attention-weighted mean and deviation of the style for every position (AdaAttN, Liu et al. 2021).

    The default is relu3_1, whose keys are the features of all levels so far.
    """

    def __init__(self, in_planes=256, key_planes=448, max_sample=64 * 64):
        super().__init__()
        self.f, self.g = nn.Conv2d(key_planes, key_planes, 1), nn.Conv2d(key_planes, key_planes, 1)
        self.h = nn.Conv2d(in_planes, in_planes, 1)
        self.norm = MeanVarianceNorm()
        self.max_sample = max_sample

    def forward(self, content, style, content_key, style_key):
        query, key, value = self.f(self.norm(content_key)), self.g(self.norm(style_key)), self.h(style)
        n, _, key_h, key_w = key.size()
        key = key.view(n, -1, key_w * key_h).contiguous()
        value = value.view(n, -1, key_w * key_h).transpose(1, 2).contiguous()
        if key_w * key_h > self.max_sample:
            # Seeded, as the result depends on the keys that are drawn.
            generator = torch.Generator(value.device).manual_seed(0)
            index = torch.randperm(key_w * key_h, generator=generator, device=value.device)[: self.max_sample]
            key, value = key[:, :, index], value[:, index]
        _, _, h, w = query.size()
        query = query.view(n, -1, w * h).permute(0, 2, 1)
        attention = torch.softmax(torch.bmm(query, key), dim=-1)
        mean = torch.bmm(attention, value)
        std = torch.sqrt(torch.relu(torch.bmm(attention, value**2) - mean**2))
        mean = mean.view(n, h, w, -1).permute(0, 3, 1, 2).contiguous()
        std = std.view(n, h, w, -1).permute(0, 3, 1, 2).contiguous()
        return std * self.norm(content) + mean


# Pictures from pictures.


class ResnetGenerator(nn.Module):
    """CycleGAN's generator (Zhu et al. 2017, arXiv:1703.10593): one Sequential."""

    def __init__(self, ngf=64, n_blocks=9, dropout=False):
        super().__init__()
        norm_layer = functools.partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)
        model = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7), norm_layer(ngf), nn.ReLU(True)]
        for mult in 1, 2:
            model += [nn.Conv2d(ngf * mult, ngf * mult * 2, 3, stride=2, padding=1)]
            model += [norm_layer(ngf * mult * 2), nn.ReLU(True)]
        model += [ResidualBlock(ngf * 4, norm_layer, dropout) for _ in range(n_blocks)]
        for mult in 4, 2:
            conv = nn.ConvTranspose2d(ngf * mult, ngf * mult // 2, 3, stride=2, padding=1, output_padding=1)
            model += [conv, norm_layer(ngf * mult // 2), nn.ReLU(True)]
        model += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*model)

    def forward(self, input):
        return self.model(input)


class SampleLayerNorm(nn.Module):
    """A layer norm by hand: unbiased, eps on the deviation, the affine map per channel (MUNIT, Huang et al. 2018)."""

    def __init__(self, num_features, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.rand(num_features))
        self.beta = nn.Parameter(torch.zeros(num_features))

    def forward(self, x):
        shape = [-1] + [1] * (x.dim() - 1)
        if x.size(0) == 1:
            mean, std = x.view(-1).mean().view(*shape), x.view(-1).std().view(*shape)
        else:
            flat = x.view(x.size(0), -1)
            mean, std = flat.mean(1).view(*shape), flat.std(1).view(*shape)
        x = (x - mean) / (std + self.eps)
        shape = [1, -1] + [1] * (x.dim() - 2)
        return x * self.gamma.view(*shape) + self.beta.view(*shape)


class ConvBlock(nn.Module):
    """Padding, convolution, norm and activation, the last two by name (MUNIT, Huang et al. 2018)."""

    NORMS = {"none": None, "in": nn.InstanceNorm2d, "ln": SampleLayerNorm, "adain": AdaptiveInstanceNorm2d}
    ACTIVATIONS = {"none": None, "relu": functools.partial(nn.ReLU, inplace=True), "tanh": nn.Tanh}

    def __init__(self, in_dim, out_dim, kernel_size, stride, padding, norm="none", activation="relu"):
        super().__init__()
        self.pad = nn.ReflectionPad2d(padding)
        self.conv = nn.Conv2d(in_dim, out_dim, kernel_size, stride)
        make_norm, make_activation = self.NORMS[norm], self.ACTIVATIONS[activation]
        self.norm = make_norm(out_dim) if make_norm else None
        self.activation = make_activation() if make_activation else None

    def forward(self, x):
        x = self.conv(self.pad(x))
        if self.norm:
            x = self.norm(x)
        if self.activation:
            x = self.activation(x)
        return x


class ConvResBlock(nn.Module):
    """Two blocks, the second without activation (MUNIT, Huang et al. 2018)."""

    def __init__(self, dim, norm):
        super().__init__()
        self.model = nn.Sequential(
            ConvBlock(dim, dim, 3, 1, 1, norm=norm), ConvBlock(dim, dim, 3, 1, 1, norm=norm, activation="none")
        )

    def forward(self, x):
        residual = x
        out = self.model(x)
        out += residual
        return out


class StyleEncoder(nn.Module):
    """A picture to its style, without norms, which would take it out (MUNIT, Huang et al. 2018)."""

    def __init__(self, n_downsample, dim, style_dim):
        super().__init__()
        model = [ConvBlock(3, dim, 7, 1, 3)]
        for i in range(n_downsample):
            wider = 2 * dim if i < 2 else dim
            model += [ConvBlock(dim, wider, 4, 2, 1)]
            dim = wider
        self.model = nn.Sequential(*model, nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, style_dim, 1))

    def forward(self, x):
        return self.model(x)


class ContentEncoder(nn.Module):
    """A picture to its content, with instance norms (MUNIT, Huang et al. 2018)."""

    def __init__(self, n_downsample, n_res, dim):
        super().__init__()
        model = [ConvBlock(3, dim, 7, 1, 3, norm="in")]
        for _ in range(n_downsample):
            model += [ConvBlock(dim, 2 * dim, 4, 2, 1, norm="in")]
            dim *= 2
        self.model = nn.Sequential(*model, *[ConvResBlock(dim, "in") for _ in range(n_res)])
        self.output_dim = dim

    def forward(self, x):
        return self.model(x)


class Decoder(nn.Module):
    """Residual blocks with the style's norms, then upsampling and 5x5 convolutions (MUNIT, Huang et al. 2018)."""

    def __init__(self, n_upsample, n_res, dim):
        super().__init__()
        model = [ConvResBlock(dim, "adain") for _ in range(n_res)]
        for _ in range(n_upsample):
            model += [nn.Upsample(scale_factor=2), ConvBlock(dim, dim // 2, 5, 1, 2, norm="ln")]
            dim //= 2
        self.model = nn.Sequential(*model, ConvBlock(dim, 3, 7, 1, 3, activation="tanh"))

    def forward(self, x):
        return self.model(x)


class MLP(nn.Module):
    """A style to the parameters of all norms (MUNIT, Huang et al. 2018)."""

    def __init__(self, input_dim, output_dim, dim, n_blk=3):
        super().__init__()
        widths = [input_dim] + [dim] * (n_blk - 1)
        hidden = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.ReLU(inplace=True))]
        self.model = nn.Sequential(*hidden, nn.Linear(dim, output_dim))

    def forward(self, x):
        return self.model(x.view(x.size(0), -1))


class AdaINGen(nn.Module):
    """MUNIT's generator, reconstructing a picture (Huang et al. 2018, arXiv:1804.04732)."""

    def __init__(self, dim=64, style_dim=8, n_downsample=2, n_res=4, mlp_dim=256, style_downsample=4):
        super().__init__()
        self.enc_style = StyleEncoder(style_downsample, dim, style_dim)
        self.enc_content = ContentEncoder(n_downsample, n_res, dim)
        self.dec = Decoder(n_downsample, n_res, self.enc_content.output_dim)
        self.mlp = MLP(style_dim, count_adain_parameters(self.dec), mlp_dim)

    def forward(self, images):
        return self.decode(*self.encode(images))

    def encode(self, images):
        style = self.enc_style(images)
        return self.enc_content(images), style

    def decode(self, content, style):
        assign_adain_parameters(self.mlp(style), self.dec)
        return self.dec(content)


class StarGANResidualBlock(nn.Module):
    """Two convolutions without biases, with norms (StarGAN, Choi et al. 2018)."""

    def __init__(self, dim, norm):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, bias=False), norm(dim), nn.ReLU(inplace=True),
            nn.Conv2d(dim, dim, 3, padding=1, bias=False), norm(dim),
        )  # fmt: skip

    def forward(self, x):
        return x + self.main(x)


class StarGANGenerator(nn.Module):
    """A picture and its wanted labels, as further channels (StarGAN, Choi et al. 2018, arXiv:1711.09020)."""

    def __init__(self, conv_dim=64, c_dim=5, repeat_num=6, track_running_stats=True):
        super().__init__()
        norm = functools.partial(nn.InstanceNorm2d, affine=True, track_running_stats=track_running_stats)
        dim = conv_dim
        layers = [nn.Conv2d(3 + c_dim, dim, 7, padding=3, bias=False), norm(dim), nn.ReLU(inplace=True)]
        for _ in range(2):
            conv = nn.Conv2d(dim, dim * 2, 4, stride=2, padding=1, bias=False)
            layers += [conv, norm(dim * 2), nn.ReLU(inplace=True)]
            dim *= 2
        layers += [StarGANResidualBlock(dim, norm) for _ in range(repeat_num)]
        for _ in range(2):
            conv = nn.ConvTranspose2d(dim, dim // 2, 4, stride=2, padding=1, bias=False)
            layers += [conv, norm(dim // 2), nn.ReLU(inplace=True)]
            dim //= 2
        self.main = nn.Sequential(*layers, nn.Conv2d(dim, 3, 7, padding=3, bias=False), nn.Tanh())

    def forward(self, x, c):
        c = c.view(c.size(0), c.size(1), 1, 1)
        c = c.repeat(1, 1, x.size(2), x.size(3))
        return self.main(torch.cat([x, c], dim=1))


class ResnetAdaILNBlock(nn.Module):
    """Two padded convolutions, each with the blended norm of the picture's own style (U-GAT-IT, Kim et al. 2020)."""

    def __init__(self, dim):
        super().__init__()
        self.pad1, self.conv1 = nn.ReflectionPad2d(1), nn.Conv2d(dim, dim, 3, bias=False)
        self.norm1, self.relu1 = AdaILN(dim), nn.ReLU(True)
        self.pad2, self.conv2 = nn.ReflectionPad2d(1), nn.Conv2d(dim, dim, 3, bias=False)
        self.norm2 = AdaILN(dim)

    def forward(self, x, gamma, beta):
        out = self.relu1(self.norm1(self.conv1(self.pad1(x)), gamma, beta))
        out = self.norm2(self.conv2(self.pad2(out)), gamma, beta)
        return out + x


class UGATITGenerator(nn.Module):
    """U-GAT-IT's generator, the light one (Kim et al. 2020, arXiv:1907.10830): (picture, class logits, heat map)."""

    def __init__(self, ngf=64, n_blocks=4):
        super().__init__()
        self.n_blocks = n_blocks
        dim = ngf * 4
        down = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7, bias=False), nn.InstanceNorm2d(ngf), nn.ReLU(True)]
        for mult in 1, 2:
            conv = nn.Conv2d(ngf * mult, ngf * mult * 2, 3, stride=2, bias=False)
            down += [nn.ReflectionPad2d(1), conv, nn.InstanceNorm2d(ngf * mult * 2), nn.ReLU(True)]
        self.down_block = nn.Sequential(*down, *[ResidualBlock(dim, bias=False) for _ in range(n_blocks)])

        self.gap_fc, self.gmp_fc = nn.Linear(dim, 1, bias=False), nn.Linear(dim, 1, bias=False)
        self.conv1x1, self.relu = nn.Conv2d(dim * 2, dim, 1), nn.ReLU(True)

        linear = functools.partial(nn.Linear, dim, dim, bias=False)
        self.fc = nn.Sequential(linear(), nn.ReLU(True), linear(), nn.ReLU(True))
        self.gamma, self.beta = linear(), linear()
        for i in range(n_blocks):
            setattr(self, f"up_block1_{i + 1}", ResnetAdaILNBlock(dim))

        up = []
        for width in dim, dim // 2:
            conv = nn.Conv2d(width, width // 2, 3, bias=False)
            up += [nn.Upsample(scale_factor=2, mode="nearest"), nn.ReflectionPad2d(1), conv, ILN(width // 2), nn.ReLU(True)]
        self.up_block2 = nn.Sequential(*up, nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7, bias=False), nn.Tanh())

    def forward(self, input):
        x = self.down_block(input)

        gap = F.adaptive_avg_pool2d(x, 1)
        gap_logit = self.gap_fc(gap.view(x.shape[0], -1))
        gap = x * list(self.gap_fc.parameters())[0].unsqueeze(2).unsqueeze(3)
        gmp = F.adaptive_max_pool2d(x, 1)
        gmp_logit = self.gmp_fc(gmp.view(x.shape[0], -1))
        gmp = x * list(self.gmp_fc.parameters())[0].unsqueeze(2).unsqueeze(3)
        cam_logit = torch.cat([gap_logit, gmp_logit], 1)
        x = self.relu(self.conv1x1(torch.cat([gap, gmp], 1)))
        heatmap = torch.sum(x, dim=1, keepdim=True)

        pooled = F.adaptive_avg_pool2d(x, 1)
        style = self.fc(pooled.view(pooled.shape[0], -1))
        gamma, beta = self.gamma(style), self.beta(style)
        for i in range(self.n_blocks):
            x = getattr(self, f"up_block1_{i + 1}")(x, gamma, beta)
        return self.up_block2(x), cam_logit, heatmap


# Pictures from labels, and from nothing.


class SPADEResnetBlock(nn.Module):
    """Two convolutions, each after a norm by the labels, and a learned shortcut (SPADE, Park et al. 2019)."""

    def __init__(self, fin, fout, label_nc, hidden, spectral):
        super().__init__()
        self.learned_shortcut = fin != fout
        middle = min(fin, fout)
        wrap = spectral_norm if spectral else lambda conv: conv
        self.conv_0, self.conv_1 = wrap(nn.Conv2d(fin, middle, 3, padding=1)), wrap(nn.Conv2d(middle, fout, 3, padding=1))
        self.norm_0, self.norm_1 = SPADE(fin, label_nc, hidden), SPADE(middle, label_nc, hidden)
        if self.learned_shortcut:
            self.conv_s = wrap(nn.Conv2d(fin, fout, 1, bias=False))
            self.norm_s = SPADE(fin, label_nc, hidden)

    def forward(self, x, seg):
        x_s = self.shortcut(x, seg)
        dx = self.conv_0(self.actvn(self.norm_0(x, seg)))
        dx = self.conv_1(self.actvn(self.norm_1(dx, seg)))
        return x_s + dx

    def shortcut(self, x, seg):
        return self.conv_s(self.norm_s(x, seg)) if self.learned_shortcut else x

    def actvn(self, x):
        return F.leaky_relu(x, 2e-1)


class SPADEGenerator(nn.Module):
    """A picture from a map of labels (SPADE, Park et al. 2019, arXiv:1903.07291), with instance norms in it.

    Args:
        widths: multiples of nf, a resolution each, twice the last; the first is that of the blocks in the middle.
        spectral: divide the weights of the residual convolutions by their spectral norms, as the published one does.
    """

    def __init__(self, nf=64, semantic_nc=36, widths=(16, 8, 4, 2, 1), hidden=128, spectral=True):
        super().__init__()
        block = functools.partial(SPADEResnetBlock, label_nc=semantic_nc, hidden=hidden, spectral=spectral)
        head = widths[0] * nf
        self.fc = nn.Conv2d(semantic_nc, head, 3, padding=1)
        self.head_0, self.G_middle_0, self.G_middle_1 = (block(head, head) for _ in range(3))
        self.ups = nn.ModuleList(block(a * nf, b * nf) for a, b in zip(widths, widths[1:]))
        self.conv_img = nn.Conv2d(widths[-1] * nf, 3, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2)
        self.shrink = 2 ** len(widths)

    def forward(self, seg):
        size = seg.size(2) // self.shrink, seg.size(3) // self.shrink
        x = self.fc(F.interpolate(seg, size=size))
        x = self.head_0(x, seg)
        x = self.G_middle_0(self.up(x), seg)
        x = self.G_middle_1(x, seg)
        for block in self.ups:
            x = block(self.up(x), seg)
        return torch.tanh(self.conv_img(F.leaky_relu(x, 2e-1)))


class StyledConv(nn.Module):
    """A modulated convolution, noise, a bias and a LeakyReLU of gain sqrt(2) (StyleGAN2, Karras et al. 2020)."""

    def __init__(self, in_channels, out_channels, style_dim, resample=None):
        super().__init__()
        self.conv = ModulatedConv2d(in_channels, out_channels, 3, style_dim, resample=resample)
        self.noise_weight = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(1, out_channels, 1, 1))

    def forward(self, x, style, noise):
        out = self.conv(x, style)
        out = out + self.noise_weight * noise
        return F.leaky_relu(out + self.bias, 0.2) * math.sqrt(2)


class ToRGB(nn.Module):
    """A 1x1 modulated convolution, added to the smaller picture upsampled (StyleGAN2, Karras et al. 2020)."""

    def __init__(self, in_channels, style_dim, upsample=True):
        super().__init__()
        self.blur = Blur((2, 1), upsample_factor=2) if upsample else None
        self.conv = ModulatedConv2d(in_channels, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x, style, skip=None):
        out = self.conv(x, style) + self.bias
        if skip is not None:
            out = out + self.blur(self.between_zeros(skip))
        return out

    def between_zeros(self, x):
        n, c, h, w = x.shape
        return F.pad(x.view(n, c, h, 1, w, 1), (0, 1, 0, 0, 0, 1)).view(n, c, 2 * h, 2 * w)


class StyleGAN2Synthesis(nn.Module):
    """StyleGAN2's synthesis network, of one latent for all layers and of fixed noise (Karras et al. 2020, arXiv:1912.04958).

    Args:
        channels: of each resolution, the first of which is `base`.
    """

    def __init__(self, channels=(512, 512, 512, 512, 512, 256, 128, 64, 32), style_dim=512, base=4):
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, channels[0], base, base))
        self.conv1 = StyledConv(channels[0], channels[0], style_dim)
        self.to_rgb1 = ToRGB(channels[0], style_dim, upsample=False)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        self.noises.register_buffer("noise_0", torch.randn(1, 1, base, base))
        size = base
        for narrow, wide in zip(channels, channels[1:]):
            size *= 2
            self.convs.append(StyledConv(narrow, wide, style_dim, resample="up"))
            self.convs.append(StyledConv(wide, wide, style_dim))
            self.to_rgbs.append(ToRGB(wide, style_dim))
            for layer in len(self.convs) - 1, len(self.convs):
                self.noises.register_buffer(f"noise_{layer}", torch.randn(1, 1, size, size))

    def forward(self, latent):
        noise = [getattr(self.noises, f"noise_{i}") for i in range(len(self.convs) + 1)]
        out = self.input.repeat(latent.size(0), 1, 1, 1)
        out = self.conv1(out, latent, noise=noise[0])
        skip = self.to_rgb1(out, latent)
        layers = zip(self.convs[::2], self.convs[1::2], noise[1::2], noise[2::2], self.to_rgbs)
        for up, conv, first_noise, second_noise, to_rgb in layers:
            out = up(out, latent, noise=first_noise)
            out = conv(out, latent, noise=second_noise)
            skip = to_rgb(out, latent, skip)
        return skip


# Segmentation.


class ConvDropoutNormReLU(nn.Module):
    """A convolution, a norm and a LeakyReLU, each under two names (nnU-Net, Isensee et al. 2021)."""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, stride, padding=1)
        self.norm = nn.InstanceNorm3d(out_channels, eps=1e-5, affine=True)
        self.nonlin = nn.LeakyReLU(negative_slope=0.01, inplace=True)
        self.all_modules = nn.Sequential(self.conv, self.norm, self.nonlin)

    def forward(self, x):
        return self.all_modules(x)


def stacked_conv_blocks(in_channels, out_channels, count, first_stride=1):
    first = ConvDropoutNormReLU(in_channels, out_channels, first_stride)
    return nn.Sequential(first, *[ConvDropoutNormReLU(out_channels, out_channels) for _ in range(count - 1)])


class PlainConvUNet(nn.Module):
    """nnU-Net's plain U-Net for volumes (Isensee et al. 2021, arXiv:1809.10486)."""

    def __init__(self, in_channels=1, features=(32, 64, 128, 256, 320, 320), convs_per_stage=2, num_classes=3):
        super().__init__()
        widths = in_channels, *features
        self.encoder = nn.ModuleList(
            stacked_conv_blocks(a, b, convs_per_stage, 1 if stage == 0 else 2)
            for stage, (a, b) in enumerate(zip(widths, features))
        )
        upwards = list(zip(features[:0:-1], features[-2::-1]))
        self.transpconvs = nn.ModuleList(nn.ConvTranspose3d(below, skip, 2, 2) for below, skip in upwards)
        self.stages = nn.ModuleList(stacked_conv_blocks(2 * skip, skip, convs_per_stage) for _, skip in upwards)
        self.seg_layer = nn.Conv3d(features[0], num_classes, 1)

    def forward(self, x):
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        for i, (transpconv, stage) in enumerate(zip(self.transpconvs, self.stages)):
            x = torch.cat((transpconv(x), skips[-(i + 2)]), 1)
            x = stage(x)
        return self.seg_layer(x)


# What their forwards take, by the sizes that were given to their constructors.


def spatial(size, dims=2):
    return (size,) * dims if isinstance(size, int) else size


def picture(batch, size, dtype, **sizes):
    return (randn(batch, 3, *spatial(size), dtype=dtype),)


def picture_and_labels(batch, size, dtype, c_dim=5, **sizes):
    labels = (randn(batch, c_dim, dtype=dtype, seed=1) > 0).to(dtype)
    return *picture(batch, size, dtype), labels


def map_and_style(batch, size, dtype, in_channels=256, style_channels=512, style_size=3, **sizes):
    style = randn(batch, style_channels, style_size, style_size, dtype=dtype, seed=1)
    return randn(batch, in_channels, *spatial(size), dtype=dtype), style


def features_and_style(batch, size, dtype, channels=(512,), **sizes):
    return map_and_style(batch, size, dtype, channels[0], **sizes)


def two_maps_and_keys(batch, size, dtype, in_planes=256, key_planes=448, **sizes):
    """The style's map is a row smaller, as it is another picture."""
    h, w = spatial(size)
    shapes = [(planes, rows, w) for planes in (in_planes, key_planes) for rows in (h, h - 1)]
    return tuple(randn(batch, *shape, dtype=dtype, seed=seed) for seed, shape in enumerate(shapes))


def label_map(batch, size, dtype, semantic_nc=36, **sizes):
    """One label for each pixel, of regions that are blocks of 4x4."""
    h, w = spatial(size)
    coarse = randn(batch, semantic_nc, -(-h // 4), -(-w // 4), dtype=dtype).argmax(1)
    labels = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :h, :w]
    return (F.one_hot(labels, semantic_nc).permute(0, 3, 1, 2).to(dtype).contiguous(),)


def latent(batch, size, dtype, style_dim=512, **sizes):
    """The size of the picture is the network's."""
    return (randn(batch, style_dim, dtype=dtype),)


def volume(batch, size, dtype, in_channels=1, **sizes):
    return (randn(batch, in_channels, *spatial(size, 3), dtype=dtype),)


# The registry.


def system(make, tiny, inputs, tiny_size, **settings):
    return System(functools.partial(randomized, make, **settings), tiny, inputs, tiny_size)


TINY_ADACONV = {"in_channels": 8, "out_channels": 6, "style_channels": 5, "groups": 4}
TINY_ADACONV_DECODER = {"channels": (8, 6, 4, 4), "groups": (8, 3, 2, 1), "convs": (1, 3, 2, 2), "style_channels": 5}
TINY_SPADE = {"nf": 2, "semantic_nc": 4, "widths": (4, 2, 1), "hidden": 5}
TINY_STARGAN = {"conv_dim": 4, "c_dim": 3, "repeat_num": 2}

ZOO: dict[str, System] = {
    "johnson": system(TransformerNet, {"channels": (4, 6, 8), "residual_blocks": 2}, picture, (20, 28)),
    "cyclegan": system(ResnetGenerator, {"ngf": 4, "n_blocks": 2}, picture, (20, 28)),
    "munit": system(
        AdaINGen, {"dim": 4, "style_dim": 3, "n_res": 2, "mlp_dim": 8, "style_downsample": 3}, picture, (20, 28)
    ),
    "stargan": system(StarGANGenerator, TINY_STARGAN, picture_and_labels, (20, 28)),
    "stargan-own-statistics": system(
        StarGANGenerator, TINY_STARGAN, picture_and_labels, (20, 28), track_running_stats=False
    ),
    "ugatit": system(UGATITGenerator, {"ngf": 4, "n_blocks": 2}, picture, (20, 28)),
    "spade": system(SPADEGenerator, TINY_SPADE, label_map, (24, 40), spectral=False),
    "spade-spectral": system(SPADEGenerator, TINY_SPADE, label_map, (24, 40)),
    "adaconv-block": system(AdaConvBlock, TINY_ADACONV, map_and_style, (11, 14)),
    "adaconv-block-view": system(AdaConvBlock, TINY_ADACONV, map_and_style, (11, 14), by_view=True),
    "adaconv-decoder": system(AdaConvDecoder, TINY_ADACONV_DECODER, features_and_style, (3, 5)),
    "adaattn": system(AdaAttN, {"in_planes": 6, "key_planes": 10}, two_maps_and_keys, (9, 7)),
    "stylegan2": system(StyleGAN2Synthesis, {"channels": (8, 6, 5), "style_dim": 7, "base": 5}, latent, 20),
    "nnunet-3d": system(PlainConvUNet, {"features": (4, 6, 8), "num_classes": 2}, volume, (12, 8, 20)),
}
