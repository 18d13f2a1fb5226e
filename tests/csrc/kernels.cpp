// The CPU kernels without torch: every operator, type and layout, on sizes around each boundary, held against loops in
// double. Built with sanitizers, where a read past an end is an error.

#include "checks.h"

using namespace fastnorm;

int main() {
  for (const char* const* isa = available_isas(); *isa; ++isa) {
    use_isa(*isa);
    for (const Element element : {Element::f32, Element::f64, Element::bf16, Element::f16}) {
      check_norms(element);
      check_convolutions(element);
      check_upsamplings(element);
      check_attention(element);
      check_gram(element);
      check_patches(element);
      check_matching(element);
    }
    std::printf("%s: checked\n", *isa);
  }
  if (failures) std::printf("%d values are wrong\n", failures);
  return failures != 0;
}
