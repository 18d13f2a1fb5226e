"""whiten_color and its halves against the published form in float64, and where covariances have equal eigenvalues or none."""

import re

import pytest
import torch

from fastnorm.functional import color_stats, covariance, recolor, whiten_color, zca_whiten
from fastnorm.ops import _spectral

every_method = pytest.mark.parametrize("method", _spectral.METHODS)


@pytest.fixture
def randn():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


def mixed(randn, *shape):
    """A map of correlated channels that are not centred."""
    n, c, *plane = shape
    return (randn(n, c, c) @ randn(n, c, *plane).flatten(2)).reshape(shape) + 3 * randn(n, c, *[1] * len(plane))


def published(content, style, alpha=1.0, least=1e-5, dtype=torch.float64):
    """WCT's code, a sample at a time."""

    def centred(map):
        planes = map.to(dtype).flatten(1)
        mean = planes.mean(1, keepdim=True)
        return planes - mean, mean

    def power(planes, exponent):
        _, values, vectors = torch.linalg.svd(planes @ planes.T / max(planes.shape[1] - 1, 1))
        kept = values > least
        return (vectors[kept].T * values[kept] ** exponent) @ vectors[kept]

    results = []
    for of_content, of_style in zip(content, style.expand(content.shape[0], *style.shape[1:])):
        (x, _), (y, mean) = centred(of_content), centred(of_style)
        result = power(y, 0.5) @ (power(x, -0.5) @ x) + mean
        results.append((alpha * result + (1 - alpha) * of_content.to(dtype).flatten(1)).reshape(of_content.shape))
    return torch.stack(results)


@pytest.mark.parametrize("alpha", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("shape", [(2, 5, 40), (2, 5, 6, 7), (1, 4, 3, 4, 5)], ids=str)
def test_published(randn, shape, alpha):
    content, style = mixed(randn, *shape), mixed(randn, *shape[:-1], 9)
    found = whiten_color(content, style, alpha)
    torch.testing.assert_close(found, published(content, style, alpha), rtol=1e-9, atol=1e-9)


@every_method
def test_one_style_for_all(randn, method):
    content, style = mixed(randn, 3, 4, 5, 6), mixed(randn, 1, 4, 7, 8)
    expected = torch.cat([whiten_color(sample[None], style, 0.7, method=method) for sample in content])
    torch.testing.assert_close(whiten_color(content, style, 0.7, method=method), expected)


@every_method
def test_halves(randn, method):
    content, style = mixed(randn, 2, 4, 5, 6), mixed(randn, 2, 4, 7, 8)
    whitened = zca_whiten(content, method=method)
    both = recolor(whitened, style, method=method)
    torch.testing.assert_close(both, whiten_color(content, style, method=method), rtol=1e-9, atol=1e-9)
    identity = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    torch.testing.assert_close(covariance(whitened), identity, rtol=0, atol=1e-9 if method == "eigh" else 1e-2)
    torch.testing.assert_close(whitened.mean((2, 3)), torch.zeros(2, 4, dtype=torch.float64))


# A style that is kept: mean and root.


def test_kept_are_mean_and_symmetric_root(randn):
    style = mixed(randn, 2, 4, 7, 8)
    mean, root = color_stats(style)
    torch.testing.assert_close(mean, style.flatten(2).mean(2))
    torch.testing.assert_close(root @ root, torch.stack([sample.flatten(1).cov() for sample in style]))
    torch.testing.assert_close(root, root.mT)
    assert (torch.linalg.eigvalsh(root) > 0).all()
    by_products = color_stats(style, 0.5, "newton_schulz")[1]
    cov = torch.stack([sample.flatten(1).cov() for sample in style])
    torch.testing.assert_close(by_products @ by_products, cov + 0.5 * torch.eye(4).double(), rtol=1e-9, atol=1e-9)


@every_method
@pytest.mark.parametrize("samples", [1, 3])
def test_a_style_that_is_kept(randn, method, samples):
    content, style = mixed(randn, 3, 4, 5, 6), mixed(randn, samples, 4, 7, 8)
    kept = color_stats(style, method=method)
    for whitening in ("eigh", "newton_schulz"):
        expected = recolor(zca_whiten(content, method=whitening), style, method=method)
        torch.testing.assert_close(whiten_color(content, kept, method=whitening), expected, rtol=1e-9, atol=1e-9)
    expected = recolor(content, style, method=method)
    for form in (kept, list(kept)) if samples > 1 else (kept, (kept[0][0], kept[1][0]), (kept[0].expand(3, 4), kept[1])):
        torch.testing.assert_close(recolor(content, form), expected)


@every_method
def test_a_blend_of_what_is_kept_is_that_of_results(randn, method):
    content = mixed(randn, 2, 4, 5, 6)
    one, other = (color_stats(mixed(randn, 2, 4, 7, 8)) for _ in range(2))
    between = tuple(0.3 * a + 0.7 * b for a, b in zip(one, other))
    expected = 0.3 * whiten_color(content, one, 0.6, method=method) + 0.7 * whiten_color(content, other, 0.6, method=method)
    torch.testing.assert_close(whiten_color(content, between, 0.6, method=method), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_kept_is_in_float32_and_may_be_in_any_type(randn, dtype):
    content, style = mixed(randn, 2, 4, 5, 6), mixed(randn, 2, 4, 7, 8)
    kept = color_stats(style.to(dtype))
    assert kept[0].dtype == kept[1].dtype == torch.float32
    low = tuple(tensor.to(dtype) for tensor in kept)
    assert torch.equal(whiten_color(content.float(), low), whiten_color(content.float(), tuple(t.float() for t in low)))
    assert whiten_color(content.to(dtype), kept).dtype == dtype


def test_products_find_the_roots(randn):
    """Of matrix + eps * identity."""
    content, style, eps = mixed(randn, 1, 6, 50), mixed(randn, 1, 6, 60), 0.5

    def power(map, exponent):
        values, vectors = torch.linalg.eigh(covariance(map))
        return vectors @ torch.diag_embed((values + eps) ** exponent) @ vectors.mT

    centred = content - content.mean(2, keepdim=True)
    expected = power(style, 0.5) @ power(content, -0.5) @ centred + style.mean(2, keepdim=True)
    torch.testing.assert_close(whiten_color(content, style, 1.0, eps, "newton_schulz"), expected, rtol=1e-9, atol=1e-9)


def test_float32_is_as_exact_as_the_published_form(randn):
    """Of variances down to 1e-5 of the largest."""
    mixture = torch.linalg.qr(randn(64, 64))[0] * torch.logspace(1, -1.5, 64)
    content, style = ((mixture @ randn(1, 64, size * size)).unflatten(2, (size, size)) + 3 for size in (30, 40))
    expected = published(content, style)
    own = published(content.float(), style.float(), dtype=torch.float32)
    found = whiten_color(content.float(), style.float())
    assert (found - expected).abs().max() <= 2 * (own - expected).abs().max()


@every_method
def test_a_large_mean_costs_no_digits(randn, method):
    content, style = randn(1, 8, 20, 20), mixed(randn, 1, 8, 20, 20)
    content = (content + 1e4).float()
    expected = whiten_color(content.double(), style, 1.0, 1e-3, method)
    torch.testing.assert_close(whiten_color(content, style.float(), 1.0, 1e-3, method).double(), expected, rtol=0, atol=1e-2)


# Where covariances have no rank.


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_fewer_positions_than_channels(randn, dtype):
    """Directions that a content has not are not whitened: those of its 9 positions are, to a variance of 1."""
    content, style = mixed(randn, 2, 40, 9).to(dtype), mixed(randn, 2, 40, 100).to(dtype)
    values = torch.linalg.eigvalsh(covariance(zca_whiten(content)))
    expected = torch.cat([torch.zeros(2, 32), torch.ones(2, 8)], 1).to(dtype)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-4)
    assert whiten_color(content, style).isfinite().all() and whiten_color(style, content).isfinite().all()


@every_method
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_constant_channels(randn, dtype, method):
    content, style = randn(2, 4, 30), randn(2, 4, 30)
    content[:, 1], style[:, 2] = 7, -3
    content, style = content.to(dtype).requires_grad_(), style.to(dtype).requires_grad_()
    found = whiten_color(content, style, method=method)
    # As constant as the style's.
    torch.testing.assert_close(found[:, 2], torch.full_like(found[:, 2], -3), rtol=0, atol=0.05)
    assert found.isfinite().all()
    gradients = torch.autograd.grad(found.square().sum(), (content, style))
    assert all(gradient.isfinite().all() for gradient in gradients)


@every_method
@pytest.mark.parametrize("plane", [(1,), (3, 3)], ids=str)
def test_a_content_of_one_color_takes_the_mean_of_the_style(randn, plane, method):
    content, style = torch.full((2, 3, *plane), 5.0).requires_grad_(), randn(2, 3, 7).float()
    found = whiten_color(content, style, method=method)
    torch.testing.assert_close(found, style.mean(2).reshape(2, 3, *[1] * len(plane)).expand_as(found))
    (gradient,) = torch.autograd.grad(found.sum(), content)
    assert gradient.isfinite().all()


@every_method
def test_a_style_of_one_position_is_its_color(randn, method):
    content, style = randn(2, 3, 4, 5), randn(2, 3, 1)
    found = whiten_color(content, style, method=method)
    torch.testing.assert_close(found, style[..., None].expand_as(found), rtol=0, atol=0 if method == "eigh" else 0.02)


@every_method
def test_what_is_no_number_stays_in_its_sample(randn, method):
    content, style = randn(2, 3, 4, 5), randn(2, 3, 20)
    expected = whiten_color(content, style, method=method)
    content[1, 2, 3, 4] = float("nan")
    found = whiten_color(content, style, method=method)
    assert torch.equal(found[0], expected[0]) and found[1].isnan().all()


# Gradients.


def test_gradients_of_the_published_form(randn):
    maps = [mixed(randn, 2, 4, 30).requires_grad_(), mixed(randn, 2, 4, 20).requires_grad_()]
    given = randn(2, 4, 30)
    expected = torch.autograd.grad(published(*maps, 0.7), maps, given)
    torch.testing.assert_close(torch.autograd.grad(whiten_color(*maps, 0.7), maps, given), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("samples", [1, 2])
def test_gradients_of_what_is_kept(randn, samples):
    content, mean, root = randn(2, 3, 7), randn(samples, 3), randn(samples, 3, 3)
    given, inputs = randn(2, 3, 7), [content.requires_grad_(), mean.requires_grad_(), root.requires_grad_()]
    found = torch.autograd.grad(whiten_color(content, (mean, root), 0.6), inputs, given)
    x = content - content.mean(2, keepdim=True)
    values, vectors = torch.linalg.eigh(x @ x.mT / 6)
    whitened = vectors @ torch.diag_embed(values**-0.5) @ vectors.mT @ x
    expected = torch.autograd.grad(0.6 * (root @ whitened + mean.unsqueeze(2)) + 0.4 * content, inputs, given)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    assert torch.autograd.gradgradcheck(lambda *inputs: whiten_color(inputs[0], inputs[1:]), inputs)


def of_spectrum(*deviations):
    """A map with those deviations along the axes, whose covariance has them as eigenvalues' roots: every pattern is
    orthogonal to the others and to a constant.
    """
    size = len(deviations) + 1
    patterns = torch.linalg.qr(torch.cat([torch.ones(size, 1), torch.eye(size)[:, 1:]], 1).double())[0][:, 1:].T
    return (patterns * torch.tensor(deviations).double()[:, None] * len(deviations) ** 0.5)[None]


SPECTRA = {"equal": (2.0, 2.0, 2.0), "two alike": (1.0, 1.0, 3.0), "one missing": (0.0, 2.0, 2.0), "one": (0.0, 0.0, 1.5)}
every_spectrum = pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)


def features(spectrum):
    """Rows that stay of the same rank however their numbers change, and the map that is made of them."""
    kept = [deviation for deviation in spectrum if deviation]
    mixture = torch.linalg.qr(torch.arange(9.0).reshape(3, 3).cos().double())[0][:, : len(kept)]
    return mixture.clone().requires_grad_(), lambda mixture: mixture @ of_spectrum(*kept)


@every_spectrum
def test_gradients_where_eigenvalues_meet(spectrum):
    mixture, map_of = features(spectrum)
    style = torch.arange(15.0).reshape(1, 3, 5).sin().double()
    for function in (zca_whiten, lambda map: recolor(style, map), lambda map: whiten_color(map, style, 0.5)):
        assert torch.autograd.gradcheck(lambda mixture: function(map_of(mixture)), mixture)
        assert torch.autograd.gradgradcheck(lambda mixture: function(map_of(mixture)), mixture)


@every_spectrum
@pytest.mark.parametrize("inverted", [0, 1])
def test_further_derivatives_of_roots(spectrum, inverted):
    mixture, map_of = features(spectrum)

    def cubes(mixture):
        return (_spectral.roots(covariance(map_of(mixture)), inverted, 1e-5, "eigh", None) ** 3).sum()

    def second(mixture):
        (first,) = torch.autograd.grad(cubes(mixture), mixture, create_graph=True)
        return torch.autograd.grad(first.square().sum(), mixture, create_graph=True)[0]

    assert torch.autograd.gradcheck(second, mixture)
    reverse, forward = (jacobian(torch.func.jacrev(cubes))(mixture.detach()) for jacobian in (torch.func.jacrev, torch.func.jacfwd))
    torch.testing.assert_close(forward, reverse)


def test_gradients_of_float32_where_eigenvalues_meet(randn):
    """White noise: 64 eigenvalues close together, of which torch's eigh would divide by the differences."""
    content, style, given = randn(1, 64, 4000), randn(1, 64, 3000), randn(1, 64, 4000)
    expected, found = (
        torch.autograd.grad(whiten_color(*maps), maps, given.to(dtype))
        for dtype in (torch.float64, torch.float32)
        for maps in [[map.to(dtype).requires_grad_() for map in (content, style)]]
    )
    for actual, exact in zip(found, expected):
        torch.testing.assert_close(actual.double(), exact, rtol=0, atol=1e-5 * exact.abs().max().item())


def test_compiles_to_one_graph(randn):
    content, style = mixed(randn, 2, 5, 6, 7).requires_grad_(), mixed(randn, 1, 5, 8, 9).requires_grad_()
    gradient = randn(*content.shape)
    compiled = torch.compile(whiten_color, fullgraph=True, backend="aot_eager")
    of_both = [torch.autograd.grad(call(content, style, 0.6), (content, style), gradient) for call in (compiled, whiten_color)]
    torch.testing.assert_close(compiled(content, style, 0.6), whiten_color(content, style, 0.6))
    torch.testing.assert_close(*of_both)


MAP, EYE = torch.zeros(2, 3, 4), torch.eye(3)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: whiten_color(torch.zeros(2, 3), MAP), "whiten_color: content: expected shape (N, C, *)"),
        (lambda: whiten_color(MAP, torch.zeros(2, 4, 4)), "whiten_color: style: expected 3 channels and 2 samples or 1, got (2, 4, 4)"),
        (lambda: whiten_color(MAP, torch.zeros(3, 3, 4)), "whiten_color: style: expected 3 channels and 2 samples or 1, got (3, 3, 4)"),
        (lambda: whiten_color(MAP, torch.zeros(2, 3, 0)), "whiten_color: style: expected planes of at least one element"),
        (lambda: whiten_color(MAP, MAP, alpha=MAP), "whiten_color: alpha: expected a number, got Tensor"),
        (lambda: whiten_color(MAP, MAP, method="svd"), "whiten_color: method: expected 'eigh' or 'newton_schulz', got 'svd'"),
        (lambda: zca_whiten(MAP, eps=-1.0), "zca_whiten: eps: expected a finite number of at least 0, got -1.0"),
        (lambda: zca_whiten(MAP, 0.0, "newton_schulz"), "zca_whiten: eps: newton_schulz needs one of more than 0, got 0.0"),
        (lambda: recolor(MAP, None), "recolor: style: expected a feature map or a pair (mean, root), got NoneType"),
        (lambda: whiten_color(MAP, (MAP,)), "whiten_color: style: expected a feature map or a pair (mean, root), got tuple"),
        (lambda: whiten_color(MAP, (None, EYE)), "whiten_color: style mean: expected a tensor, got None"),
        (lambda: whiten_color(MAP, (EYE[0, :2], EYE)), "whiten_color: style mean: expected shape (3,), (1, 3) or (2, 3), got (2,)"),
        (lambda: recolor(MAP, (EYE[0], 1.0)), "recolor: style root: expected a tensor, got float"),
        (lambda: recolor(MAP, (EYE[0], EYE[0])), "recolor: style root: expected shape (3, 3), (1, 3, 3) or (2, 3, 3), got (3,)"),
        (lambda: recolor(MAP, (EYE[0], EYE.to("meta"))), "recolor: style root: expected a tensor on cpu, got one on meta"),
        (lambda: color_stats(EYE), "color_stats: input: expected shape (N, C, *)"),
        (lambda: color_stats(MAP, 0.0, "newton_schulz"), "color_stats: eps: newton_schulz needs one of more than 0, got 0.0"),
        (lambda: recolor(torch.zeros(1, 1, 1, 1, 1, 1), MAP), "recolor: input: expected one to three spatial dimensions"),
    ],
)
def test_errors(call, words):
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(words)}"):
        call()
