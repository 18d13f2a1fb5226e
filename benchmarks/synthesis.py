"""A step of each system that optimises pictures, against the same losses in plain torch: time and peak memory.

    python benchmarks/synthesis.py [CASE ...] [--size 256] [--json FILE]

A step is the losses of a picture and their gradient; what an optimiser makes of them is torch's on both sides. On the CPU,
float32, VGG-19 with random weights, content and style of the same size, the goals computed before. Plain torch is at its
best: convolutions with zeros around (oneDNN), Gram matrices by products, patches as filters of a convolution, which are made
anew for each copy of the style, for kept ones would take a gigabyte; the table look-ups of a histogram in float32.

Learned on an Intel Xeon (AVX-512), 256x256:
- A step of gatys is its convolutions. As plain ones of oneDNN with gradients it took 407 ms, of plain torch 426; by fewer
  multiplications, with a ReLU that keeps bytes and maxima that are vectors' work, 285.
- What both compute differs by 1e-3 of the gradient there: maxima and ReLUs that nearly tie. Against float64 plain torch is
  no nearer (1.8e-3 and 1.4e-3 of gatys); at 128x128, where nothing ties, both are off by 2e-6.
- The peak is the backward of the first stage. A map less there (the mask of a ReLU, overwritten) took memory from 0.85 to
  0.75 of plain torch's and less.

Times are in turns in one process, the median of each; memory is what a step adds to a fresh process, at most, as the system
counts it.
"""

from functools import partial

import torch
import torch.nn.functional as F

from fastnorm import functional, models
from fastnorm.benchmarks._sides import main
from fastnorm.models.terms import Level
from fastnorm.models.vgg import LAYERS

SIDES = "fused", "plain"


# The losses in plain torch: a function of the picture, made of the system, the content and the style.


def features(vgg, x, last):
    found = {}
    x = F.conv2d(x, vgg.preprocess.weight, vgg.preprocess.bias)
    for layer in LAYERS[: LAYERS.index(last) + 1]:
        conv = getattr(vgg, layer.replace("relu", "conv"))
        if layer.endswith("_1") and layer != LAYERS[0]:
            x = F.max_pool2d(x, 2)
        x = F.relu(F.conv2d(x, conv.weight, conv.bias, padding=1))
        if layer in vgg.layers:
            found[layer] = x
    return found


def gram(map):
    rows = map.flatten(2)
    return rows @ rows.mT / (rows.shape[1] * rows.shape[2])


def variation(x):
    return x.diff(dim=2).square().sum() + x.diff(dim=3).square().sum()


def edges(x, side=4):
    kernel = x.new_tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]]).expand(1, 3, 3, 3)
    return F.conv2d(F.avg_pool2d(x, side), kernel)


def plain_gatys(system, content, style, more=lambda x, found: 0):
    grams = [term.layer for term in system.terms if term.name == "style"]
    there = features(system.vgg, style, "relu5_1")
    goals, goal = {layer: gram(there[layer]) for layer in grams}, features(system.vgg, content, "relu4_2")["relu4_2"]

    def losses(x):
        found = features(system.vgg, x, "relu5_1")
        style = sum(1e3 * F.mse_loss(gram(found[layer]), goals[layer]) for layer in grams)
        return style + F.mse_loss(found["relu4_2"], goal) + more(x, found)

    return losses


def plain_laplacian(system, content, style):
    goal = edges(content)
    return plain_gatys(
        system, content, style, lambda x, _: 100 * F.mse_loss(edges(x), goal) + 1e-3 * variation(x)
    )


def plain_histogram(system, content, style):
    there = {layer: map for layer, map in features(system.vgg, style, "relu4_1").items() if layer in ("relu1_1", "relu4_1")}

    def more(x, found):
        matched = sum(F.mse_loss(found[layer], by_bins(found[layer].detach(), map)) for layer, map in there.items())
        return matched + 1e-3 * variation(x)

    return plain_gatys(system, content, style, more)


def by_bins(input, target, bins=256):
    x, y = (map.flatten(2) for map in (input, target))
    _, position, bin, upto = histogram(x, bins)
    (low, high), _, _, target_upto = histogram(y, bins)
    begin, end = ends(upto, bin)
    level = begin + (end - begin) * (position - bin)
    bin = torch.searchsorted(target_upto, level).clamp(max=bins - 1)
    begin, end = ends(target_upto, bin)
    share = ((level - begin) / (end - begin).clamp(min=1)).clamp(0, 1)
    return torch.lerp(low, high, (bin + share) / bins).view(input.shape)


def histogram(planes, bins):
    low, high = planes.aminmax(dim=2, keepdim=True)
    position = (planes - low) / (high - low).clamp(min=1e-30) * bins
    bin = position.long().clamp(max=bins - 1)
    counts = planes.new_zeros(*planes.shape[:2], bins).scatter_add_(2, bin, torch.ones_like(planes))
    return (low, high), position, bin, counts.cumsum(2)


def ends(upto, bin):
    upto = F.pad(upto, (1, 0))
    return upto.gather(2, bin), upto.gather(2, bin + 1)


def filters(map):
    return F.unfold(map, 3)[0].T.reshape(-1, map.shape[1], 3, 3)


def best_of(map, goals):
    """Each patch's best match: the patches (P, C * 9) that it is drawn to."""
    best = found = None
    for goal in goals:
        patches = filters(goal)
        lengths = patches.flatten(1).norm(dim=1).clamp(min=1e-12)
        score, index = (F.conv2d(map, patches) / lengths.view(1, -1, 1, 1))[0].flatten(1).max(0)
        chosen = patches.flatten(1)[index]
        if best is None:
            best, found = score, chosen
        else:
            found = torch.where((score > best).unsqueeze(1), chosen, found)
            best = torch.maximum(score, best)
    return found


def in_turn(map, goal, penalty=0.1):
    patches = filters(goal)
    lengths = patches.flatten(1).norm(dim=1).clamp(min=1e-12)
    own = F.unfold(map, 3)[0].norm(dim=0).clamp(min=1e-12)
    scores = (F.conv2d(map, patches)[0].flatten(1) / lengths.unsqueeze(1) / own).T.contiguous()
    used, index = torch.zeros(len(patches)), torch.empty(len(scores), dtype=torch.int64)
    for number, row in enumerate(scores):
        index[number] = chosen = torch.argmax(torch.sub(row, used, alpha=penalty))
        used[chosen] += 1
    return patches.flatten(1)[index]


def apart(map, patches, mean):
    squares = (F.unfold(map, 3)[0].T - patches).square()
    return squares.mean() if mean else squares.sum()


def plain_patches(system, content, style, choose, weight, content_weight, mean, copies):
    layers = [term.layer for term in system.terms if term.name == "style"]
    there = [features(system.vgg, copy, max(layers)) for copy in copies]
    goals = {layer: [each[layer] for each in there] for layer in layers}
    goal = features(system.vgg, content, "relu4_2")["relu4_2"]

    def losses(x):
        found = features(system.vgg, x, "relu4_2")
        total = content_weight * F.mse_loss(found["relu4_2"], goal) + 1e-3 * variation(x)
        for layer in layers:
            with torch.no_grad():
                patches = choose(found[layer], goals[layer])
            total = total + weight * apart(found[layer], patches, mean)
        return total

    return losses


def plain_cnnmrf(system, content, style):
    return plain_patches(system, content, style, best_of, 1e-4 / 18, 20, False, system.copies(style))


def plain_reshuffle(system, content, style):
    return plain_patches(system, content, style, lambda map, goals: in_turn(map, goals[0]), 1.0, 1.0, True, [style])


PLAIN = dict(
    gatys=plain_gatys, laplacian=plain_laplacian, histogram=plain_histogram, cnnmrf=plain_cnnmrf, reshuffle=plain_reshuffle
)


# Cases: of each what makes both sides, for any size.


def step_of(name):
    def case():
        system = models.build(name)

        def at(size):
            content, style, picture = (pictures(size, seed) for seed in range(3))
            aim = system.aim(Level(1.0, 1), content, [style], [1.0])
            with torch.no_grad():
                plain = PLAIN[name](system, content, style)
            fused = lambda x: sum(system.losses(x, aim).values()).sum()  # noqa: E731
            return dict(fused=partial(gradient, fused, picture), plain=partial(gradient, plain, picture))

        return at

    return case


def gradient(losses, picture):
    x = picture.clone().requires_grad_()
    return torch.autograd.grad(losses(x), x)[0]


def match_of(layer):
    """A histogram's match itself, of features."""

    def case():
        vgg = models.build("gatys").vgg

        @torch.no_grad()
        def at(size):
            own, other = (features(vgg, pictures(size, seed), layer)[layer] for seed in range(2))
            return dict(fused=partial(functional.match_histogram, own, other, 256), plain=partial(by_bins, own, other))

        return at

    return case


def pictures(size, seed):
    """Smooth ones, as photos are, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 17, 17, generator=generator)
    noise = torch.rand(1, 3, size, size, generator=generator)
    return 0.8 * F.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1) + 0.2 * noise


CASES = {name: step_of(name) for name in models.SYNTHESES} | {
    "match at relu1_1": match_of("relu1_1"),
    "match at relu4_1": match_of("relu4_1"),
}


def difference(fused, plain):
    """That both compute the same."""
    return ((fused - plain).norm() / plain.norm()).item()


if __name__ == "__main__":
    main(__doc__, CASES, SIDES, "synthesis", size=256, rounds=7, apart=difference)
