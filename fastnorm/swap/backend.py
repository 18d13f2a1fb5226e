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

    Raises:
        ValueError: an option that neither knows, or another `then`.
    """
    options = dict(options or {})
    then = options.pop("then", "inductor")
    unknown = sorted(options.keys() - torch._inductor.list_options())
    if unknown:
        raise ValueError(
            f"fastnorm backend: options: expected 'then' or options of inductor, got {unknown[0]!r}; "
            "torch._inductor.list_options() lists those"
        )
    if then not in THEN:
        raise ValueError(f"fastnorm backend: then: expected one of {', '.join(THEN)}, got {then!r}")
    rewritten = rewrite(module)
    if then == "eager":
        return rewritten.forward
    from torch._functorch import config
    from torch._inductor.compile_fx import compile_fx

    # Its cache takes the pickled graph for a key, and logs that it cannot: a fused layer knows the calls that it was made of.
    # Inductor's own cache, whose keys are graphs of operators, goes on.
    with config.patch(enable_autograd_cache=False):
        return compile_fx(rewritten, example_inputs, config_patches=_inductor_options(mode, options))


def _inductor_options(mode, options):
    chosen = torch._inductor.list_mode_options(mode) if mode and mode != "default" else {}
    return {**chosen, **options}
