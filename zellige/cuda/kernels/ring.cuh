// Where a warp stands among the STAGES of shared memory that copies fill and products empty, in turn.

#pragma once
#include "ptx.cuh"

struct Ring {                                    // a stage after the other, and how often all have been used
    int stage = 0;
    u32 parity = 0;

    __device__ __forceinline__ void step()
    {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};
