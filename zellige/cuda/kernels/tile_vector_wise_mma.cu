// Tile-vector-wise product through mma.sp (compute capability 8.0 and later): eight warps, 2 x 4 of them over 128 rows x TOKENS tokens.
// Copies run STAGES - 1 steps ahead of the tensor cores.

#include "tile_vector_wise.cuh"

constexpr int STAGE_BYTES = IMAGE_BYTES + X_BYTES;
constexpr int OUT_ROW_BYTES = TOKENS * 2 + 16;   // of the finished tile: rows fall in different banks
constexpr int N_TILES = TOKENS / 32;             // 8 tokens wide, of a warp

// Half a step: `image` is where the lane's values of the warp's first row block lie, `rows` the lane's row of X in the first group.
template <int SELECTOR>
__device__ __forceinline__ void half_step(float (&sums)[4][N_TILES][4], u32 image, u32 rows, int first_chunk, const u32 (&metadata)[4])
{
    uint4 a[4], b[2];
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = load_16(image + SELECTOR * VALUE_BYTES / 2 + i * 512);
    const auto load_b = [&](int j) {             // 32 rows of X x 8 tokens
        const int chunk = first_chunk + j;
        return load_matrices_transposed(rows + SELECTOR * 32 * 128 + chunk / 8 * GROUP_BYTES + ((chunk % 8 ^ (threadIdx.x & 7)) << 4));
    };
    b[0] = load_b(0);
#pragma unroll
    for (int j = 0; j < N_TILES; j++) {
        if (j + 1 < N_TILES) b[(j + 1) & 1] = load_b(j + 1);
#pragma unroll
        for (int i = 0; i < 4; i++) multiply<SELECTOR>(sums[i][j], a[i], b[j & 1], metadata[i]);
    }
}

extern "C" __global__ void __launch_bounds__(256, 1)
tile_vector_wise(const u16* x, const unsigned char* images, const int* columns, const int* starts, const int* rows, const u16* bias,
                 const u16* residual, u16* y, long long x_stride, long long residual_stride, long long y_stride,
                 int tokens, int tiles, int token_blocks, int tokens_first)
{
    extern __shared__ __align__(1024) unsigned char memory[];
    const u32 shared = shared_address(memory);
    const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, half = warp >> 2, quarter = warp & 3;
    const Place place = place_of(blockIdx.x, tiles, token_blocks, tokens_first);
    const int start = starts[place.tile], steps = starts[place.tile + 1] - start;
    rows += place.tile * ROWS;
    images += (long long)start * IMAGE_BYTES;
    columns += (long long)start * STEP + warp * 8 + (lane & 7);

    int column = steps > 0 ? columns[0] : 0;
    const auto copy_step = [&](int step) {
        if (step < steps) {
            const u32 stage = shared + step % STAGES * STAGE_BYTES;
#pragma unroll
            for (int at = thread * 16; at < IMAGE_BYTES; at += 256 * 16) copy_16(stage + X_BYTES + at, images + (long long)step * IMAGE_BYTES + at);
            gather<8>(stage, x, (u32)(x_stride * 2), column, warp * 8, place.token, tokens);
            if (step + 1 < steps) column = columns[(step + 1) * STEP];
        }
        commit_copies();
    };

    float sums[4][N_TILES][4] = {};
    for (int step = 0; step < STAGES - 1; step++) copy_step(step);
    for (int step = 0; step < steps; step++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();                         // this step has come, and all warps have done with the stage that is filled next
        copy_step(step + STAGES - 1);
        const u32 stage = shared + step % STAGES * STAGE_BYTES, image = stage + X_BYTES;
        u32 metadata[4];
#pragma unroll
        for (int i = 0; i < 4; i++) metadata[i] = load_4(image + VALUE_BYTES + ((half * 4 + i) * 32 + lane) * 4);
        const u32 values = image + (half * 4 * 32 + lane) * 16, row = stage + lane * 128;
        half_step<0>(sums, values, row, quarter * N_TILES, metadata);
        half_step<1>(sums, values, row, quarter * N_TILES, metadata);
    }
    wait_for_copies<0>();
    __syncthreads();                             // the stages become the finished tile

#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int below = 0; below < 2; below++) {
            const int row = (half * 4 + i) * 16 + below * 8 + lane / 4, output = rows[row];
            const float offset = bias && output >= 0 ? widen(bias[output]) : 0.0f;
#pragma unroll
            for (int j = 0; j < N_TILES; j++)
                finish(shared + row * OUT_ROW_BYTES, (quarter * N_TILES + j) * 8 + lane % 4 * 2, sums[i][j][2 * below], sums[i][j][2 * below + 1],
                       output, offset, residual, residual_stride, place.token, tokens);
        }
    __syncthreads();
    scatter<ROWS, CHUNKS, 256>(shared, OUT_ROW_BYTES, rows, y, y_stride, place.token, tokens, thread);
}
