from ._window import pad


def forward(input, scale_factor, padding, padding_mode):
    for dim, factor in enumerate(scale_factor, start=2):
        input = input.repeat_interleave(factor, dim) if factor != 1 else input
    return pad(input, padding, padding_mode)
