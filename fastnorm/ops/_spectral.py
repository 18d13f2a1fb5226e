"""Square roots of covariances, and their inverses: of symmetric matrices (N, C, C) without negative eigenvalues.

    eigh            U diag(s) U^T and U diag(1/s) U^T, s^2 being the eigenvalues. Those that are no more than eps, or than
                    what rounding of the largest leaves of 0, are left out: their s, and its inverse, are 0.
    newton_schulz   by products alone, of matrix + eps * identity: the coupled iteration (Higham 2008, Functions of
                    Matrices, 6.7), a fixed number of steps.

The gradient of torch.linalg.eigh divides by differences of eigenvalues. That of a root does not: in the basis of the
eigenvectors it is grad[i, j] / (s[i] + s[j]), of an inverse -grad[i, j] / (s[i] s[j] (s[i] + s[j])): Daleckii and Krein.
Beside an s that is left out, and counts as 0, they are 1/s and 1/s^3; of two of them 0.
"""

import torch

from ._layout import product
from ._library import define, differentiable, gradient_of

METHODS = "eigh", "newton_schulz"

# What rounding of a covariance leaves of an eigenvalue that is 0, in places of the largest: in float32 less than one was
# seen, of 16 to 512 channels.
ROUNDINGS = 4
# Each step multiplies a small eigenvalue of the product of both roots by 2.25: those of 1e-4 of the matrix' norm arrive.
# More steps would let what rounding makes of those that are 0 grow to 1, and beyond it the iteration diverges.
STEPS = 15
# Derivatives of the formula that are right.
ORDERS = 3


def roots(matrices, inverted, eps, method, multiply):
    """Of the first `inverted` the inverse root, of the others the root."""
    if method == "eigh":
        return _forward(matrices, inverted, eps)[0]
    return roots_by_products(matrices, inverted, eps, multiply)


def reference(matrices, inverted, eps, method, multiply):
    if method == "eigh":
        return _differentiable_definition(matrices, inverted, eps)[0]
    return roots_by_products(matrices, inverted, eps, multiply)


def roots_by_products(matrices, inverted, eps, multiply):
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    matrices = matrices + eps * identity
    # Of numbers below 1: squares of covariances may be beyond the largest.
    size = matrices.detach().abs().sum((1, 2), keepdim=True)
    norm = torch.linalg.vector_norm(matrices / size, dim=(1, 2), keepdim=True) * size
    root, inverse = matrices / norm, identity.expand_as(matrices)
    for _ in range(STEPS):
        step = 1.5 * identity - 0.5 * multiply(inverse, root)
        root, inverse = multiply(root, step), multiply(step, inverse)
    scale = norm.sqrt()
    return torch.cat([(inverse / scale)[:inverted], (root * scale)[inverted:]])


# By eigenvalues. With the roots, the operator returns what its backward needs: vectors and s.


def _decomposed(matrices, eps):
    """Vectors, and s. Of a matrix that is not finite, for which eigh fails, s is NaN."""
    finite = matrices.isfinite().all(2, keepdim=True).all(1, keepdim=True)
    # In float64: of variances that are 1e5 apart, the vectors of float32 would cost two digits of the result, and half the
    # time.
    values, vectors = torch.linalg.eigh(matrices.where(finite, 0.0).double())
    values, vectors = values.to(matrices.dtype), vectors.to(matrices.dtype)
    rounding = values.amax(1, keepdim=True) * (ROUNDINGS * torch.finfo(values.dtype).eps)
    kept = values > rounding.clamp_min(eps)
    s = torch.where(kept, values, 1.0).sqrt().where(kept, 0.0)
    return vectors, s.where(finite.squeeze(2), float("nan"))


def _inverse(s):
    return torch.where(s == 0, 0.0, 1 / s)


def _definition(matrices, inverted, eps):
    if 0 in matrices.shape:
        return tuple(map(torch.zeros_like, _fake(matrices, inverted, eps)))
    vectors, s = _decomposed(matrices, eps)
    diagonal = torch.cat([_inverse(s[:inverted]), s[inverted:]])
    return product(vectors * diagonal.unsqueeze(1), vectors.mT), vectors.contiguous(), s


def _fake(matrices, inverted, eps):
    return torch.empty_like(matrices), torch.empty_like(matrices), matrices.new_empty(matrices.shape[:2])


_forward_kernel = define(
    "matrix_roots",
    "(Tensor matrices, SymInt inverted, float eps) -> (Tensor roots, Tensor vectors, Tensor deviations)",
    _definition,
    _fake,
)


def _backward_definition(grad, matrices, vectors, s, inverted):
    grad = product(vectors.mT, product((grad + grad.mT) / 2, vectors)) * _slopes(s, inverted)
    return product(vectors, product(grad, vectors.mT))


def _slopes(s, inverted):
    of_root = _inverse(s.unsqueeze(1) + s.unsqueeze(2))
    g = _inverse(s[:inverted])
    both = g.unsqueeze(1) * g.unsqueeze(2)
    of_inverse = torch.where(both == 0, (g.unsqueeze(1) + g.unsqueeze(2)) ** 3, -both * of_root[:inverted])
    return torch.cat([of_inverse, of_root[inverted:]])


def _backward_fake(grad, matrices, vectors, s, inverted):
    return torch.empty_like(matrices)


_backward_kernel = define(
    "matrix_roots_backward",
    "(Tensor grad, Tensor matrices, Tensor vectors, Tensor deviations, SymInt inverted) -> Tensor grad_matrices",
    _backward_definition,
    _backward_fake,
)


# Further derivatives are those of iterations around the roots that are known, in the basis of their vectors. Each step is
# right to one order more, without a difference of eigenvalues: vectors and s are constants in it.


def formula(matrices, vectors, s, inverted):
    """The roots; p projects to the vectors that are kept."""
    change = product(vectors.mT, product(matrices - matrices.detach(), vectors))
    matrix = torch.diag_embed(s.square()) + (change + change.mT) / 2
    kept, of_pair = (s != 0).to(s.dtype), _inverse(s.unsqueeze(1) + s.unsqueeze(2))
    between = _inverse(s).square().unsqueeze(2) * (1 - kept).unsqueeze(1)
    p, root = torch.diag_embed(kept), torch.diag_embed(s)
    for _ in range(ORDERS):
        p = p - (between - between.mT) * (product(matrix, p) - product(p, matrix))
        p = 3 * product(p, p) - 2 * product(p, product(p, p))
        projected = product(matrix, p)
        root = root + ((projected + projected.mT) / 2 - product(root, root)) * of_pair
        root = product(p, product(root, p))
    p, of = p[:inverted], root[:inverted]
    inverse = product(p, product(torch.diag_embed(_inverse(s[:inverted])), p))
    for _ in range(ORDERS):
        inverse = 2 * inverse - product(inverse, product(of, inverse))
    return product(vectors, product(torch.cat([inverse, root[inverted:]]), vectors.mT))


def _differentiable_definition(matrices, inverted, eps):
    vectors, s = _decomposed(matrices.detach(), eps)
    return formula(matrices, vectors, s, inverted), vectors, s


def backward_formula(grad, matrices, vectors, s, inverted):
    _, pull_back = torch.func.vjp(lambda matrices: formula(matrices, vectors, s, inverted), matrices)
    return pull_back(grad)[0]


def _save(ctx, inputs, output):
    matrices, ctx.inverted, _ = inputs
    _, vectors, s = output
    ctx.save_for_backward(matrices, vectors, s)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad, *_):
    return None if grad is None else _backward(grad, *ctx.saved_tensors, ctx.inverted), None, None


def _save_backward(ctx, inputs, output):
    *tensors, ctx.inverted = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_backward(ctx, gradient):
    grad, matrices, vectors, s = ctx.saved_tensors
    vectors, s = vectors.detach(), s.detach()

    def of_two(grad, matrices):
        return (backward_formula(grad, matrices, vectors, s, ctx.inverted),)

    return *gradient_of(of_two, (grad, matrices), [gradient]), None, None, None


_forward = differentiable(_forward_kernel, _differentiable_definition, _save, _differentiate)
_backward = differentiable(_backward_kernel, backward_formula, _save_backward, _differentiate_backward)
