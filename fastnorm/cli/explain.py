"""`fastnorm explain MODULE:CALLABLE --input 1x3x512x512`: what swap makes of a model, layer by layer, and what that brings."""

import json
import math

import torch

from .. import tune_allocator
from ..swap.explain import TEXT_COLUMNS, Explanation, explain
from . import arguments, names, table
from .errors import UserError

DTYPES = ("float32", "bfloat16", "float16", "float64")

EPILOG = """CALLABLE returns a torch.nn.Module when it is called without arguments: a class, or a function; or it is a module.
MODULE is imported from the path and the folder where the command is run. Weights are those that CALLABLE gives it; times
do not depend on them. Times of layers are taken one by one; the first line has those of the whole model."""


TOO_LARGE = "--input: there is not enough memory for inputs of this size; take smaller ones"


def add_arguments(parser):
    parser.epilog = EPILOG
    add = parser.add_argument
    add("model", metavar="MODULE:CALLABLE", help="such as mypackage.models:Generator")
    add("--input", dest="inputs", action="append", metavar="1x3x512x512", type=arguments.shape, help="shape of an input, random "
        "numbers; may be repeated for further ones. Without it nothing is measured")
    add("--dtype", choices=DTYPES, default="float32", help="of the model and its inputs (default: float32)")
    add("--device", choices=arguments.DEVICES, default="auto", help="auto (default) is cuda where there is one")
    add("--threads", type=arguments.count, metavar="N", help="CPU threads (default: torch's choice)")
    add("--channels-last", action="store_true", help="of the inputs, where they are maps")
    add("--train", action="store_true", help="in training mode, forward and backward (default: in eval mode, forward)")
    add("--json", action="store_true", help="print one JSON object")


def run(args) -> int:
    if args.threads:
        torch.set_num_threads(args.threads)
    tune_allocator()
    place = dict(device=arguments.device(args.device), dtype=getattr(torch, args.dtype))
    model = names.model(args.model).to(**place).train(args.train)
    try:
        inputs = None if args.inputs is None else tuple(_input(shape, args.channels_last, place) for shape in args.inputs)
        found = explain(model, inputs)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from None
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise UserError(TOO_LARGE) from None
        raise
    if args.json:
        print(json.dumps(found.as_dict()))
    else:
        _show(found)
    return 0


def _show(found: Explanation) -> None:
    header, rows = found.cells()
    table.show(found.title, header, rows, text_columns=TEXT_COLUMNS)
    print("\n".join(found.below))


def _input(shape, channels_last, place):
    if math.prod(shape) >= 2**60:  # Such bytes torch cannot count.
        raise UserError(TOO_LARGE)
    input = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(**place)
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(len(shape)) if channels_last else None
    return input if layout is None else input.contiguous(memory_format=layout)
