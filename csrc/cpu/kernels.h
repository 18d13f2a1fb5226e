// What the CPU kernels offer: plain pointers and sizes, no torch.
//
// Every kernel is compiled once per instruction set, in a namespace of that name, and reached through a table.

#pragma once

#include <cstdint>

namespace fastnorm {

enum class Element { f32, f64, bf16, f16 };

// Maps of (samples, channels, size): plane after plane, or channels_last, pixel after pixel.
struct Planes {
  Element element;
  int64_t samples, channels, size;
  bool channels_last;
};

// A number per plane as a caller has it: of any type and strides, or absent.
struct Parameter {
  const void* data = nullptr;
  Element element = Element::f32;
  int64_t sample_stride = 0, channel_stride = 0;
};

struct VarianceRule {
  double eps;
  int64_t correction;
  bool eps_on_std;
};

struct Activation {
  int code;  // a row of fastnorm/ops/_activation.py
  double slope;
};

// The maps that an element meets after its plane's affine map. gamma comes with a residual, or not at all: a missing
// residual is then read as zeros.
struct Maps {
  const void* gamma = nullptr;
  const void* residual = nullptr;
};

// How work is spread: `run` calls body(context, first, last) on parts of 0..tasks, in any order.
struct Threads {
  int count;
  void (*run)(int64_t tasks, void (*body)(void* context, int64_t first, int64_t last), void* context);
};

// Pointers without a type are to the map's element; statistics and sums, one per plane, are wide: float, or double for
// double. A null output is not wanted.

struct InstanceStats {
  Planes planes;
  VarianceRule rule;
  const void* input;
  void *mean, *rstd;
};

struct ScaleShift {
  Planes planes;
  Activation activation;
  const void* input;
  Parameter mean, scale, shift;
  Maps maps;
  void* output;
};

struct ScaleShiftBackward {
  Planes planes;
  Activation activation;
  const void *grad, *input;
  Parameter mean, scale, shift, input_scale, input_shift;
  Maps maps;
  void *grad_input, *grad_scale, *grad_shift, *grad_gamma, *grad_residual;
};

struct InstanceNorm {
  Planes planes;
  VarianceRule rule;
  double alpha;
  Activation activation;
  const void* input;
  Parameter weight, bias;
  Maps maps;
  void *output, *mean, *rstd;
};

struct InstanceNormBackward {
  Planes planes;
  VarianceRule rule;
  double alpha;
  Activation activation;
  const void *grad, *input, *mean, *rstd;
  Parameter weight, bias;
  Maps maps;
  void *grad_input, *grad_weight, *grad_bias, *grad_gamma, *grad_residual;
};

// var is the variance of a plane, without eps or correction. There is no gamma.
struct LayerInstanceNorm {
  Planes planes;
  VarianceRule rule;
  Activation activation;
  const void* input;
  Parameter rho, weight, bias;
  Maps maps;
  void *output, *mean, *var;
};

struct LayerInstanceNormBackward {
  Planes planes;
  VarianceRule rule;
  Activation activation;
  const void *grad, *input, *mean, *var;
  Parameter rho, weight, bias;
  Maps maps;
  void *grad_input, *grad_rho, *grad_weight, *grad_bias, *grad_residual;
};

enum class Border { zeros, reflect, replicate, circular };

// A convolution of maps with up to three spatial dimensions; lines and images have sizes of 1 before theirs. Channels are
// those of a group. Padding is what lies before a border; how much lies behind follows from the sizes. The input's elements
// lie input_dilation apart, zeros between them and behind the last; what a border is read at is counted in elements.
struct Convolution {
  Element element;
  bool channels_last;
  int64_t samples, groups, in_channels, out_channels;
  int64_t input[3], output[3], kernel[3], stride[3], padding[3], dilation[3];
  Border border;
  int64_t input_dilation[3] = {1, 1, 1};
};

// Filters as (samples, groups * out_channels, in_channels, kernel), each sample's dense and of the maps' element.
struct Filters {
  const void* data;
  int64_t sample_stride;  // 0 for one that all samples share
  bool wide = false;      // of the type in which that element is computed
};

// What becomes of an element before it is convolved: act((x - mean) * scale + shift + residual). Null, or where that is
// written: entered; and the statistics of the input itself, by which it is then normalised: own_mean and own_rstd. With
// these a layer has nothing else than its filters, of the map's element, and a bias.
struct Entry {
  Parameter mean, scale, shift;
  Activation activation;
  const void* residual;
  void* entered;
  VarianceRule rule;
  void *own_mean, *own_rstd;
};

// What becomes of an output, and where its statistics are written: null, or mean and rstd of each plane.
struct Exit {
  Activation activation;
  VarianceRule rule;
  void *mean, *rstd;
};

struct NormConv2d {
  Convolution shape;
  Entry entry;
  const void* input;
  Filters weight;
  Parameter bias;
  Exit exit;
  void* output;
};

// Of the input as it is, or normalised by the statistics of its planes, which are then outputs too: mean is null or not.
struct DynamicConv2d {
  Convolution shape;
  VarianceRule rule;
  const void* input;
  Filters weight;
  Parameter bias;
  void *output, *mean, *rstd;
};

// grad_weight is dense for every sample; grad_bias, one number per plane, wide.
struct DynamicConv2dBackward {
  Convolution shape;
  VarianceRule rule;
  const void *grad, *input, *mean, *rstd;
  Filters weight;
  void *grad_input, *grad_weight, *grad_bias;
};

// Nearest upsampling, then padding: `output` is input * scale, and what lies before and behind it. Sizes as of a
// convolution, and its borders.
struct Upsampling {
  Element element;
  bool channels_last;
  int64_t samples, channels;
  int64_t input[3], output[3], scale[3], padding[3];
  Border border;
};

struct UpsamplePad2d {
  Upsampling shape;
  const void* input;
  void* output;
};

struct UpsamplePad2dBackward {
  Upsampling shape;
  const void* grad;
  void* grad_input;
};

// Keys have the channels of queries, values the positions of keys, and mean and std, of which the second may be null, the
// positions of queries, in the layout of these. They are wide.
struct AttentionStats {
  Planes queries, keys, values;
  double scale, min_var;
  const void *query, *key, *value;
  void *mean, *std;
};

// The gradients of what AttentionStats computes. results are mean, std and their gradients: all wide, as mean lies. Without
// grad_std, neither mean nor std is read.
struct AttentionStatsBackward {
  Planes queries, keys, values, results;
  double scale, min_var;
  const void *grad_mean, *grad_std, *query, *key, *value, *mean, *std;
  void *grad_query, *grad_key, *grad_value;
};

// Maps of so wide lines; a style of one sample is all samples'. index and score have a number for each patch of the content.
struct PatchMatch {
  Planes contents, styles;
  int64_t width, style_width, patch_size, stride;
  double usage_penalty;
  const void *content, *style;
  int64_t* index;
  void* score;
};

// From styles to maps of the same samples and channels, in which patches of the style lie where `index` says; or, forward or
// not, from their gradient to the styles'.
struct SwapPatches {
  Planes styles, swapped;
  int64_t style_width, swapped_width, patch_size, stride;
  bool forward;
  const int64_t* index;
  const void* input;
  void* output;
};

// The sums of products of each pair of channels, (samples, channels, channels), of the input less the mean of each plane, or as
// it is where that is null. Both are wide.
struct GramMatrix {
  Planes planes;
  const void* input;
  void *gram, *mean;
};

// Which positions count: a byte for each, or null for all of them.
struct PositionMask {
  const bool* data = nullptr;
  int64_t sample_stride = 0;  // 0 for one that all samples share
};

// Targets have the channels of inputs, and their samples or one. 0 bins stand for sorting. Planes have less than 2^31
// elements.
struct MatchHistogram {
  Planes inputs, targets;
  int64_t bins;
  const void *input, *target;
  PositionMask input_mask, target_mask;
  void* output;
};

// By bins the gradient of the target is 0.
struct MatchHistogramBackward {
  Planes inputs, targets;
  int64_t bins;
  const void *grad, *input, *target;
  PositionMask input_mask, target_mask;
  void *grad_input, *grad_target;
};

struct Kernels {
  const char* isa;
  void (*instance_stats)(const InstanceStats&, const Threads&);
  void (*scale_shift)(const ScaleShift&, const Threads&);
  void (*scale_shift_backward)(const ScaleShiftBackward&, const Threads&);
  void (*instance_norm)(const InstanceNorm&, const Threads&);
  void (*instance_norm_backward)(const InstanceNormBackward&, const Threads&);
  void (*layer_instance_norm)(const LayerInstanceNorm&, const Threads&);
  void (*layer_instance_norm_backward)(const LayerInstanceNormBackward&, const Threads&);
  void (*norm_conv2d)(const NormConv2d&, const Threads&);
  void (*dynamic_conv2d)(const DynamicConv2d&, const Threads&);
  void (*dynamic_conv2d_backward)(const DynamicConv2dBackward&, const Threads&);
  void (*upsample_pad2d)(const UpsamplePad2d&, const Threads&);
  void (*upsample_pad2d_backward)(const UpsamplePad2dBackward&, const Threads&);
  void (*attention_stats)(const AttentionStats&, const Threads&);
  void (*attention_stats_backward)(const AttentionStatsBackward&, const Threads&);
  void (*patch_match)(const PatchMatch&, const Threads&);
  void (*swap_patches)(const SwapPatches&, const Threads&);
  void (*gram_matrix)(const GramMatrix&, const Threads&);
  void (*match_histogram)(const MatchHistogram&, const Threads&);
  void (*match_histogram_backward)(const MatchHistogramBackward&, const Threads&);
};

// The table in use: the best that this machine can run, unless `use_isa` chose another.
const Kernels& kernels();

// Null-terminated names, best first, of the tables that this machine can run.
const char* const* available_isas();

// Returns false when this machine cannot run it.
bool use_isa(const char* name);

}  // namespace fastnorm
