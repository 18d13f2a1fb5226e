"""Attention written out, read as `functional.attention_stats`: a softmax of a product of matrices, and products with it.

    weights = softmax(scale * query @ key),  mean = weights @ value,  var = weights @ value**2 - mean**2

Any of the matrices may come transposed. What depends on var alone, as AdaAttN's sqrt(relu(var)), is made of the deviation;
where var is 0, that has no gradient, and the written root an infinite one. Weights that anything else reads stay.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx import Graph, Node

from .. import functional
from ..nn._recognise import Unfused
from ._in_place import in_one_epoch, is_changed
from ._meanings import function_of
from ._parts import name_of, value


def recognise_attention(graph: Graph, sweep: Callable[[Node | None], None], by_torch: frozenset[str]) -> None:
    """`by_torch` has the names of those that stay as they are written, as torch is faster there."""
    for node in list(graph.nodes):
        if function_of(node) != "softmax":
            continue
        try:
            attention = _Attention(graph, node)
        except Unfused as reason:
            node.meta["reason"] = str(reason)
        except (TypeError, ValueError, IndexError):  # Called in an unusual way.
            continue
        else:
            if name_of(node) in by_torch:
                attention.leave("torch's attention is faster here")
            else:
                sweep(attention.put())


def written_out(
    query: Tensor, key: Tensor, value: Tensor, scale: float = 1.0, return_std: bool = True
) -> tuple[Tensor, Tensor] | Tensor:
    """`functional.attention_stats` of maps (N, C, positions) as models write it, to measure."""
    weights = (torch.bmm(query.transpose(1, 2), key) * scale).softmax(2).transpose(1, 2)
    mean = torch.bmm(value, weights)
    return (mean, (torch.bmm(value**2, weights) - mean**2).relu().sqrt()) if return_std else mean


@dataclass(frozen=True)
class _Matrix:
    """A node (N, rows, columns), or what is its transpose."""

    node: Node
    flipped: bool = False

    @property
    def T(self) -> _Matrix:
        return _Matrix(self.node, not self.flipped)

    @property
    def shape(self) -> tuple[int, int, int]:
        n, rows, columns = value(self.node).shape
        return (n, columns, rows) if self.flipped else (n, rows, columns)


class _Mean(NamedTuple):
    """A product with the weights: of values (N, D, keys); (N, D, queries), or flipped."""

    node: Node
    value: _Matrix
    flipped: bool


class _Attention:
    """All that a softmax is part of. Raises Unfused where that is no attention, or more."""

    def __init__(self, graph: Graph, softmax: Node) -> None:
        self._graph, self._softmax = graph, softmax
        scores, dim = _softmax(*softmax.args, **softmax.kwargs)
        self._scores, self._scale, first, second = self._scored(scores)
        by_keys = dim % 3 == 2
        self._query, self._key = (first.T, second) if by_keys else (second, first.T)  # (N, C, queries), (N, C, keys)
        self._weights = _Matrix(softmax, not by_keys)  # (N, queries, keys)
        self._mean, self._second = self._means(dim)
        self._var = None if self._second is None else self._variance()
        self._variances = [] if self._var is None else [self._var, *filter(self._is_relu, self._var.users)]
        self._check()

    def leave(self, reason: str) -> None:
        for node in (self._scores, self._softmax, *self._products):
            node.meta["reason"] = reason

    # What is read.

    def _scored(self, scores):
        """The product of which these are a multiple, that factor, and the matrices that are multiplied."""
        nodes, scale = [scores], 1.0
        while (factor := _factor(nodes[-1])) is not None:
            nodes.append(factor[0])
            scale *= factor[1]
        factors = self._product(nodes[-1])
        if factors is None:
            raise Unfused("its scores are no product of two matrices")
        if any(len(node.users) > 1 or not self._is_here(node) for node in nodes):
            raise Unfused("something else reads its scores")
        return nodes[-1], scale, *factors

    def _means(self, dim):
        """The product with values, and that with their squares, or None."""
        if dim % 3 == 0:
            raise Unfused("its weights are not those of keys")
        found = [self._mean_of(reader) for reader in self._readers()]
        if len(found) == 1:
            return found[0], None
        if len(found) == 2:
            for mean, second in (found, reversed(found)):
                if self._square_root(second.value) == mean.value and second.flipped == mean.flipped:
                    return mean, second
        raise Unfused("its weights are those of several values")

    def _readers(self):
        """Of the weights, transposed or not."""
        weights, readers = [self._softmax], []
        for node in weights:
            for user in node.users:
                (weights if self._source(user) is not None else readers).append(user)
        return readers

    def _mean_of(self, reader):
        first, second = self._product(reader) or (None, None)
        if first == self._weights and second.node is not self._softmax:
            return _Mean(reader, second.T, True)
        if second == self._weights.T and first.node is not self._softmax:
            return _Mean(reader, first, False)
        raise Unfused("something else reads its weights")

    def _variance(self):
        """The one reader of the second moment: that less the squared mean."""
        readers = list(self._second.node.users)
        if len(readers) != 1 or function_of(readers[0]) != "sub" or readers[0].kwargs or not self._is_here(readers[0]):
            raise Unfused("something else reads its second moment")
        moment, square = readers[0].args
        if moment is not self._second.node or _root_of(square) is not self._mean.node or not self._is_here(square):
            raise Unfused("something else reads its second moment")
        return readers[0]

    @property
    def _products(self):
        return [mean.node for mean in (self._mean, self._second) if mean is not None]

    def _check(self):
        maps = self._query, self._key, self._mean.value
        nodes = [*(matrix.node for matrix in maps), *self._products, *self._variances]
        first, *others = map(value, nodes)
        if not first.is_floating_point() or any(other.dtype != first.dtype for other in others):
            raise Unfused("its matrices are of different types")
        if any(other.shape[0] != first.shape[0] for other in others) or any(matrix.shape[2] == 0 for matrix in maps):
            raise Unfused("its matrices are of different batches, or empty")
        query, key, values = maps
        if query.shape[1] != key.shape[1] or key.shape[2] != values.shape[2]:
            raise Unfused("its matrices are broadcast")
        # A backward needs them as they were.
        if any(map(is_changed, (self._mean.node, *(root for node in self._variances for root in self._roots(node))))):
            raise Unfused("something works in place on what it makes")

    def _roots(self, node):
        return [user for user in node.users if self._is_here(user) and _is_root(user)]

    def _is_relu(self, node):
        return self._is_here(node) and _least(node) == 0

    # Matrices.

    def _product(self, node):
        """The two factors of a product of batches of matrices; None for others."""
        rule = _PRODUCTS.get(function_of(node))
        if rule is None or not self._is_here(node):
            return None
        first, second = (self._matrix(*factor) for factor in rule(*node.args, **node.kwargs))
        return (first, second) if value(first.node).dim() == value(second.node).dim() == 3 else None

    def _matrix(self, node, flipped=False):
        """A node, or its transpose, as what it was made of by transposing and copying."""
        matrix = _Matrix(node, flipped)
        while (source := self._source(matrix.node)) is not None:
            matrix = _Matrix(source[0], matrix.flipped != source[1])
        return matrix

    def _source(self, node):
        """What a node is of the same numbers as, and whether transposed; None where it is of its own."""
        rule = _ARRANGED.get(function_of(node))
        if rule is None or not self._is_here(node) or value(node).dim() != 3:
            return None
        try:
            return rule(*node.args, **node.kwargs)
        except TypeError:
            return None

    def _transposes(self, node):
        source = self._source(node)
        return source is not None and source[1]

    def _square_root(self, matrix):
        root = _root_of(matrix.node) if self._is_here(matrix.node) else None
        if root is None:
            return None
        found = self._matrix(root)
        return found.T if matrix.flipped else found

    def _is_here(self, node):
        return in_one_epoch(node, self._softmax)

    # What takes its place.

    def put(self) -> Node:
        products = self._products
        first = next(node for node in self._graph.nodes if node in products)
        with self._graph.inserting_before(first):
            made = self._made()
            mean = made if self._var is None else self._part(made, 0)
            self._replace(self._mean.node, mean)
            if self._var is not None:
                self._replace_var(self._part(made, 1))
        return made

    def _made(self):
        settings = dict(scale=self._scale) if self._scale != 1 else {}
        if self._var is None:
            settings["return_std"] = False
        maps = tuple(map(self._laid_out, (self._query, self._key, self._mean.value)))
        made = self._graph.call_function(functional.attention_stats, maps, settings)
        made.meta = dict(self._softmax.meta) | {"layer": name_of(self._softmax)}
        made.meta["example_value"] = self._example if self._var is None else None
        return made

    @property
    def _example(self):
        """(N, D, queries)."""
        found = value(self._mean.node)
        return found.transpose(1, 2).contiguous() if self._mean.flipped else found

    def _laid_out(self, matrix):
        return self._flipped(matrix.node) if matrix.flipped else matrix.node

    def _flipped(self, node):
        made = self._graph.call_method("transpose", (node, 1, 2))
        made.meta = _like(node, value(node).transpose(1, 2))
        return made

    def _part(self, made, index):
        found = self._graph.call_function(operator.getitem, (made, index))
        found.meta = _like(made, self._example)
        return found

    def _replace(self, node, found):
        """By a map, in the shape that the node has; contiguous, as that was, unless it is only transposed again."""
        if self._mean.flipped:
            found = self._flipped(found)
            if not all(map(self._transposes, node.users)):
                found = self._graph.call_method("contiguous", (found,))
                found.meta = _like(node, value(node))
        node.replace_all_uses_with(found)

    def _replace_var(self, std):
        square = self._graph.call_method("square", (std,))
        square.meta = _like(std, value(std))
        for node in reversed(self._variances):
            for root in self._roots(node):
                self._replace(root, std)
            self._replace(node, square)


def _like(node, example):
    """What is known of a call made for what another one stands for."""
    return {name: known for name, known in node.meta.items() if name != "origins"} | {"example_value": example}


# What calls mean; a rule has the signature of the function that it reads.


def _softmax(input, dim, _stacklevel=3, dtype=None):
    return input, dim


def _factor(node):
    """What a node is a multiple of, and the number; None for no multiple."""
    if function_of(node) not in ("mul", "truediv") or len(node.args) != 2 or node.kwargs:
        return None
    input, number = node.args
    if function_of(node) == "mul" and isinstance(number, Node):
        input, number = number, input
    if not isinstance(input, Node) or type(number) not in (int, float) or not 0 < abs(number) < math.inf:
        return None
    return input, number if function_of(node) == "mul" else 1 / number


def _bmm(input, mat2):
    return (input, False), (mat2, False)


def _matmul(input, other):
    return (input, False), (other, False)


def _einsum(equation, *operands):
    """A product of matrices with the batch first, each transposed or not."""
    if len(operands) == 1:
        (operands,) = operands
    inputs, _, (n, row, column) = equation.replace(" ", "").partition("->")
    first, second = inputs.split(",")
    factors = dict(zip((first, second), operands, strict=True))
    (between,) = set(inputs) - {",", n, row, column}
    found = []
    for rows, columns in ((row, between), (between, column)):
        letters = [letters for letters in factors if letters in (n + rows + columns, n + columns + rows)]
        if len(letters) != 1:
            raise ValueError("no product of matrices")
        found.append((factors[letters[0]], letters[0] == n + columns + rows))
    return found


_PRODUCTS = {"bmm": _bmm, "matmul": _matmul, "__matmul__": _matmul, "einsum": _einsum}


def _permuted(input, *dims, **named):
    dims = named.pop("dims", dims[0] if len(dims) == 1 else dims)
    return (input, True) if not named and tuple(dim % 3 for dim in dims) == (0, 2, 1) else None


def _transposed(input, dim0, dim1):
    return (input, True) if {dim0 % 3, dim1 % 3} == {1, 2} else None


def _attribute(input, name):
    return (input, True) if name == "mT" else None


def _contiguous(input, memory_format=torch.contiguous_format):
    return input, False


_ARRANGED = {"permute": _permuted, "getattr": _attribute, "contiguous": _contiguous}
_ARRANGED |= dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transposed)


def _root_of(square):
    """What a node is the square of; None for others."""
    name = function_of(square)
    if name == "square" or (name == "pow" and square.args[1:] in ((2,), (2.0,))):
        return square.args[0]
    return square.args[0] if name == "mul" and square.args[0] is square.args[1] else None


def _is_root(node):
    name = function_of(node)
    return name == "sqrt" or (name == "pow" and node.args[1:] == (0.5,))


def _least(node):
    """What a node bounds its input by, from below; None for others."""
    name = function_of(node)
    if name == "relu":
        return 0
    if name not in ("clamp", "clip", "clamp_min"):
        return None
    bounds = [*node.args[1:], *node.kwargs.values()]
    return bounds[0] if len(bounds) == 1 and "max" not in node.kwargs else None
