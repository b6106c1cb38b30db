// The product of blocks (blocks.cuh) as a convolution of channels-last maps. A token is an output pixel, a step reads 64 channels of what one tap
// meets: a box of a tensor map in im2col mode, which runs on over rows and images as output pixels do, and is zero outside of the input.

#include "blocks.cuh"

struct Pixels {
    struct Unit {
        int channel, tap;                        // the tap's distance from the window's first pixel, down << 16 | right

        __device__ __forceinline__ Unit of_lane(int lane) const
        {
            return {__shfl_sync(0xffffffffu, channel, lane), __shfl_sync(0xffffffffu, tap, lane)};
        }
    };

    struct Begin { int left, top, image; };      // where the window of an output pixel begins

    const TensorMap& x;
    const int *channels, *taps;
    int height, width, down, right, above, before;   // of the result; strides; padding

    __device__ __forceinline__ Begin begin(int token) const
    {
        const int line = token / width;
        return {token % width * right - before, line % height * down - above, line / height};
    }

    __device__ __forceinline__ Unit unit(int step) const { return {channels[step], taps[step]}; }

    __device__ __forceinline__ void copy(u32 target, Unit unit, Begin begin, u32 barrier) const
    {
        copy_pixels(target, x, unit.channel, begin.left, begin.top, begin.image, unit.tap & 0xffff, unit.tap >> 16, barrier);
    }
};

extern "C" __global__ void __launch_bounds__(320, 1)
block_convolution(const __grid_constant__ TensorMap x, const __grid_constant__ Weight values, const __grid_constant__ TensorMap residuals,
                  const __grid_constant__ TensorMap results, const int* channels, const int* taps, const int* rows, const int* tiles,
                  const u16* bias, const u16* residual, u16* y, long long residual_stride, long long y_stride, int row_count, int tokens,
                  int tile_count, int token_blocks, int width, int out_height, int out_width, int down, int right, int above, int before,
                  const int* halves)
{
    multiply_blocks(Pixels{x, channels, taps, out_height, out_width, down, right, above, before},
                    Blocks{values, residuals, results, rows, tiles, bias, residual, y, residual_stride, y_stride, row_count, tokens, tile_count,
                            token_blocks, width, nullptr, nullptr, halves});
}
