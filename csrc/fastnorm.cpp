// The `fastnorm._C` module: importing it registers the CPU kernels; its functions say and choose what runs.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/kernels.h"

PYBIND11_MODULE(_C, module) {
  module.doc() = "CPU kernels of fastnorm, and the instruction set that they use.";
  module.def("isa", [] { return fastnorm::kernels().isa; }, "The instruction set in use.");
  module.def(
      "available_isas",
      [] {
        std::vector<std::string> names;
        for (const char* const* name = fastnorm::available_isas(); *name; ++name) names.emplace_back(*name);
        return names;
      },
      "The instruction sets that this machine can run, best first.");
  module.def(
      "set_isa",
      [](const std::string& name) {
        if (!fastnorm::use_isa(name.c_str())) throw std::invalid_argument("set_isa: this machine cannot run " + name);
      },
      pybind11::arg("name"), "Run another instruction set: for tests and measurements.");
  module.attr("compiler") = FASTNORM_COMPILER;
}
