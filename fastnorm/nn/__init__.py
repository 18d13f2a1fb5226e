"""The operators as modules. Those with a counterpart in torch.nn load its state_dict unchanged."""

import sys

from .adaattn import AdaAttN
from .adaconv import AdaConv2d, AdaConvFilter, KernelPredictor
from .adain import AdaIN
from .chain import Chain
from .conditional_instance_norm import ConditionalInstanceNorm2d
from .deformable_dynamic_instance_norm import DeformableDynamicInstanceNorm, DeformableFilter
from .dynamic_conv import DynamicConv1d, DynamicConv2d, DynamicConv3d
from .dynamic_instance_norm import DynamicFilter, DynamicInstanceNorm
from .instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from .layer_instance_norm import LayerInstanceNorm2d
from .recolor import Recolor
from .match_histogram import MatchHistogram
from .reflection_pad import ReflectionPad1d, ReflectionPad2d, ReflectionPad3d
from .residual import Residual
from .sanet import SANet
from .spatially_adaptive_dynamic_instance_norm import SpatiallyAdaptiveDynamicInstanceNorm
from .spatially_adaptive_norm import SpatiallyAdaptiveNorm2d
from .style_swap import StyleSwap
from .upsample_conv2d import UpsampleConv2d
from .upsample_pad import UpsamplePad2d
from .whiten_color import WhitenColor
from .zca_whiten import ZCAWhiten

__all__ = [
    "AdaAttN",
    "AdaConv2d",
    "AdaConvFilter",
    "AdaIN",
    "Chain",
    "ConditionalInstanceNorm2d",
    "DeformableDynamicInstanceNorm",
    "DeformableFilter",
    "DynamicConv1d",
    "DynamicConv2d",
    "DynamicConv3d",
    "DynamicFilter",
    "DynamicInstanceNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "KernelPredictor",
    "LayerInstanceNorm2d",
    "MatchHistogram",
    "Recolor",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "Residual",
    "SANet",
    "SpatiallyAdaptiveDynamicInstanceNorm",
    "SpatiallyAdaptiveNorm2d",
    "StyleSwap",
    "UpsampleConv2d",
    "UpsamplePad2d",
    "WhitenColor",
    "ZCAWhiten",
]

# `import fastnorm.nn.InstanceNorm2d` works as `from fastnorm.nn import InstanceNorm2d` does: import takes what is here.
sys.modules.update({f"{__name__}.{name}": globals()[name] for name in __all__})
