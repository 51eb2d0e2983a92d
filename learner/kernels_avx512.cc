// kernels.h with AVX-512 (x86-64-v4).
#include "learner/kernels_avx512_impl.h"

namespace sluice {

extern const Kernels kAvx512Kernels;
constinit const Kernels kAvx512Kernels = kernels_of<Avx512>("avx512", multiply_bf16<Avx512>);

}  // namespace sluice
