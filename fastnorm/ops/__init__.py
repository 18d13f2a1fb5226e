"""The operators, one room each, and the registry that tests, benchmarks, `fastnorm info` and the docs walk."""

from . import (
    adaconv2d,
    adain,
    attention_stats,
    conditional_instance_norm,
    covariance,
    dynamic_conv2d,
    dynamic_instance_norm,
    gram_matrix,
    instance_norm,
    instance_stats,
    layer_instance_norm,
    modulated_conv2d,
    norm_conv2d,
    norm_conv_transpose2d,
    recolor,
    reflection_pad,
    scale_shift,
    spatially_adaptive_norm,
    upsample_conv2d,
    upsample_pad2d,
    whiten_color,
    zca_whiten,
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
        dynamic_conv2d,
        dynamic_instance_norm,
        adaconv2d,
        modulated_conv2d,
        upsample_pad2d,
        reflection_pad,
        upsample_conv2d,
        norm_conv2d,
        norm_conv_transpose2d,
        attention_stats,
        gram_matrix,
        covariance,
        whiten_color,
        zca_whiten,
        recolor,
    )
}
