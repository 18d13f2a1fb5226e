// Which convolver runs a pass.

#pragma once

#include "convolver.h"
#include "depthwise_last.h"
#include "nine.h"

namespace fastnorm::FASTNORM_ISA {

// Planes of a convolution's input.
inline Planes input_planes(const Convolution& conv) {
  const int64_t size = conv.input[0] * conv.input[1] * conv.input[2];
  return {conv.element, conv.samples, conv.groups * conv.in_channels, size, conv.channels_last};
}

// body(convolver), of the one that is made for this shape.
template <Direction direction, class T, class Body>
void convolve(const Pass<T>& pass, const Body& body) {
  if (pass.plain() && Nine<T>::fits(pass.conv)) body(Nine<T>(pass));
  else if (pass.plain() && DepthwiseLast<T>::fits(pass.conv)) body(DepthwiseLast<T>(pass));
  else body(Convolver<T, direction>(pass));
}

}  // namespace fastnorm::FASTNORM_ISA
