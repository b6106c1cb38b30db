// Tile-vector-wise product through wgmma.mma_async.sp, tile-wise through wgmma.mma_async (Hopper): one warpgroup copies, two multiply
// 64 rows x TOKENS tokens each.
//
// The grid fills the GPU once; a block takes every gridDim-th tile x block of tokens, and its copies run on into the next one while
// this one is finished. The weight's image of a step comes as one bulk copy. The gathered rows of X come by cp.async, an ordinary write to
// shared memory, which must be shown to the tensor cores. SELF_ARRIVING: the copies arrive at the stage's barrier when they are done, and
// who multiplies fences. Otherwise, and where rows aren't aligned, a copying thread waits for its copies, fences, and only then arrives:
// LAG steps later.

#include "tile_vector_wise.cuh"
#include "ring.cuh"

constexpr int STAGE_BYTES = X_BYTES + IMAGE_BYTES, COPIERS = 128, MULTIPLYING_WARPS = 8, LAG = STAGES - 2;
constexpr int AHEAD = 4;                         // steps between asking for column numbers and using them: the L2 cache takes its time
constexpr bool COPIES_ARRIVE = SELF_ARRIVING && ALIGNED;
constexpr int OUT_ROW_BYTES = 128 + 16, OUT_BYTES = 16 * OUT_ROW_BYTES;   // of a warp: 16 rows x 64 tokens, rows in different banks

struct Shared {
    u32 base;

    __device__ __forceinline__ u32 stage(int at) const { return base + at * STAGE_BYTES; }
    __device__ __forceinline__ u32 full(int at) const { return base + STAGES * STAGE_BYTES + at * 16; }
    __device__ __forceinline__ u32 empty(int at) const { return full(at) + 8; }
    __device__ __forceinline__ u32 out(int warp) const { return full(STAGES) + warp * OUT_BYTES; }
};

// A warpgroup's 64 rows of a step's image times the step's rows of X at `b`; begun, not finished.
__device__ __forceinline__ void multiply_step(float (&sums)[TOKENS / 8][4], u32 image, u64 b, int warp, int lane)
{
#if TWO_FOUR
    const uint4 first = load_16(image + (warp * 32 + lane) * 16), second = load_16(image + VALUE_BYTES / 2 + (warp * 32 + lane) * 16);
    const u32 metadata = load_4(image + VALUE_BYTES + (warp * 32 + lane) * 4);
    begin_products();
    multiply_group<0, 1>(sums, first, b, metadata);
    multiply_group<1, 1>(sums, second, b + (32 * 128 >> 4), metadata);
#else
    const u64 a = matrix_descriptor(image + warp / 4 * (64 * 128), 16);
    begin_products();
#pragma unroll
    for (int k = 0; k < STEP; k += 16) multiply_group<1>(sums, a + (k * 2 >> 4), b + (k * 128 >> 4));
#endif
    commit_products();
}

extern "C" __global__ void __launch_bounds__(384, 1)
tile_vector_wise(const u16* x, const unsigned char* images, const int* columns, const int* starts, const int* rows, const u16* bias,
                 const u16* residual, u16* y, long long x_stride, long long residual_stride, long long y_stride,
                 int tokens, int tiles, int token_blocks, int tokens_first)
{
    extern __shared__ __align__(1024) unsigned char memory[];
    const Shared shared = {(shared_address(memory) + 1023) & ~1023u};
    const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
    const int items = tiles * token_blocks;
    if (thread == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_begin(shared.full(stage), COPIERS + 1);
            barrier_begin(shared.empty(stage), MULTIPLYING_WARPS);
        }
        show_barriers();
    }
    __syncthreads();

    if (thread >= 256) {                         // copies
        const int copier = warp - 8;
        Ring ring, arrived;
        int late = 0;                            // steps copied of which nobody has been told
        const auto arrive = [&]() {
            show_tensor_cores();
            barrier_arrive(shared.full(arrived.stage));
            arrived.step();
            late--;
        };
        const auto copy_step = [&](int step, int column, int token) {
            const u32 stage = shared.stage(ring.stage);
            barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);
            if (thread == 256) {
                barrier_arrive_expecting(shared.full(ring.stage), IMAGE_BYTES);
                copy_bulk(stage + X_BYTES, images + (long long)step * IMAGE_BYTES, IMAGE_BYTES, shared.full(ring.stage));
            }
            gather<16>(stage, x, (u32)(x_stride * 2), column, copier * 16, token, tokens);
            if (COPIES_ARRIVE) arrive_after_copies(shared.full(ring.stage));
            else commit_copies();
            ring.step();
            if (!COPIES_ARRIVE && ++late > LAG) {
                wait_for_copies<LAG>();
                arrive();
            }
        };
        for (int item = blockIdx.x; item < items; item += gridDim.x) {
            const Place place = place_of(item, tiles, token_blocks, tokens_first);
            const int first = starts[place.tile], last = starts[place.tile + 1];
            const int* column_of = columns + copier * 16 + (lane & 15);
            const auto column_at = [&](int step) { return step < last ? column_of[(long long)step * STEP] : 0; };
            int following[AHEAD];                // columns of the steps after these: loaded while these are copied
#pragma unroll
            for (int i = 0; i < AHEAD; i++) following[i] = column_at(first + i);
            for (int some = first; some < last; some += AHEAD) {
                int column[AHEAD];
#pragma unroll
                for (int i = 0; i < AHEAD; i++) column[i] = following[i], following[i] = column_at(some + AHEAD + i);
#pragma unroll
                for (int i = 0; i < AHEAD; i++)
                    if (some + i < last) copy_step(some + i, column[i], place.token);
            }
        }
        wait_for_copies<0>();
        while (late > 0) arrive();
    } else {                                     // multiplies
        const u32 out = shared.out(warp);
        Ring ring;
        for (int item = blockIdx.x; item < items; item += gridDim.x) {
            const Place place = place_of(item, tiles, token_blocks, tokens_first);
            const int steps = starts[place.tile + 1] - starts[place.tile];
            float sums[TOKENS / 8][4] = {};
            for (int step = 0; step < steps; step++) {
                const u32 stage = shared.stage(ring.stage), image = stage + X_BYTES;
                barrier_wait(shared.full(ring.stage), ring.parity);
                if (COPIES_ARRIVE) show_tensor_cores();
                multiply_step(sums, image, matrix_descriptor(stage, GROUP_BYTES), warp, lane);
                wait_for_products<0>(sums);
                if (lane == 0) barrier_arrive(shared.empty(ring.stage));
                ring.step();
            }

            const int* row_of = rows + place.tile * ROWS + warp * 16;
#pragma unroll
            for (int group = 0; group < GROUPS; group++) {
                const int token = place.token + group * 64;
#pragma unroll
                for (int below = 0; below < 2; below++) {
                    const int row = below * 8 + lane / 4, output = row_of[row];
                    const float offset = bias && output >= 0 ? widen(bias[output]) : 0.0f;
#pragma unroll
                    for (int j = 0; j < 8; j++)
                        finish(out + row * OUT_ROW_BYTES, j * 8 + lane % 4 * 2, sums[group * 8 + j][2 * below],
                               sums[group * 8 + j][2 * below + 1], output, offset, residual, residual_stride, token, tokens);
                }
                __syncwarp();
                scatter<16, 8, 32>(out, OUT_ROW_BYTES, row_of, y, y_stride, token, tokens, lane);
                __syncwarp();
            }
        }
    }
}
