// What is done to finished sums, by ACTIVATION: 0 nothing, 1 ReLU, 2 GELU, 3 SiLU.

#pragma once

// x Φ(x), not by `erff`, whose 25 instructions a number take longer than the products where a tile has few columns.
// bfloat16: Φ(x) = ½ + ½ tanh(x (a + b x² + c x⁴)) is off by 3e-5, and the tanh of the hardware by 2⁻¹¹ at most: 2⁻¹² of x, an eighth of what rounding does to it.
// float16: erf(x / √2) as an odd polynomial of degree 17 up to x = 3 √2, where it is 1; off by 7e-5 at most.
__device__ __forceinline__ float gelu(float value)
{
#if BFLOAT16
    const float square = value * value < 50.0f ? value * value : 50.0f, half = 0.5f * value;
    return half * fast_tanh(value * ((-0.0003515168f * square + 0.03700565f) * square + 0.7975079f)) + half;
#else
    const float above = larger(value, -4.2426405f), x = above > 4.2426405f ? 4.2426405f : above, square = x * x, half = 0.5f * above;
    float erf = 1.26016225e-10f;
    erf = erf * square - 1.1891613e-08f;
    erf = erf * square + 4.94692415e-07f;
    erf = erf * square - 1.20905179e-05f;
    erf = erf * square + 0.000196324079f;
    erf = erf * square - 0.00228108373f;
    erf = erf * square + 0.0198776722f;
    erf = erf * square - 0.133165941f;
    erf = erf * square + 0.798144877f;
    return half * (erf * x) + half;
#endif
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
