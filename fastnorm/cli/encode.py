"""`fastnorm encode`: what a system keeps of a style, in a file, so that it need not be computed again."""

import json
from pathlib import Path

import torch

from . import arguments, jobs, style, system
from .errors import UserError

EPILOG = """A file that exists is replaced, an input never. fastnorm stylize --style FILE takes what was stored, also in
mixtures and regions; the system and its sizes are in the file."""


def add_arguments(parser):
    parser.epilog = EPILOG
    add = parser.add_argument
    add("styles", nargs="+", metavar="STYLE", type=style.parse, help=style.FORMS)
    add("-o", "--output", required=True, metavar="OUT", help=f"for one style a {style.STORED} file, for several a folder, "
        "made if missing, in which each has the name of its painting or number")
    system.add_arguments(parser)
    add("--device", choices=arguments.DEVICES, default="auto", help="auto (default) is cuda where there is one")
    add("--threads", type=arguments.count, metavar="N", help="CPU threads (default: torch's choice)")
    add("--json", action="store_true", help="print one JSON object that says what was done")


def run(args) -> int:
    device = arguments.device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    chosen = system.choose(args.model, args.weights, args.styles)
    planned = _plan(args.styles, args.output, chosen)
    model = chosen.load(device).float()
    with torch.inference_mode():
        encoded = [each.encode(model) for each in args.styles]  # All of them, before the first is written.
    for job, style_of_it in zip(planned, encoded):
        try:
            model.save_style(job.target, style_of_it)
        except OSError as error:
            raise UserError(f"{job.target} cannot be written: {error.strerror}") from None
    if args.json:
        done = [each.describe() | {"output": str(job.target)} for each, job in zip(args.styles, planned)]
        print(json.dumps({"system": chosen.name, "device": device, "styles": done}))
    else:
        for job in planned:
            print(f"{job.target}: a style of {chosen.name}")
    return 0


def _plan(styles, output, chosen):
    target = Path(output)
    if len(styles) == 1 and not output.endswith("/") and not target.is_dir():
        if target.suffix != style.STORED:
            raise UserError(f"-o {output}: a style is stored under the ending {style.STORED}")
        jobs.check_parent(target)
        planned = [jobs.Job(_source(styles[0]), target)]
    else:
        if target.suffix == style.STORED and not target.is_dir():
            raise UserError(f"-o {output}: several styles need a folder, this names a file")
        if mixture := next((each for each in styles if len(each.parts) > 1), None):
            raise UserError(f"-o {output}: a mixture has no name ({mixture}): store it by itself, in a file")
        jobs.check_folder(output)
        planned = [jobs.Job(_source(each), target / f"{_source(each).stem}{style.STORED}") for each in styles]
    read = [path for each in styles for path in each.files]
    jobs.check_targets(planned, keep=read + ([chosen.weights] if chosen.weights else []))
    return planned


def _source(chosen):
    return Path(str(next(iter(chosen.parts))))
