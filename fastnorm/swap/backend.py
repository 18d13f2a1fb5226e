"""The backend of torch.compile: it rewrites each graph, and hands the rest on to inductor, or runs it as it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx import GraphModule

from ._rewrite import rewrite

THEN = ("inductor", "eager")


def backend(module: GraphModule, example_inputs: list, *, mode: str | None = None, options: dict | None = None) -> Callable:
    """`torch.compile(model, backend="fastnorm", options={"then": "eager"})`; then: "inductor" (the default) or "eager".

    Further options, and the mode, go to inductor.
    """
    options = dict(options or {})
    then = options.pop("then", "inductor")
    if then not in THEN:
        raise ValueError(f"fastnorm backend: then: expected one of {', '.join(THEN)}, got {then!r}")
    rewritten = rewrite(module)
    if then == "eager":
        return rewritten.forward
    from torch._inductor.compile_fx import compile_fx

    return compile_fx(rewritten, example_inputs, config_patches=_inductor_options(mode, options))


def _inductor_options(mode, options):
    chosen = torch._inductor.list_mode_options(mode) if mode and mode != "default" else {}
    return {**chosen, **options}


def captured_forward(forward: Callable, on_graph: Callable[[GraphModule, GraphModule], None] | None = None) -> Callable:
    """forward(module, ...) as torch.compile captures and this file rewrites it, apart from every other capture of it."""

    def run(module, *args, **kwargs):
        return forward(module, *args, **kwargs)

    def rewriting(module, example_inputs):
        rewritten = rewrite(module)
        if on_graph is not None:
            on_graph(module, rewritten)
        return rewritten.forward

    # What torch.compile has compiled, and how often, it counts by the code.
    run.__code__ = run.__code__.replace()
    return torch.compile(run, backend=rewriting)
