"""The operators as modules. Those with a counterpart in torch.nn load its state_dict unchanged."""

import sys

from .adain import AdaIN
from .conditional_instance_norm import ConditionalInstanceNorm2d
from .instance_norm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from .layer_instance_norm import LayerInstanceNorm2d
from .spatially_adaptive_norm import SpatiallyAdaptiveNorm2d

__all__ = [
    "AdaIN",
    "ConditionalInstanceNorm2d",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerInstanceNorm2d",
    "SpatiallyAdaptiveNorm2d",
]

# `import fastnorm.nn.InstanceNorm2d` works as `from fastnorm.nn import InstanceNorm2d` does: import takes what is here.
sys.modules.update({f"{__name__}.{name}": globals()[name] for name in __all__})
