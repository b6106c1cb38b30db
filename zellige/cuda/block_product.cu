// Y = act(X Wᵀ + bias + residual) for W in blocks of 128 rows x 64 columns, X and Y token-major, on Hopper.
//
// What a step multiplies, 64 neighbouring columns of X and a block of W, comes as two boxes of tensor maps, laid out as the tensor cores
// read them: 128 bytes a row, swizzled over 8 rows. One warp asks for boxes, two warpgroups multiply 64 rows of W x TOKENS tokens each, by
// wgmma.mma_async with W as A. The grid fills the GPU once; a block takes every gridDim-th tile x block of tokens, and its boxes run on into
// the next one while this one is finished.
//
// What was multiplied is [rows][tokens] in registers and [tokens][rows] in memory: stmatrix turns it, 64 tokens at a time, and 8 lanes write the
// 128 bytes of a token. The residual comes the same way, through ldmatrix.
//
// Defined by the compiler's command line: BFLOAT16 (else float16), TOKENS, STAGES, ACTIVATION (activation.cuh).

#include "ptx.cuh"
#include "activation.cuh"

constexpr int ROWS = 128, STEP = 64;
constexpr int X_BYTES = TOKENS * STEP * 2, W_BYTES = ROWS * STEP * 2, STAGE_BYTES = X_BYTES + W_BYTES;
constexpr int MULTIPLYING_WARPS = 8;
constexpr int OUT_BYTES = 64 * 128;              // of a warpgroup: 64 tokens x 64 rows of W

struct Ring {                                    // a stage after the other, and how often all have been used
    int stage = 0;
    u32 parity = 0;

    __device__ __forceinline__ void step()
    {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

struct Shared {
    u32 base;

    __device__ __forceinline__ u32 stage(int at) const { return base + at * STAGE_BYTES; }
    __device__ __forceinline__ u32 out(int group) const { return base + STAGES * STAGE_BYTES + group * OUT_BYTES; }
    __device__ __forceinline__ u32 full(int at) const { return out(2) + at * 16; }
    __device__ __forceinline__ u32 empty(int at) const { return full(at) + 8; }
};

struct Place { int tile, first, steps, token; };

// `width` blocks of tokens at a time, tile after tile, so that their part of X stays in the L2 cache; `tiles`: tile, first step, steps.
__device__ __forceinline__ Place place_of(int item, const int* tiles, int tile_count, int token_blocks, int width)
{
    const int span = tile_count * width, first = item / span * width, rest = item % span;
    const int across = token_blocks - first < width ? token_blocks - first : width;
    const int* tile = tiles + rest / across * 3;
    return {tile[0], tile[1], tile[2], (first + rest % across) * TOKENS};
}

// Eight neighbouring rows of W of one thread's chunk of a token: where they begin in Y, or -1 where they don't lie together.
__device__ __forceinline__ int together(const int* rows)
{
    const int first = rows[0];
    bool so = first >= 0 && first % 8 == 0;
#pragma unroll
    for (int i = 1; i < 8; i++) so = so && rows[i] == first + i;
    return so ? first : -1;
}

// A thread's chunk of a token, 8 rows of W: from where they are in the token's line, and back; `first` is what `together` says.
__device__ __forceinline__ uint4 gathered(const u16* line, const int* rows, int first)
{
    if (first >= 0) return *(const uint4*)(line + first);
    u32 words[4] = {};
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (rows[i] >= 0) words[i / 2] |= (u32)line[rows[i]] << 16 * (i & 1);
    return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ __forceinline__ void scattered(uint4 words, u16* line, const int* rows, int first)
{
    if (first >= 0) {
        *(uint4*)(line + first) = words;
        return;
    }
    const u32 pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (rows[i] >= 0) line[rows[i]] = (u16)(pairs[i / 2] >> 16 * (i & 1));
}

extern "C" __global__ void __launch_bounds__(288, 1)
block_product(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap values, const int* units, const int* rows,
              const int* tiles, const u16* bias, const u16* residual, u16* y, long long residual_stride, long long y_stride,
              int tokens, int tile_count, int token_blocks, int width)
{
    extern __shared__ __align__(1024) unsigned char memory[];
    const Shared shared = {(shared_address(memory) + 1023) & ~1023u};
    const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
    if (thread == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_begin(shared.full(stage), 1);
            barrier_begin(shared.empty(stage), MULTIPLYING_WARPS);
        }
        show_barriers();
    }
    __syncthreads();

    if (warp == MULTIPLYING_WARPS) {             // asks for boxes
        Ring ring;
        for (int item = blockIdx.x; item < tile_count * token_blocks; item += gridDim.x) {
            const Place place = place_of(item, tiles, tile_count, token_blocks, width);
            for (int some = 0; some < place.steps; some += 32) {
                const int columns = some + lane < place.steps ? units[place.first + some + lane] : 0;
                const int count = place.steps - some < 32 ? place.steps - some : 32;
                for (int i = 0; i < count; i++) {
                    const int column = __shfl_sync(0xffffffffu, columns, i);
                    if (lane == 0) {
                        const u32 stage = shared.stage(ring.stage), full = shared.full(ring.stage);
                        barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);
                        barrier_arrive_expecting(full, STAGE_BYTES);
                        copy_box(stage, x, column, place.token, full);
                        copy_box(stage + X_BYTES, values, 0, (place.first + some + i) * ROWS, full);
                    }
                    ring.step();
                }
            }
        }
        return;
    }

    const int group = warp / 4, worker = thread % 128;
    const u32 out = shared.out(group);
    const int matrix = lane / 8;                 // which of four 8 x 8 matrices this lane addresses a row of
    Ring ring;
    for (int item = blockIdx.x; item < tile_count * token_blocks; item += gridDim.x) {
        const Place place = place_of(item, tiles, tile_count, token_blocks, width);
        float sums[TOKENS / 8][4] = {};
        int before = 0;                          // the stage that the products in flight read
        for (int step = 0; step < place.steps; step++) {
            const u32 stage = shared.stage(ring.stage);
            barrier_wait(shared.full(ring.stage), ring.parity);
            const u64 a = matrix_descriptor(stage + X_BYTES + group * (64 * 128), 16), b = matrix_descriptor(stage, 16);
            begin_products();
#pragma unroll
            for (int k = 0; k < STEP; k += 16) multiply_group<0>(sums, a + (k * 2 >> 4), b + (k * 2 >> 4));
            commit_products();
            wait_for_products<1>(sums);
            if (step && lane == 0) barrier_arrive(shared.empty(before));
            before = ring.stage;
            ring.step();
        }
        wait_for_products<0>(sums);
        if (place.steps && lane == 0) barrier_arrive(shared.empty(before));

        const int* row_of = rows + place.tile * ROWS + group * 64;
        const int* above = row_of + warp % 4 * 16 + lane / 4;
        const float offsets[2] = {bias && above[0] >= 0 ? widen(bias[above[0]]) : 0.0f, bias && above[8] >= 0 ? widen(bias[above[8]]) : 0.0f};
        const int* chunk_rows = row_of + worker % 8 * 8;
        const int chunk_row = together(chunk_rows);
#pragma unroll
        for (int some = 0; some < TOKENS / 64; some++) {
            const int token = place.token + some * 64;
            if (token >= tokens) break;
            if (residual) {
                for (int at = worker; at < 64 * 8; at += 128)
                    if (token + at / 8 < tokens)
                        store_16(out + at / 8 * 128 + ((at ^ at / 8) % 8 << 4),
                                 gathered(residual + (token + at / 8) * residual_stride, chunk_rows, chunk_row));
                synchronize_group(group);
            }
#pragma unroll
            for (int pair = 0; pair < 8; pair += 2) {
                const int turned = (pair + matrix / 2) * 8 + lane % 8;               // the token whose 16 bytes this lane addresses
                const u32 address = out + turned * 128 + ((warp % 4 * 2 + matrix % 2 ^ lane % 8) << 4);
                const uint4 addend = residual ? load_matrices_transposed(address) : make_uint4(0, 0, 0, 0);
                const u32 addends[4] = {addend.x, addend.y, addend.z, addend.w};
                u32 words[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float* both = sums[some * 8 + pair + i / 2] + i % 2 * 2;
                    words[i] = narrow(activate(both[0] + offsets[i % 2] + widen(addends[i] & 0xffff)),
                                      activate(both[1] + offsets[i % 2] + widen(addends[i] >> 16)));
                }
                store_matrices_transposed(address, make_uint4(words[0], words[1], words[2], words[3]));
            }
            synchronize_group(group);
            for (int at = worker; at < 64 * 8; at += 128)
                if (token + at / 8 < tokens)
                    scattered(load_16(out + at / 8 * 128 + ((at ^ at / 8) % 8 << 4)), y + (token + at / 8) * y_stride, chunk_rows, chunk_row);
            synchronize_group(group);
        }
    }
}
