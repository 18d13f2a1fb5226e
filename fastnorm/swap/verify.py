"""Is a swapped model as exact as the one it came from? Both are held against the original in float64."""

import contextlib
import copy
import dataclasses
import math
import random
import reprlib
import zlib
from collections.abc import Mapping
from typing import Any, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .._table import aligned

# An original that happens to be exact leaves its twin nothing but this, in ulps of the tensor's largest value. A
# rounding is half an ulp, and a norm has four: less the mean, by the deviation, by the weight, plus the bias.
FLOOR = 2


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of the comparison; errors are absolute, the largest over the tensor."""

    kind: str  # "output", "buffer", "input" (that was written to), "input gradient" or "parameter gradient".
    name: str
    error: float  # Of the swapped model; infinite where there is nothing to subtract.
    original_error: float
    limit: float
    ok: bool
    note: str = ""  # What is wrong, where it is no error within a tensor.


@dataclasses.dataclass(frozen=True)
class Verification:
    """What `verify` found: true if every entry is within its limit; printed, a table."""

    entries: tuple[Entry, ...]

    @property
    def ok(self) -> bool:
        return all(entry.ok for entry in self.entries)

    def __bool__(self) -> bool:
        return self.ok

    def as_dict(self) -> dict:
        return {"ok": self.ok, "entries": [dataclasses.asdict(entry) for entry in self.entries]}

    def __str__(self) -> str:
        wrong = sum(not entry.ok for entry in self.entries)
        found = f"{wrong} of {len(self.entries)} beyond" if wrong else f"all {len(self.entries)} within"
        header = "", "name", "error", "original's", "limit", ""
        lines = aligned([header, *map(_cells, self.entries)], (2, 3, 4))
        return "\n".join([f"{found} the limit of twice the original's own error against float64", *lines])


def _cells(entry: Entry) -> tuple[str, ...]:
    numbers = (f"{number:.2e}" for number in (entry.error, entry.original_error, entry.limit))
    return entry.kind, entry.name, *numbers, "ok" if entry.ok else entry.note or "too large"


def verify(
    before: nn.Module, after: nn.Module, inputs: Any = (), kwargs: Mapping | None = None, *, gradients: bool = True
) -> Verification:
    """Compare a swapped model with its original, and both with the original in float64.

    Each output, and each gradient, of `after` may be off by twice the error of `before` in its own types, plus 2 ulps
    of the largest value of the tensor (for a parameter, of its module's gradients). Errors are absolute, the largest
    over a tensor. NaN and infinities must be where `before` has them; integers, types, shapes, devices and all that is
    not a tensor must be equal. Buffers that the forward changes, such as running statistics, count as outputs, and so do
    inputs that it writes to.

    The gradients are those of the sum of all outputs, each times one random tensor, by the inputs of a floating-point
    or complex type and by the parameters that require one. The outputs of `after` are compared with and without
    gradients recorded, and the worse counts.

    The error of few numbers is a matter of luck, the original's too: inputs of a usual size tell more than tiny ones.

    Both modules run as they are: device, types, training or not. They, their gradients and the random state are left as
    they were. All runs draw the same random numbers, as long as they draw in the same order.

    Args:
        before: the original; a swapped module is unswapped first, on a copy, so that it may be `after` itself.
        after: the swapped module.
        inputs: a tuple of positional arguments, or a single one; tensors may be nested in tuples, lists and dicts.
        kwargs: keyword arguments.
        gradients: False leaves them out, and compares without gradients recorded alone.

    Returns:
        A `Verification`, true if everything is within its limit.

    Raises:
        TypeError: `before` or `after` is no module.
        ValueError: the inputs do not fit the original, or all is float64, and no run is more exact.
        RuntimeError: a module cannot be copied, the original does not run in float64, or `after` raises.
    """
    for name, module in (("before", before), ("after", after)):
        if not isinstance(module, nn.Module):
            raise TypeError(f"verify: {name}: expected a torch.nn.Module, got {type(module).__name__}")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"verify: kwargs: expected a dict of keyword arguments, got {type(kwargs).__name__}")
    call = inputs, kwargs or {}

    with torch.inference_mode(False), torch.set_grad_enabled(gradients):
        exact, own, devices = _run_original(before, call)
        runs = [_run_swapped(after, call, devices, recorded) for recorded in sorted({False, gradients})]
        outputs = {}
        for run in runs:
            for entry in _compare_outputs(exact, own, run):
                seen = outputs.setdefault((entry.kind, entry.name), entry)
                outputs[entry.kind, entry.name] = max(seen, entry, key=lambda entry: (not entry.ok, entry.error))
        return Verification((*outputs.values(), *_compare_gradients(exact, own, runs[-1])))


def _run_original(before: nn.Module, call: tuple) -> tuple["_Run", "_Run", set[torch.device]]:
    """In float64, in its own types, and the devices that it is on."""
    with _failing(RuntimeError, "before: not to be copied"):
        original = _original(before)
    tensors = [*original.parameters(), *original.buffers(), *_tensors(call).values()]
    types, devices = {tensor.dtype for tensor in tensors if _inexact(tensor)}, {tensor.device for tensor in tensors}
    if types and types <= {torch.float64, torch.complex128}:
        raise ValueError("verify: before: expected a model below float64, which is the reference: try before.float()")

    draws = _Draws()
    with _failing(ValueError, "inputs: the original raised"), _same_random_numbers(devices), draws:
        own = _Run(copy.deepcopy(original), call)
    hint = "before: not to be run in float64, maybe for a tensor that is neither a parameter nor a buffer"
    with _failing(RuntimeError, hint), _same_random_numbers(devices), _InFloat64(draws.types):
        exact = _Run(_doubled(original), call, _widened)
    _check_reference(exact, own)
    return exact, own, devices


def _run_swapped(after: nn.Module, call: tuple, devices: set[torch.device], recorded: bool) -> "_Run":
    with _failing(RuntimeError, "after: not to be copied"):
        swapped = copy.deepcopy(after)
    with _failing(RuntimeError, "after: it raised, and the original did not"), _same_random_numbers(devices):
        with torch.set_grad_enabled(recorded):
            return _Run(swapped, call)


def _original(module: nn.Module) -> nn.Module:
    from .swap import unswap

    return unswap(copy.deepcopy(module))


class _Run:
    """A call of a module that is ours to change, with tensors that are: outputs, buffers and inputs it changed, gradients."""

    def __init__(self, module: nn.Module, call: tuple, cast=Tensor.clone):
        own = {id(tensor): cast(tensor.detach()) for tensor in _tensors(call).values()}
        leaves = _named("parameter gradient", (each for each in module.named_parameters() if each[1].requires_grad))
        for name, tensor in _tensors(call).items():
            if torch.is_grad_enabled() and _inexact(tensor):
                leaf = own[id(tensor)].requires_grad_()
                leaves["input gradient", name] = leaf
                own[id(tensor)] = leaf.clone()  # What is no leaf may be written to.

        given = {("input", name): own[id(tensor)].detach() for name, tensor in _tensors(call).items()}
        before = _named("buffer", module.named_buffers()) | given
        untouched = {key: tensor.clone() for key, tensor in before.items()}
        inputs, kwargs = copy.deepcopy(call, own)
        outputs = module(*(inputs if isinstance(inputs, tuple) else (inputs,)), **kwargs)
        outputs = {name: _as_tensor(leaf) for name, leaf in _leaves(outputs, "output")}

        self.outputs = {("output", name): _detached(leaf) for name, leaf in outputs.items()}
        self.buffers = _named("buffer", module.named_buffers()) | given
        self.changed = {key for key, buffer in self.buffers.items() if not _same(buffer, untouched.get(key))}
        self.gradients = _gradients(list(outputs.items()), leaves) if torch.is_grad_enabled() else {}


def _named(kind: str, tensors: Iterable[tuple[str, Tensor]]) -> dict[tuple[str, str], Tensor]:
    """By kind and name, which a compiled module has in common with the one inside."""
    return {(kind, name.replace("_orig_mod.", "")): tensor for name, tensor in tensors}


def _same(buffer: Tensor, before: Tensor | None) -> bool:
    return before is not None and buffer.dtype == before.dtype and torch.equal(buffer, before)


def _gradients(outputs: list[tuple[str, Any]], leaves: dict[tuple[str, str], Tensor]) -> dict[tuple[str, str], Tensor]:
    """Of the sum of outputs times random tensors, by the leaves that it depends on."""
    outputs = [(name, leaf) for name, leaf in outputs if isinstance(leaf, Tensor) and leaf.requires_grad]
    if not outputs or not leaves:
        return {}
    gradients = torch.autograd.grad(
        [output for _, output in outputs],
        list(leaves.values()),
        [_cotangent(name, output) for name, output in outputs],
        allow_unused=True,
    )
    return {name: gradient.to_dense() for name, gradient in zip(leaves, gradients) if gradient is not None}


def _cotangent(name: str, output: Tensor) -> Tensor:
    """Multiples of 1/64 up to 1, which every type holds exactly: no run's own rounding is in them."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return (torch.randint(-64, 65, output.shape, generator=generator) / 64).to(output)


def _check_reference(exact: _Run, own: _Run) -> None:
    """A run that casts to a narrower type by a way that `_InFloat64` does not see is no reference."""
    for (_, name), value in own.outputs.items():
        reference = exact.outputs.get(("output", name))
        if not isinstance(value, Tensor):
            continue
        if not isinstance(reference, Tensor) or reference.shape != value.shape:
            raise RuntimeError(f"verify: before: expected the same {name} in float64, got {_words(reference)}")
        if _inexact(value) and reference.dtype != _wide(value.dtype):
            raise RuntimeError(f"verify: before: expected {name} in float64 where the model is, got {reference.dtype}")


def _compare_outputs(exact: _Run, own: _Run, run: _Run) -> Iterator[Entry]:
    for key in {**own.outputs, **run.outputs}:
        expected, got = own.outputs.get(key, _NOTHING), run.outputs.get(key, _NOTHING)
        if isinstance(expected, Tensor) or isinstance(got, Tensor) or not _equal(expected, got):
            yield _compare(*key, exact.outputs.get(key), expected, got)
    for key in {**own.buffers, **run.buffers}:
        if key in own.changed | run.changed:
            expected, got = own.buffers.get(key, _NOTHING), run.buffers.get(key, _NOTHING)
            yield _compare(*key, exact.buffers.get(key), expected, got)


def _compare_gradients(exact: _Run, own: _Run, run: _Run) -> Iterator[Entry]:
    """No gradient is one of zeros. So is that of a bias which a norm takes away, but for rounding: as of the weight."""
    largest = {}
    for key, gradient in exact.gradients.items():
        largest[_owner(*key)] = max(largest.get(_owner(*key), 0.0), _largest(gradient[gradient.isfinite()]))
    for key, like in {**own.gradients, **run.gradients}.items():
        three = (each.gradients.get(key, torch.zeros_like(like)) for each in (exact, own, run))
        yield _compare(*key, *three, largest.get(_owner(*key), 0.0))


def _owner(kind: str, name: str) -> tuple[str, str]:
    """Gradients of one scale: of a module's parameters, and each input's."""
    return (kind, name.rpartition(".")[0]) if kind == "parameter gradient" else (kind, name)


def _compare(kind: str, name: str, exact: Any, own: Any, after: Any, largest: float = 0.0) -> Entry:
    def differs(note: str) -> Entry:
        return Entry(kind, name, math.inf, 0.0, 0.0, False, note)

    if not (isinstance(own, Tensor) and isinstance(after, Tensor) and _words(own) == _words(after)):
        return differs(f"expected {_words(own)}, got {_words(after)}")
    if not _inexact(own):
        error = _largest(own.double() - after.double())
        return Entry(kind, name, error, 0.0, 0.0, error == 0)

    ulp = torch.finfo(own.dtype).eps
    exact, own, after = (tensor.to(_wide(tensor.dtype)) for tensor in (exact, own, after))
    finite = own.isfinite()
    places = [torch.where(each.isfinite(), 0, each.nan_to_num(2.0)) for each in (own, after)]  # NaN equals itself as 2.
    if not torch.equal(*places):
        return differs("NaN or infinities elsewhere")
    exact = torch.where(exact.isfinite(), exact, own)[finite]
    error, original_error = _largest(after[finite] - exact), _largest(own[finite] - exact)
    limit = 2 * original_error + FLOOR * ulp * max(largest, _largest(exact))
    return Entry(kind, name, error, original_error, limit, error <= limit)


def _largest(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0


class _NOTHING:
    """In place of what only the other module returns."""


def _equal(expected: Any, got: Any) -> bool:
    return type(expected) is type(got) and bool(expected == got)


def _words(value: Any) -> str:
    if value is _NOTHING:
        return "nothing"
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)} on {value.device}"
    return f"a {value.__name__}" if isinstance(value, type) else reprlib.repr(value)


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """What a structure holds, by path; and each tuple, list, dict and dataclass as its type."""
    if isinstance(value, Mapping):
        parts = [(f"{name}[{key!r}]", value[key]) for key in value]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = [(f"{name}.{field}", getattr(value, field)) for field in value._fields]
    elif isinstance(value, (tuple, list)):
        parts = [(f"{name}[{index}]", part) for index, part in enumerate(value)]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [(f"{name}.{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value)]
    else:
        yield name, value
        return
    yield name, type(value)
    for path, part in parts:
        yield from _leaves(part, path)


def _tensors(call: tuple) -> dict[str, Tensor]:
    """The tensors among the arguments, each once."""
    inputs, kwargs = call
    named = [*_leaves(inputs, "inputs"), *_leaves(kwargs, "kwargs")]
    once = {id(leaf): (name, leaf) for name, leaf in reversed(named) if isinstance(leaf, Tensor)}
    return dict(reversed(once.values()))


def _as_tensor(leaf: Any) -> Any:
    """A number that was a tensor until `item()` or `numpy()` is as inexact as one."""
    return torch.as_tensor(leaf) if isinstance(leaf, float) or hasattr(leaf, "__array__") else leaf


def _detached(leaf: Any) -> Any:
    return leaf.detach().to_dense() if isinstance(leaf, Tensor) else leaf


def _inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64 if dtype.is_floating_point else dtype


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(_wide(tensor.dtype), copy=True)


def _doubled(module: nn.Module) -> nn.Module:
    """The module in float64, and the tensors that it holds as plain attributes."""
    for part in module.double().modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, Tensor):
                setattr(part, name, _widened(value.detach()))
    return module


_DRAWS = {
    torch.rand, torch.randn, torch.rand_like, torch.randn_like, torch.normal, torch.bernoulli,
    Tensor.bernoulli, Tensor.bernoulli_, Tensor.cauchy_, Tensor.exponential_, Tensor.geometric_, Tensor.log_normal_,
    Tensor.normal_, Tensor.uniform_,
}  # fmt: skip


class _Draws(TorchFunctionMode):
    """Notes the type in which each random tensor is drawn."""

    def __init__(self):
        super().__init__()
        self.types = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        if function in _DRAWS:
            self.types.append(result.dtype)
        return result


class _InFloat64(TorchFunctionMode):
    """Every cast to a narrower type, and every tensor made in one, is float64 instead.

    Random tensors are drawn in the type that they had in the original, since the same state of the generator gives
    other numbers in float64, and widened then.
    """

    def __init__(self, drawn: list[torch.dtype]):
        super().__init__()
        self.drawn = iter(drawn)

    def __enter__(self):
        self.default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *raised):
        torch.set_default_dtype(self.default)
        return super().__exit__(*raised)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in _DRAWS:
            return self.draw(function, next(self.drawn, torch.float64), args, kwargs)
        if function in (Tensor.float, Tensor.half, Tensor.bfloat16):
            function = Tensor.double
        elif function is Tensor.cfloat:
            function = Tensor.cdouble
        args, kwargs = _with_types(_wide, args, kwargs)
        return function(*args, **kwargs)

    def draw(self, function, dtype: torch.dtype, args: tuple, kwargs: dict) -> Tensor:
        if function in (torch.rand, torch.randn):
            kwargs = {**kwargs, "dtype": dtype}
        args, kwargs = _with_types(lambda _: dtype, args, kwargs)
        narrow = [arg.to(dtype) if isinstance(arg, Tensor) and _inexact(arg) else arg for arg in args]
        drawn = function(*narrow, **kwargs)
        in_place = function.__name__.endswith("_")
        return args[0].copy_(drawn) if in_place else _widened(drawn)


def _with_types(change, args: tuple, kwargs: dict) -> tuple[list, dict]:
    """The arguments with another type wherever one of floating-point numbers is asked for."""

    def changed(value):
        inexact = isinstance(value, torch.dtype) and (value.is_floating_point or value.is_complex)
        return change(value) if inexact else value

    return [changed(arg) for arg in args], {name: changed(arg) for name, arg in kwargs.items()}


@contextlib.contextmanager
def _same_random_numbers(devices: set[torch.device]):
    """As many draws as it takes, then back to where the generators were."""
    state = random.getstate()
    accelerators = {device for device in devices if device.type in ("cuda", "xpu")}
    kind = next((device.type for device in accelerators), "cuda")
    try:
        with torch.random.fork_rng([device.index for device in accelerators], device_type=kind):
            yield
    finally:
        random.setstate(state)


@contextlib.contextmanager
def _failing(kind: type[Exception], words: str):
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise kind(f"verify: {words}: {type(error).__name__}: {reason}") from error
