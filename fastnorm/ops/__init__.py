"""The operators, one room each, and the registry that tests, benchmarks, `fastnorm info` and the docs walk."""

from . import (
    adain,
    conditional_instance_norm,
    instance_norm,
    instance_stats,
    layer_instance_norm,
    scale_shift,
    spatially_adaptive_norm,
)

OPERATORS = {
    room.OPERATOR.name: room.OPERATOR
    for room in (
        instance_stats,
        scale_shift,
        instance_norm,
        adain,
        conditional_instance_norm,
        spatially_adaptive_norm,
        layer_instance_norm,
    )
}
