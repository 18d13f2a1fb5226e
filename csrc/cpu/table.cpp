// The kernels of one instruction set.

#include "kernels.h"

namespace fastnorm::FASTNORM_ISA {

void instance_stats(const InstanceStats&, const Threads&);
void scale_shift(const ScaleShift&, const Threads&);
void scale_shift_backward(const ScaleShiftBackward&, const Threads&);
void instance_norm(const InstanceNorm&, const Threads&);
void instance_norm_backward(const InstanceNormBackward&, const Threads&);
void layer_instance_norm(const LayerInstanceNorm&, const Threads&);
void layer_instance_norm_backward(const LayerInstanceNormBackward&, const Threads&);
void norm_conv2d(const NormConv2d&, const Threads&);
void dynamic_conv2d(const DynamicConv2d&, const Threads&);
void dynamic_conv2d_backward(const DynamicConv2dBackward&, const Threads&);
void upsample_pad2d(const UpsamplePad2d&, const Threads&);
void upsample_pad2d_backward(const UpsamplePad2dBackward&, const Threads&);
void attention_stats(const AttentionStats&, const Threads&);
void attention_stats_backward(const AttentionStatsBackward&, const Threads&);
void patch_match(const PatchMatch&, const Threads&);
void swap_patches(const SwapPatches&, const Threads&);
void gram_matrix(const GramMatrix&, const Threads&);
void match_histogram(const MatchHistogram&, const Threads&);
void match_histogram_backward(const MatchHistogramBackward&, const Threads&);

#define NAME_OF(isa) #isa
#define NAME(isa) NAME_OF(isa)

extern const Kernels table;
const Kernels table = {
    NAME(FASTNORM_ISA),
    instance_stats,
    scale_shift,
    scale_shift_backward,
    instance_norm,
    instance_norm_backward,
    layer_instance_norm,
    layer_instance_norm_backward,
    norm_conv2d,
    dynamic_conv2d,
    dynamic_conv2d_backward,
    upsample_pad2d,
    upsample_pad2d_backward,
    attention_stats,
    attention_stats_backward,
    patch_match,
    swap_patches,
    gram_matrix,
    match_histogram,
    match_histogram_backward,
};

}  // namespace fastnorm::FASTNORM_ISA
