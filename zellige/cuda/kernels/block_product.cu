// The product of blocks (blocks.cuh) with X, tokens x columns: a step reads 64 columns that lie side by side, of E4M3 128.

#include "blocks.cuh"

struct Columns {
    struct Unit {
        int column;

        __device__ __forceinline__ Unit of_lane(int lane) const { return {__shfl_sync(0xffffffffu, column, lane)}; }
    };

    const TensorMap& x;
    const int* units;

    __device__ __forceinline__ int begin(int token) const { return token; }
    __device__ __forceinline__ Unit unit(int step) const { return {units[step]}; }

    __device__ __forceinline__ void copy(u32 target, Unit unit, int token, u32 barrier) const
    {
        copy_box(target, x, unit.column, token, barrier);
    }
};

extern "C" __global__ void __launch_bounds__(320, 1)
block_product(const __grid_constant__ TensorMap x, const __grid_constant__ Weight values, const __grid_constant__ TensorMap residuals,
              const __grid_constant__ TensorMap results, const int* units, const int* rows, const int* tiles, const u16* bias,
              const u16* residual, u16* y, long long residual_stride, long long y_stride, int row_count, int tokens, int tile_count,
              int token_blocks, int width, const float* x_scale, const float* row_scales, const int* halves)
{
    multiply_blocks(Columns{x, units}, Blocks{values, residuals, results, rows, tiles, bias, residual, y, residual_stride, y_stride, row_count,
                                               tokens, tile_count, token_blocks, width, x_scale, row_scales, halves});
}
