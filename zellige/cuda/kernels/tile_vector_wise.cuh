// What both kernels share: Y = act(W X + bias + residual), W tile-wise and, where TWO_FOUR, 2:4 along the columns that its tiles keep; X and Y
// feature-major.
//
// A block makes 128 rows (one tile) x TOKENS tokens. It walks the tile's kept columns in steps of 64; for a step it copies one image of
// the weight (two_four.py, else swizzled.py) and gathers 64 rows of X. In shared memory these rows lie as the tensor cores take them on every
// architecture: groups of 64 tokens, in a group 128 bytes a row of X, the 16-byte chunk c of row k at place c ^ (k & 7).
//
// Defined by the compiler's command line: BFLOAT16 (else float16), TWO_FOUR, TOKENS, STAGES, SELF_ARRIVING (see there), ALIGNED
// (rows of X, Y and the residual start at multiples of 16 bytes), ACTIVATION (activation.cuh).

#pragma once
#include "ptx.cuh"
#include "activation.cuh"

constexpr int ROWS = 128, STEP = 64;
constexpr int VALUE_BYTES = ROWS * STEP * (TWO_FOUR ? 1 : 2), IMAGE_BYTES = VALUE_BYTES + (TWO_FOUR ? ROWS * STEP / 8 : 0);
constexpr int GROUP_BYTES = STEP * 128, GROUPS = TOKENS / 64, X_BYTES = GROUPS * GROUP_BYTES;
constexpr int CHUNKS = TOKENS / 8;               // 16-byte chunks in a row of X
constexpr int ROWS_AT_ONCE = 32 / CHUNKS;        // rows of X that a warp copies with one instruction

struct Place { int tile, token; };               // what a block makes: a tile's rows, from this token on

__device__ __forceinline__ Place place_of(int item, int tiles, int token_blocks, int tokens_first)
{
    const int tile = tokens_first ? item / token_blocks : item % tiles;
    const int token_block = tokens_first ? item % token_blocks : item / tiles;
    return {tile, token_block * TOKENS};
}

// Lane l of a warp copies its chunk of rows first, first + 1, ... of a step; `column` holds the row of X for row `lane % rows` of these, and
// `first` is a multiple of 8. One warp on each scheduler copies, so what counts is how few instructions a chunk takes: an address is one
// multiplication of 32 bits (row_bytes apart), places in shared memory differ by constants.
template <int COUNT>
__device__ __forceinline__ void gather(u32 target, const u16* x, u32 row_bytes, int column, int first, int token, int tokens)
{
    const int lane = threadIdx.x & 31, chunk = lane % CHUNKS, above = lane / CHUNKS, left = tokens - token - chunk * 8;
    const unsigned char* from = (const unsigned char*)(x + (left > 0 ? token + chunk * 8 : 0));
    const u32 group = target + chunk / 8 * GROUP_BYTES + (first + above) * 128;
    const int bytes = left >= 8 ? 16 : left > 0 ? left * 2 : 0;
#pragma unroll
    for (int i = 0; i < COUNT; i += ROWS_AT_ONCE) {
        const u32 row = __shfl_sync(0xffffffffu, column, i + above);
        const u32 place = group + i * 128 + ((chunk % 8 ^ (i + above & 7)) << 4);
        const unsigned char* source = from + (u64)row * row_bytes;
#if ALIGNED
        copy_16(place, source, bytes);
#else
        u32 words[4];
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            const u16* numbers = (const u16*)source + 2 * pair;
            const u32 low = 4 * pair < bytes ? numbers[0] : 0, high = 4 * pair + 2 < bytes ? numbers[1] : 0;
            words[pair] = low | high << 16;
        }
        store_16(place, make_uint4(words[0], words[1], words[2], words[3]));
#endif
    }
}

// Two neighbouring tokens of one row: bias, residual, activation, rounded, to the row's place in shared memory.
__device__ __forceinline__ void finish(u32 out_row, int column, float low, float high, int output, float bias,
                                       const u16* residual, long long residual_stride, int token, int tokens)
{
    low += bias;
    high += bias;
    if (residual && output >= 0) {
        const u16* source = residual + output * residual_stride + token + column;
        const int left = tokens - token - column;
#if ALIGNED
        if (left > 1) {
            const u32 pair = *(const u32*)source;
            low += widen(pair & 0xffff);
            high += widen(pair >> 16);
        } else
#endif
        {
            if (left > 0) low += widen(source[0]);
            if (left > 1) high += widen(source[1]);
        }
    }
    store_4(out_row + column * 2, narrow(activate(low), activate(high)));
}

// COUNT finished rows of WIDTH 16-byte chunks to the rows of Y that they make, 16 bytes a thread.
template <int COUNT, int WIDTH, int THREADS>
__device__ __forceinline__ void scatter(u32 out, int row_bytes, const int* rows, u16* y, long long y_stride, int token, int tokens, int thread)
{
#pragma unroll 4
    for (int at = thread; at < COUNT * WIDTH; at += THREADS) {
        const int row = at / WIDTH, column = at % WIDTH * 8, left = tokens - token - column, output = rows[row];
        if (output < 0 || left <= 0) continue;
        const uint4 words = load_16(out + row * row_bytes + column * 2);
        u16* target = y + output * y_stride + token + column;
#if ALIGNED
        if (left >= 8) {
            *(uint4*)target = words;
            continue;
        }
#endif
        const u32 pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i < left) target[i] = (u16)(pairs[i / 2] >> 16 * (i & 1));
    }
}
