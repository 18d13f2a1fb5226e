// Which instruction set runs.

#include "kernels.h"

#include <cstring>

namespace fastnorm {

namespace portable { extern const Kernels table; }
#if defined(__x86_64__)
namespace avx2 { extern const Kernels table; }
namespace avx512 { extern const Kernels table; }
#endif

namespace {

struct Available {
  const Kernels* tables[3];
  const char* names[4];
  int count = 0;

  Available() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    // Every machine with AVX2 has F16C, whose name compilers have learnt late.
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
      add(avx512::table);
    if (has_avx2) add(avx2::table);
#endif
    add(portable::table);
    names[count] = nullptr;
  }

  void add(const Kernels& table) {
    names[count] = table.isa;
    tables[count++] = &table;
  }
};

const Available& available() {
  static const Available found;
  return found;
}

const Kernels*& in_use() {
  static const Kernels* table = available().tables[0];
  return table;
}

}  // namespace

const Kernels& kernels() { return *in_use(); }

const char* const* available_isas() { return available().names; }

bool use_isa(const char* name) {
  for (int i = 0; i < available().count; ++i)
    if (!std::strcmp(available().names[i], name)) {
      in_use() = available().tables[i];
      return true;
    }
  return false;
}

}  // namespace fastnorm
