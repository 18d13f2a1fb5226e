// The emulator's only stream.

#include "bindings/current_stream.h"

fastnorm::CurrentStream::CurrentStream(int32_t) {}
