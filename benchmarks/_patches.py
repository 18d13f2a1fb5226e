"""Patches in torch's own operators: as columns of a matrix, and as filters of a convolution, which is the published form."""

import torch
import torch.nn.functional as F

SIZE = 3
# A matrix of scores beside 64x64 maps is 59 MB; beside larger ones it is soon more than a machine has.
SHAPES = {"": ((1, 256, 64, 64), (1, 64, 64, 64), (1, 512, 32, 32))}


def match_flops(shape):
    """Of each pair of pixels, of which the definition multiplies each up to nine times."""
    n, c, height, width = shape
    return 2 * n * c * (height * width) ** 2


def match_by_columns(content, style):
    patches = F.normalize(F.unfold(style, SIZE), dim=1)
    best = (patches.mT @ F.unfold(content, SIZE)).argmax(1)
    return best.unflatten(1, [length - SIZE + 1 for length in content.shape[2:]])


def match_by_filters(content, style):
    return torch.stack([_scores(each, own)[1].argmax(0) for each, own in zip(content, style)])


def swap_by_columns(style, index, size):
    patches = F.unfold(style, SIZE)
    chosen = patches.gather(2, index.flatten(1).unsqueeze(1).expand(-1, patches.shape[1], -1))
    return F.fold(chosen, size, SIZE) / F.fold(torch.ones_like(chosen), size, SIZE)


def swap_by_filters(style, index, size):
    return torch.stack([_put_down(_filters(own), each, own.new_zeros) for own, each in zip(style, index)])


def swapped_by_filters(content, style):
    """Both, with filters made once."""
    found = (_scores(each, own) for each, own in zip(content, style))
    return torch.stack([_put_down(filters, scores.argmax(0), scores.new_zeros) for filters, scores in found])


def _filters(style):
    return F.unfold(style[None], SIZE)[0].T.reshape(-1, style.shape[0], SIZE, SIZE)


def _scores(content, style):
    filters = _filters(style)
    lengths = filters.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    return filters, F.conv2d(content[None], filters / lengths)[0]


def _put_down(filters, index, zeros):
    one_hot = zeros(1, filters.shape[0], *index.shape).scatter_(1, index[None, None], 1.0)
    overlaps = F.conv_transpose2d(one_hot.sum(1, keepdim=True), torch.ones_like(filters[:1, :1]))
    return (F.conv_transpose2d(one_hot, filters) / overlaps)[0]
