// Y = act(X Wᵀ + bias + residual) for W in blocks of 128 rows x 64 columns, X and Y token-major, on Hopper; with E4M3, 128 columns and
// Y = act(scale of X · scale of the row · X Wᵀ + bias + residual).
//
// What a step multiplies, neighbouring columns of X and a block of W, comes as two boxes of tensor maps, laid out as the tensor cores
// read them: 128 bytes a row, swizzled over 8 rows. One warp asks for boxes, two warpgroups multiply 64 rows of W x TOKENS tokens each, by
// wgmma.mma_async with W as A. The grid fills the GPU once; a block takes every gridDim-th tile x block of tokens, and its boxes run on into
// the next one while this one is finished. How X's box is found is all that a Source knows: block_product.cu has one of a matrix,
// block_convolution.cu one of the pixels under a tap.
//
// TWO_FOUR: blocks are 2:4 along their columns, and come as images (two_four.py), one bulk copy each. Their fragments go through registers, as
// .sp wants its metadata there; each warpgroup waits for its products, while those of the other fill the tensor cores.
//
// PAIRED: blocks are of 64 rows, and a tile is two halves that have column blocks of their own, one half to each warpgroup (paired_blocks.py). A step
// brings X once, and the one or two blocks that are there; the asking warp notes in the stage whose they are. A warpgroup that has none waits for the
// step too, or it might arrive twice while the other has yet to come; and it gives back the stage that it still reads, for which others may wait.
//
// What was multiplied is [rows][tokens] in registers and [tokens][rows] in memory: stmatrix turns it on the way to a warpgroup's place in shared
// memory, from where another warp sends it off, a box again, while the next products are made. That warp fetches the residual to the same place.
// Where the rows of a tile don't lie together in Y, it moves numbers one by one.
//
// Defined by the compiler's command line: BFLOAT16 (else float16), E4M3 (what is multiplied; 0: what Y is), TWO_FOUR, PAIRED, TOKENS, STAGES,
// ACTIVATION (activation.cuh).

#pragma once
#include "ptx.cuh"
#include "activation.cuh"
#include "ring.cuh"

constexpr int ROWS = 128, LINE_BYTES = 128;      // of a row of a box: 64 numbers of 16 bits, 128 of 8
constexpr int BLOCK_BYTES = ROWS * LINE_BYTES, HALF_BYTES = BLOCK_BYTES / 2, VALUE_BYTES = BLOCK_BYTES / 2, METADATA_BYTES = BLOCK_BYTES / 16;
constexpr int X_BYTES = TOKENS * LINE_BYTES, W_BYTES = TWO_FOUR ? VALUE_BYTES + METADATA_BYTES : BLOCK_BYTES, STAGE_BYTES = X_BYTES + W_BYTES;
constexpr int IN_FLIGHT = TWO_FOUR ? 0 : 1;      // steps whose products a warpgroup leaves under way
constexpr int MULTIPLYING_WARPS = 8, ASKING_WARP = 8, MOVING_WARP = 9;
constexpr int OUT_BYTES = TOKENS * 128;          // of a warpgroup: TOKENS x 64 rows of W

#if TWO_FOUR
using Weight = const unsigned char*;             // the blocks' images
#else
using Weight = TensorMap;
#endif

struct Shared {
    u32 base;

    __device__ __forceinline__ u32 stage(int at) const { return base + at * STAGE_BYTES; }
    __device__ __forceinline__ u32 out(int group) const { return base + STAGES * STAGE_BYTES + group * OUT_BYTES; }
    __device__ __forceinline__ u32 full(int at) const { return out(2) + at * 16; }
    __device__ __forceinline__ u32 empty(int at) const { return full(at) + 8; }
    __device__ __forceinline__ u32 ready(int group) const { return full(STAGES) + group * 16; }      // the warpgroup may write
    __device__ __forceinline__ u32 written(int group) const { return ready(group) + 8; }
    __device__ __forceinline__ u32 share(int at) const { return ready(2) + at * 4; }
};

// What a step has of W. PAIRED: a word, whose low bits say which halves have a block there; above them, where these begin in the list of blocks.
struct Share {
#if PAIRED
    int word;

    __device__ __forceinline__ static Share of(const int* halves, int step) { return {halves[step]}; }
    __device__ __forceinline__ Share of_lane(int lane) const { return {__shfl_sync(0xffffffffu, word, lane)}; }
    __device__ __forceinline__ int first() const { return word >> 2; }
    __device__ __forceinline__ bool has(int half) const { return word >> half & 1; }
    __device__ __forceinline__ int bytes() const { return (has(0) + has(1)) * HALF_BYTES; }
    __device__ __forceinline__ void note(u32 address) const { store_4(address, word); }
#else
    __device__ __forceinline__ static Share of(const int*, int) { return {}; }
    __device__ __forceinline__ Share of_lane(int) const { return {}; }
    __device__ __forceinline__ int bytes() const { return W_BYTES; }
    __device__ __forceinline__ void note(u32) const {}
#endif
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

// Where a warpgroup's 64 rows begin in Y, if they lie together; ALONE if they don't, NONE if there are none. A whole warp asks.
constexpr int ALONE = -2, NONE = -1;

__device__ __forceinline__ int beginning(const int* rows, int row_count)
{
    const int lane = threadIdx.x & 31, first = rows[0];
    bool together = true;
#pragma unroll
    for (int i = lane; i < 64; i += 32) together = together && rows[i] == (first + i < row_count ? first + i : -1);
    return first < 0 ? NONE : all_of_warp(together) ? first : ALONE;
}

// The 16 bytes of a token's eight rows in a warpgroup's place.
__device__ __forceinline__ u32 place_in(u32 out, int token, int chunk) { return out + token * 128 + ((chunk ^ token & 7) << 4); }

// The residual of a tile whose rows don't lie together, to shared memory, and what was made of it back to Y; by a whole warp.
__device__ __forceinline__ void gather(u32 out, const int* rows, const u16* residual, long long stride, int count)
{
    for (int at = threadIdx.x & 31; at < count * 8; at += 32) {
        const u16* line = residual + at / 8 * stride;
        u32 words[4] = {};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int row = rows[at % 8 * 8 + i];
            if (row >= 0) words[i / 2] |= (u32)line[row] << 16 * (i & 1);
        }
        store_16(place_in(out, at / 8, at % 8), make_uint4(words[0], words[1], words[2], words[3]));
    }
}

__device__ __forceinline__ void scatter(u32 out, const int* rows, u16* y, long long stride, int count)
{
    for (int at = threadIdx.x & 31; at < count * 8; at += 32) {
        u16* line = y + at / 8 * stride;
        const uint4 words = load_16(place_in(out, at / 8, at % 8));
        const u32 pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int row = rows[at % 8 * 8 + i];
            if (row >= 0) line[row] = (u16)(pairs[i / 2] >> 16 * (i & 1));
        }
    }
}

__device__ __forceinline__ void copy_blocks(u32 target, const Weight& values, int step, Share share, u32 barrier)
{
#if TWO_FOUR
    copy_bulk(target, values + (long long)step * W_BYTES, W_BYTES, barrier);
#elif PAIRED
    if (share.has(0)) copy_box(target, values, 0, share.first() * (ROWS / 2), barrier);
    if (share.has(1)) copy_box(target + HALF_BYTES, values, 0, (share.first() + share.has(0)) * (ROWS / 2), barrier);
#else
    copy_box(target, values, 0, step * ROWS, barrier);
#endif
}

// A warpgroup's 64 rows of a step's block times the step's columns of X; begun, not finished.
__device__ __forceinline__ void multiply_step(float (&sums)[TOKENS / 8][4], u32 stage, int warp, int lane)
{
    const u64 b = matrix_descriptor(stage, 16);
#if TWO_FOUR
    const u32 values = stage + X_BYTES + (warp * 32 + lane) * 16;
    const uint4 first = load_16(values), second = load_16(values + VALUE_BYTES / 2);
    const u32 metadata = load_4(stage + X_BYTES + VALUE_BYTES + (warp * 32 + lane) * 4);
    begin_products();
    multiply_group<0, 0>(sums, first, b, metadata);
    multiply_group<1, 0>(sums, second, b + (LINE_BYTES / 2 >> 4), metadata);
#else
    const u64 a = matrix_descriptor(stage + X_BYTES + warp / 4 * (64 * 128), 16);
    begin_products();
#pragma unroll
    for (int byte = 0; byte < LINE_BYTES; byte += 32) multiply_group<0>(sums, a + (byte >> 4), b + (byte >> 4));
#endif
    commit_products();
}

struct Blocks {                                  // the weight, and all else but X
    const Weight& values;
    const TensorMap &residuals, &results;
    const int *rows, *tiles;
    const u16 *bias, *residual;
    u16* y;
    long long residual_stride, y_stride;
    int row_count, tokens, tile_count, token_blocks, width;
    const float *x_scale, *row_scales;           // of E4M3 alone
    const int* halves;                           // of PAIRED alone: the word of every step

    __device__ __forceinline__ int items() const { return tile_count * token_blocks; }

    // What the sums of a row stand for: numbers of 16 bits are what they are.
    __device__ __forceinline__ float scale_of(int row) const
    {
#if E4M3
        return row < 0 ? 0.0f : *x_scale * row_scales[row];
#else
        return 1.0f;
#endif
    }
};

// Source: `begin(token)` is where a block of tokens begins in X, `unit(step)` what a step reads of it, `copy` asks for that box.
template <class Source> __device__ __forceinline__ void multiply_blocks(const Source& source, const Blocks& blocks)
{
    const auto& [values, residuals, results, rows, tiles, bias, residual, y, residual_stride, y_stride, row_count, tokens, tile_count,
                 token_blocks, width, x_scale, row_scales, halves] = blocks;
    extern __shared__ __align__(1024) unsigned char memory[];
    const Shared shared = {(shared_address(memory) + 1023) & ~1023u};
    const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
    if (thread == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_begin(shared.full(stage), 1);
            barrier_begin(shared.empty(stage), MULTIPLYING_WARPS);
        }
        for (int group = 0; group < 2; group++) {
            barrier_begin(shared.ready(group), 1);
            barrier_begin(shared.written(group), MULTIPLYING_WARPS / 2);
        }
        show_barriers();
    }
    __syncthreads();

    if (warp == ASKING_WARP) {
        Ring ring;
        for (int item = blockIdx.x; item < blocks.items(); item += gridDim.x) {
            const Place place = place_of(item, tiles, tile_count, token_blocks, width);
            const auto begin = source.begin(place.token);
            for (int some = 0; some < place.steps; some += 32) {
                const int count = place.steps - some < 32 ? place.steps - some : 32;
                const int mine = place.first + some + (lane < count ? lane : 0);
                const auto own = source.unit(mine);
                const Share own_share = Share::of(halves, mine);
                for (int i = 0; i < count; i++) {
                    const auto unit = own.of_lane(i);
                    const Share share = own_share.of_lane(i);
                    if (lane == 0) {
                        const u32 stage = shared.stage(ring.stage), full = shared.full(ring.stage);
                        barrier_wait(shared.empty(ring.stage), ring.parity ^ 1);
                        share.note(shared.share(ring.stage));
                        barrier_arrive_expecting(full, X_BYTES + share.bytes());
                        source.copy(stage, unit, begin, full);
                        copy_blocks(stage + X_BYTES, values, place.first + some + i, share, full);
                    }
                    ring.step();
                }
            }
        }
        return;
    }

    u32 turn = 0;                                // the parity of this item
    if (warp == MOVING_WARP) {
        for (int item = blockIdx.x; item < blocks.items(); item += gridDim.x, turn ^= 1) {
            const Place place = place_of(item, tiles, tile_count, token_blocks, width);
            const int left = tokens - place.token < TOKENS ? tokens - place.token : TOKENS;
            int begins[2];
#pragma unroll
            for (int group = 0; group < 2; group++) {
                const int* row_of = rows + place.tile * ROWS + group * 64;
                begins[group] = beginning(row_of, row_count);
                if (residual && begins[group] == ALONE) {
                    gather(shared.out(group), row_of, residual + place.token * residual_stride, residual_stride, left);
                    __syncwarp();
                }
                if (lane > 0) continue;
                if (residual && begins[group] >= 0) {
                    barrier_arrive_expecting(shared.ready(group), OUT_BYTES);
                    copy_box(shared.out(group), residuals, begins[group], place.token, shared.ready(group));
                } else
                    barrier_arrive(shared.ready(group));
            }
#pragma unroll
            for (int group = 0; group < 2; group++) {
                barrier_wait(shared.written(group), turn);
                if (begins[group] == ALONE)
                    scatter(shared.out(group), rows + place.tile * ROWS + group * 64, y + place.token * y_stride, y_stride, left);
                else if (begins[group] >= 0 && lane == 0)
                    send_box(results, begins[group], place.token, shared.out(group));
            }
            if (lane == 0) wait_for_sent_boxes();
            __syncwarp();
        }
        return;
    }

    const int group = warp / 4;
    const int matrix = lane / 8;                 // which of four 8 x 8 matrices this lane addresses a row of
    Ring ring;
    for (int item = blockIdx.x; item < blocks.items(); item += gridDim.x, turn ^= 1) {
        const Place place = place_of(item, tiles, tile_count, token_blocks, width);
        float sums[TOKENS / 8][4] = {};
        int before = PAIRED ? NONE : 0;          // the stage that the products in flight read
        for (int step = 0; step < place.steps; step++) {
            barrier_wait(shared.full(ring.stage), ring.parity);
#if PAIRED
            if (!all_of_warp(load_4(shared.share(ring.stage)) >> group & 1)) {
                wait_for_products<0>(sums);
                if (lane == 0 && before != NONE) barrier_arrive(shared.empty(before));
                if (lane == 0) barrier_arrive(shared.empty(ring.stage));
                before = NONE;
                ring.step();
                continue;
            }
#endif
            multiply_step(sums, shared.stage(ring.stage), warp, lane);
            wait_for_products<IN_FLIGHT>(sums);
            if ((PAIRED ? before != NONE : step >= IN_FLIGHT) && lane == 0) barrier_arrive(shared.empty(IN_FLIGHT ? before : ring.stage));
            before = ring.stage;
            ring.step();
        }
        const int* row_of = rows + place.tile * ROWS + warp * 16 + lane / 4;
        const float offsets[2] = {bias && row_of[0] >= 0 ? widen(bias[row_of[0]]) : 0.0f, bias && row_of[8] >= 0 ? widen(bias[row_of[8]]) : 0.0f};
        const float scales[2] = {blocks.scale_of(row_of[0]), blocks.scale_of(row_of[8])};
        wait_for_products<0>(sums);
        if (IN_FLIGHT && (PAIRED ? before != NONE : place.steps) && lane == 0) barrier_arrive(shared.empty(before));

        barrier_wait(shared.ready(group), turn);
#pragma unroll
        for (int eight = 0; eight < TOKENS / 8; eight += 2) {
            const u32 address = place_in(shared.out(group), (eight + matrix / 2) * 8 + lane % 8, warp % 4 * 2 + matrix % 2);
            const uint4 addend = residual ? load_matrices_transposed(address) : make_uint4(0, 0, 0, 0);
            const u32 addends[4] = {addend.x, addend.y, addend.z, addend.w};
            u32 words[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float* both = sums[eight + i / 2] + i % 2 * 2;
                words[i] = narrow(activate(both[0] * scales[i % 2] + offsets[i % 2] + widen(addends[i] & 0xffff)),
                                  activate(both[1] * scales[i % 2] + offsets[i % 2] + widen(addends[i] >> 16)));
            }
            store_matrices_transposed(address, make_uint4(words[0], words[1], words[2], words[3]));
        }
        show_tensor_cores();                     // and boxes that are sent
        __syncwarp();
        if (lane == 0) barrier_arrive(shared.written(group));
    }
}
