"""How published code writes the statistics of a plane."""


def calc_mean_std(features, eps=1e-5):
    """Mean and standard deviation of each plane of (N, C, *), shaped to broadcast over it.

    The helper that AdaIN's implementations share, for any number of dimensions. Theirs takes the unbiased variance;
    this one the biased, as torch's operators do, so that all rivals compute the same. It costs the same.
    """
    planes = features.reshape(*features.shape[:2], -1)
    std = (planes.var(dim=2, unbiased=False) + eps).sqrt()
    return over_planes(planes.mean(dim=2), features), over_planes(std, features)


def over_planes(parameter, features):
    """A (C,) or (N, C) parameter, shaped to broadcast over (N, C, *)."""
    return parameter.view(*parameter.shape, *[1] * (features.dim() - 2))
