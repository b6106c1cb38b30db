// What is done to finished sums, by ACTIVATION: 0 nothing, 1 ReLU, 2 GELU, 3 SiLU.

#pragma once

__device__ __forceinline__ float activate(float value)
{
#if ACTIVATION == 1
    return value < 0.0f ? 0.0f : value;   // NaN stays NaN
#elif ACTIVATION == 2
    return 0.5f * value * (1.0f + erff(value * 0.70710678118654752f));
#elif ACTIVATION == 3
    return value / (1.0f + __expf(-value));
#else
    return value;
#endif
}
