// The CPU kernels as torch's operators, through its stable ABI.

#include "operators.h"
#include "patches.h"

namespace fastnorm {
namespace {

// torch's own pool. One task is one unit of work to it: kernels cut their work to a size that is worth a thread.
Threads torch_threads() {
  return {static_cast<int>(torch::stable::get_num_threads()),
          [](int64_t tasks, void (*body)(void*, int64_t, int64_t), void* context) {
            torch::stable::parallel_for(0, tasks, 1, [&](int64_t first, int64_t last) { body(context, first, last); });
          }};
}

struct Cpu {
  // A tensor elsewhere would have chosen other kernels.
  static void check(const char*, const Tensor&, std::initializer_list<NamedTensor>) {}

  static void run(const char*, const Tensor&, const InstanceStats& args) { kernels().instance_stats(args, torch_threads()); }
  static void run(const char*, const Tensor&, const ScaleShift& args) { kernels().scale_shift(args, torch_threads()); }
  static void run(const char*, const Tensor&, const ScaleShiftBackward& args) {
    kernels().scale_shift_backward(args, torch_threads());
  }
  static void run(const char*, const Tensor&, const InstanceNorm& args) { kernels().instance_norm(args, torch_threads()); }
  static void run(const char*, const Tensor&, const InstanceNormBackward& args) {
    kernels().instance_norm_backward(args, torch_threads());
  }
  static void run(const char*, const Tensor&, const LayerInstanceNorm& args) {
    kernels().layer_instance_norm(args, torch_threads());
  }
  static void run(const char*, const Tensor&, const LayerInstanceNormBackward& args) {
    kernels().layer_instance_norm_backward(args, torch_threads());
  }
  static void run(const char*, const Tensor&, const NormConv2d& args) { kernels().norm_conv2d(args, torch_threads()); }
  static void run(const char*, const Tensor&, const DynamicConv2d& args) { kernels().dynamic_conv2d(args, torch_threads()); }
  static void run(const char*, const Tensor&, const DynamicConv2dBackward& args) {
    kernels().dynamic_conv2d_backward(args, torch_threads());
  }
  static void run(const char*, const Tensor&, const UpsamplePad2d& args) { kernels().upsample_pad2d(args, torch_threads()); }
  static void run(const char*, const Tensor&, const UpsamplePad2dBackward& args) {
    kernels().upsample_pad2d_backward(args, torch_threads());
  }
  static void run(const char*, const Tensor&, const AttentionStats& args) { kernels().attention_stats(args, torch_threads()); }
  static void run(const char*, const Tensor&, const AttentionStatsBackward& args) {
    kernels().attention_stats_backward(args, torch_threads());
  }
  static void run(const char*, const Tensor&, const PatchMatch& args) { kernels().patch_match(args, torch_threads()); }
  static void run(const char*, const Tensor&, const SwapPatches& args) { kernels().swap_patches(args, torch_threads()); }
  static void run(const char*, const Tensor&, const GramMatrix& args) { kernels().gram_matrix(args, torch_threads()); }
  static void run(const char*, const Tensor&, const MatchHistogram& args) { kernels().match_histogram(args, torch_threads()); }
  static void run(const char*, const Tensor&, const MatchHistogramBackward& args) {
    kernels().match_histogram_backward(args, torch_threads());
  }
};

}  // namespace
}  // namespace fastnorm

STABLE_TORCH_LIBRARY_IMPL(fastnorm, CPU, m) {
  fastnorm::register_operators<fastnorm::Cpu>(m);
  m.impl("attention_stats", TORCH_BOX(&fastnorm::attention_stats<fastnorm::Cpu>));
  m.impl("attention_stats_backward", TORCH_BOX(&fastnorm::attention_stats_backward<fastnorm::Cpu>));
  m.impl("patch_match", TORCH_BOX(&fastnorm::patch_match<fastnorm::Cpu>));
  m.impl("swap_patches", TORCH_BOX(&fastnorm::swap_patches<fastnorm::Cpu>));
  m.impl("swap_patches_backward", TORCH_BOX(&fastnorm::swap_patches_backward<fastnorm::Cpu>));
  m.impl("gram_matrix", TORCH_BOX(&fastnorm::gram_matrix<fastnorm::Cpu>));
  m.impl("match_histogram", TORCH_BOX(&fastnorm::match_histogram<fastnorm::Cpu>));
  m.impl("match_histogram_backward", TORCH_BOX(&fastnorm::match_histogram_backward<fastnorm::Cpu>));
  m.impl("norm_conv2d", TORCH_BOX(&fastnorm::norm_conv2d<fastnorm::Cpu>));
}
