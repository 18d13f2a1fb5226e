"""What every system is: pictures in, pictures out; styles that are kept; files."""

from __future__ import annotations

import inspect
import json
import math

import torch
from torch import Tensor, nn

from .._checks import autocasts
from .._errors import first_line
from .._onnx import exported
from . import SYSTEMS, files
from .pictures import check_alpha, check_mask, check_picture, composed, mirror_to_multiple

# What `encode` makes of a style: tensors with a row for each style, or 1 for all samples.
Style = Tensor | dict[str, Tensor]

# What constructors raise on arguments of any kind, as of a file.
NOT_CONSTRUCTED = TypeError, ValueError, RuntimeError, LookupError, AttributeError, ArithmeticError


class System(nn.Module):
    """A style-transfer network.

    Pictures are (N, 3, H, W), RGB in 0..1, of the weights' type. A subclass has sizes as its constructor's arguments, with
    the paper's for defaults, and two methods: `encode`, if it takes styles, and `paint`. What it keeps of a style is a dict
    of tensors, so that `torch.compile`, exporters and files take it as it is.

        style = model.encode(painting)                  # once; model.save_style("style.safetensors", style)
        picture = model.stylize(photo, style, alpha=0.8)

    `config` is what it was constructed with.
    """

    # What sides have to be a multiple of, and at least: others are mirrored up to that, and the result is cropped.
    multiple, least = 1, 1
    # Constructor arguments of the weights that a package carries, if there is one.
    published_sizes: dict = {}
    # Pixels that come out for each that goes in, along each side.
    enlarges = 1
    # Constructor arguments that change nothing of what is kept of a style.
    styles_regardless_of: tuple[str, ...] = ()

    def __new__(cls, *arguments, **sizes):
        model = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind(model, *arguments, **sizes)
        bound.apply_defaults()
        model.__dict__["config"] = dict(list(bound.arguments.items())[1:])
        return model

    @classmethod
    def system(cls) -> str:
        """Its name in `fastnorm.models.SYSTEMS`."""
        return next(name for name, entry in SYSTEMS.items() if entry.class_name == cls.__name__)

    # What a subclass has.

    def encode(self, style: Tensor) -> Style:
        """What is kept of a style: of paintings (N, 3, h, w), or of numbers."""
        raise TypeError(f"{type(self).__name__}: encode: it takes no style")

    def names_kept(self, style: dict[str, Tensor]) -> set[str]:
        """The names of all tensors that there should be in what was kept of a style, or of a mixture; any, unless told."""
        return set(style)

    def paint(self, content: Tensor, style: Style | None, alpha: float) -> Tensor:
        """The stylised picture, of sides that are multiples of `multiple`; arguments have been checked."""
        raise NotImplementedError

    def paint_regions(self, content: Tensor, styles: list[Style], mask: Tensor, alpha: float) -> Tensor:
        """As `paint`, each style as far as its mask (N or 1, S, H, W) says: of pictures, or, in a subclass, of features."""
        return composed((self.paint(content, style, alpha) for style in styles), mask)

    # What all have.

    def stylize(self, content: Tensor, style: Tensor | Style | None = None, alpha: float = 1.0) -> Tensor:
        """The content in a style, (N, 3, H, W).

        Args:
            content: (N, 3, H, W), any height and width.
            style: a painting for each sample or for all, (N or 1, 3, h, w); or what `encode` made of it; None for a system
                that takes none.
            alpha: how much of the style, from 0 to 1.
        """
        name = type(self).__name__
        check_alpha(name, alpha)
        self.check_content(content)
        height, width = content.shape[2:]
        picture = mirror_to_multiple(content, self.multiple, self.least)
        painted = self.paint(picture, self.encoded(style, content.shape[0]), alpha)
        return painted[..., : self.enlarges * height, : self.enlarges * width]

    def forward(self, content: Tensor, style: Tensor | Style | None = None, alpha: float = 1.0) -> Tensor:
        return self.stylize(content, style, alpha)

    def stylize_regions(self, content: Tensor, styles: list[Tensor | Style], mask: Tensor, alpha: float = 1.0) -> Tensor:
        """Each style in its region.

        Args:
            styles: S of them, as `stylize` takes them.
            mask: (N or 1, S, H, W), the weight of each style at each pixel, which should sum to 1; or (N or 1, H, W), the
                number of the style, int64.
        """
        name = type(self).__name__
        self._check_takes_styles("stylize_regions")
        check_alpha(name, alpha)
        self.check_content(content)
        if not styles:
            raise ValueError(f"{name}: styles: expected one at least, got none")
        mask = check_mask(name, mask, len(styles), content)
        height, width = content.shape[2:]
        picture, mask = (mirror_to_multiple(map, self.multiple, self.least) for map in (content, mask))
        styles = [self.encoded(style, content.shape[0]) for style in styles]
        return self.paint_regions(picture, styles, mask, alpha)[..., :height, :width]

    def encoded(self, style, samples: int | None = None) -> Style | None:
        """A style in any form as `paint` takes it: one for all, or for each of so many samples; None for any number."""
        if self._takes_no_style:
            if style is not None:
                got = type(style).__name__
                raise TypeError(f"{type(self).__name__}: style: expected None, for it takes no style, got {got}")
            return None
        if isinstance(style, Tensor):
            check_picture(type(self).__name__, "style", style)
            style = self.encode(style)
        else:
            self.check_kept(style)
        self._check_rows(style, samples)
        return style

    def check_kept(self, style) -> None:
        """Raise for what `encode` did not make."""
        name = type(self).__name__
        if not isinstance(style, dict):
            kinds = "a painting (N, 3, h, w), or what encode made of one"
            raise TypeError(f"{name}: style: expected {kinds}, got {type(style).__name__}")
        for key in sorted(style.keys() ^ self.names_kept(style)):
            what = f"one with {key}" if key in style else f"one without {key}"
            raise ValueError(f"{name}: style: expected what its encode made, got {what}")

    def check_content(self, picture: Tensor, argument: str = "content") -> None:
        """A picture that the network can take, of the weights' type."""
        name = type(self).__name__
        check_picture(name, argument, picture)
        dtype = next(self.parameters()).dtype
        if picture.dtype != dtype and not autocasts(picture):
            raise TypeError(f"{name}: {argument}: expected the weights' type {dtype}, got {picture.dtype}")

    def mix(self, styles: list[Tensor | Style], weights) -> Style:
        """The blend of styles, S of them in any form, with S weights, which should sum to 1; a negative one leads away."""
        self._check_takes_styles("mix")
        if not styles or len(styles) != len(weights):
            expected = f"one for each of {len(styles)} styles"
            raise ValueError(f"{type(self).__name__}: weights: expected {expected}, got {len(weights)}")
        if not all(map(math.isfinite, weights)):
            raise ValueError(f"{type(self).__name__}: weights: expected finite numbers, got {list(weights)}")
        return self.mixed([self.encoded(style, 1) for style in styles], list(weights))

    def mixed(self, styles: list[Style], weights: list[float]) -> Style:
        """Of encoded styles: right where the picture's features are linear in what is kept of a style."""
        if isinstance(styles[0], Tensor):
            return sum(weight * style for style, weight in zip(styles, weights))
        return {key: sum(weight * style[key] for style, weight in zip(styles, weights)) for key in styles[0]}

    def save(self, path) -> None:
        """The weights as safetensors, with the configuration inside."""
        files.write(path, self.state_dict(), "weights", self.system(), self.config)

    @classmethod
    def load(cls, path, **sizes):
        """The network of a file that `save` wrote, in eval mode, of the file's configuration.

        Args:
            sizes: constructor arguments, where the file has none or others are wanted.

        Raises FileNotFoundError, or ValueError for a file of another system, of sizes that the constructor does not take, of
        other shapes (with the first name that does not fit), cut short, with NaN, or a pickle.
        """
        tensors, about = files.read(path)
        _check_about(cls, about, "weights", path)
        # Of the file's type before it is filled: float64 would be rounded on the way.
        dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)
        try:
            model = cls(**{**about["config"], **sizes}).to(dtype)
        except NOT_CONSTRUCTED as error:
            raise ValueError(f"{path}: sizes: {first_line(error)}") from None
        files.load_tensors(model, tensors, path)
        return model.eval()

    def save_style(self, path, style: Tensor | Style) -> None:
        """A style in any form, as `encode` or `mix` made it, as safetensors."""
        self._check_takes_styles("save_style")
        style = self.encoded(style)
        tensors = {"style": style} if isinstance(style, Tensor) else style
        files.write(path, tensors, "style", self.system(), self.config)

    def load_style(self, path) -> Style:
        """A style that a network of the same configuration saved, on this one's device and of its type."""
        self._check_takes_styles("load_style")
        tensors, about = files.read(path)
        _check_about(type(self), about, "style", path)
        for name, value in _plain(self.config).items():
            if name not in self.styles_regardless_of and about["config"].get(name) != value:
                raise ValueError(f"{path} is a style of {name}={about['config'].get(name)}, expected {name}={value}")
        files.check_finite(tensors, path)
        style = self.placed(tensors["style"] if tensors.keys() == {"style"} else tensors)
        try:
            return self.encoded(style)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def placed(self, style: Style) -> Style:
        """An encoded style on this network's device, and of its weights' type."""
        if isinstance(style, dict):
            return {name: self.placed(tensor) for name, tensor in style.items()}
        own = next(self.parameters())
        return style.to(own.device, own.dtype if style.is_floating_point() else style.dtype)

    def export_onnx(self, path, style: Tensor | Style | None = None) -> None:
        """`stylize` as one ONNX file, which takes any number of pictures, of any size from that of `least` on.

        Its inputs are `content` and `style`, or `style.` and a name for each tensor of it; its output is `stylized`.

        Args:
            style: one in any form, for the file takes others as it is once encoded; None for a system that takes none.
        """
        style = self.encoded(style)
        picture = torch.rand(2, 3, 6 * self.multiple + 1, 4 * self.multiple + 3).to(next(self.parameters()))
        inputs, dynamic = {"content": picture}, {"content": {0: "samples", 2: "height", 3: "width"}}
        if style is not None:
            inputs["style"] = style
            dynamic["style"] = {} if isinstance(style, Tensor) else {name: {} for name in style}
        names = ["content", *(["style"] if isinstance(style, Tensor) else [f"style.{name}" for name in style or ()])]
        program = exported(
            self.eval(), kwargs=inputs, dynamic_shapes=dynamic, input_names=names, output_names=["stylized"]
        )
        if self.enlarges == 1:  # Where torch writes out how they are padded and cropped.
            program.model.graph.outputs[0].shape = program.model.graph.inputs[0].shape
        program.save(path, external_data=False)

    @property
    def _takes_no_style(self) -> bool:
        return type(self).encode is System.encode

    def _check_takes_styles(self, method: str) -> None:
        if self._takes_no_style:
            raise TypeError(f"{type(self).__name__}: {method}: it takes no style")

    def _check_rows(self, style: Style, samples: int | None) -> None:
        for tensor in [style] if isinstance(style, Tensor) else style.values():
            if samples is not None and tensor.shape[0] not in (1, samples):
                expected = f"a style for all, or for each of {samples} samples"
                raise ValueError(f"{type(self).__name__}: style: expected {expected}, got {tensor.shape[0]}")


def _check_about(cls, about: dict, kind: str, path) -> None:
    own = cls.system()
    if about.get("system", own) != own:
        raise ValueError(f"{path} is of the system {about['system']}, expected {own}")
    if about.get("kind", kind) != kind:
        raise ValueError(f"{path} holds a {about['kind']} of {own}, expected {kind}".replace("a weights", "weights"))


def _plain(config: dict) -> dict:
    """As it comes back from a file: tuples are lists there."""
    return json.loads(json.dumps(config))
