"""Square roots of covariances, and their inverses: of symmetric matrices (N, C, C) without negative eigenvalues.

    eigh            by eigenvalues. Those that are no more than eps, or than a few roundings of the largest, are left out:
                    their roots, and the inverses of these, are 0.
    newton_schulz   by products alone, of matrix + eps * identity: the coupled iteration (Higham 2008, Functions of
                    Matrices, 6.7), a fixed number of steps.
"""

import torch

from ._layout import product

METHODS = "eigh", "newton_schulz"

# Of the largest eigenvalue: what float32 leaves of one that is 0.
ROUNDINGS = 8
# Each step multiplies a small eigenvalue of the product of both roots by 2.25: those of 1e-4 of the matrix' norm arrive. More
# steps would let what rounding makes of those that are 0 grow to 1, and beyond it the iteration diverges.
STEPS = 15


def roots(matrices, inverted, eps, method, multiply=product):
    """Of the first `inverted` the inverse root, of the others the root."""
    if method == "eigh":
        return roots_by_eigenvalues(matrices, inverted, eps)
    return roots_by_products(matrices, inverted, eps, multiply)


def roots_by_products(matrices, inverted, eps, multiply):
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    matrices = matrices + eps * identity
    norm = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    root, inverse = matrices / norm, identity.expand_as(matrices)
    for _ in range(STEPS):
        step = 1.5 * identity - 0.5 * multiply(inverse, root)
        root, inverse = multiply(root, step), multiply(step, inverse)
    scale = norm.sqrt()
    return torch.cat([(inverse / scale)[:inverted], (root * scale)[inverted:]])


def roots_by_eigenvalues(matrices, inverted, eps):
    values, vectors = torch.linalg.eigh(matrices)
    least = (values[:, -1:] * ROUNDINGS * torch.finfo(values.dtype).eps).clamp_min(eps)
    kept = values > least
    values = torch.where(kept, values, 1.0)
    of_values = torch.cat([values[:inverted].rsqrt(), values[inverted:].sqrt()]).where(kept, 0.0)
    return product(vectors * of_values.unsqueeze(1), vectors.mT)
