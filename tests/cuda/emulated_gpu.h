// A GPU's block on a CPU: it stands in for ptx.cuh, so that tests run the kernels' own code, thread by thread.
//
// Every thread of a block is a fiber; one runs until it must wait for others. What a warp does together (shuffles, ldmatrix, mma.sp) happens when
// the last of its lanes arrives. Asynchronous work is done at one of its two extremes: at once, which shows a copy into memory
// that is still being read, or only when it is waited for, which shows a missing wait; products with odd seeds at the other one than copies.
// The order of the fibers, and which warps stand still for a while, are drawn from a seed.

#define ZELLIGE_PTX

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __shared__
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__

#ifdef SELF_ARRIVING
#define GATHERED 1                                          // threads write what tensor cores read
#else
#define GATHERED 0                                          // copies in bulk alone do
#define SELF_ARRIVING 0
#define ALIGNED 1
#endif

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

struct uint4 { u32 x, y, z, w; };
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
struct Index { int x; } threadIdx, blockIdx, gridDim;
inline float __expf(float value) { return std::exp(value); }

unsigned char memory[1];                                    // where shared memory begins, for a kernel
unsigned char shared_memory[256 * 1024];                    // what it is
int shared_bytes, thread_count;
int fiber;                                                  // the running one
bool lazy, late_products;                                   // what is done when it is waited for

// --- fibers ----------------------------------------------------------------------------------------------------------------------

struct Gathering { int arrived = 0, generation = 0; };      // of threads that wait for one another
struct Lane { uint4 a, b; float d[4]; u32 word; };
struct Warp { Gathering gathering; Lane lanes[32]; uint4 out[32]; float d[32][4]; int arrived = -1, arriving = -1; };     // who last arrived, and in which generation
struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    bool finished = false;
    int wrote = -1;                                         // the generation of its warp in which it last stored 16 bytes
    bool hidden = false;                                    // it wrote, or waited for, what tensor cores may not see yet
    bool fenced = false;                                    // wgmma.fence came after all that it did to registers of products
    bool reading = false;                                   // products that are not committed yet read registers of A
    std::deque<bool> committed;                             // the same of groups of products that it has not waited for
    std::deque<std::vector<std::function<void()>>> copies;  // groups, oldest first; the last one is still open
};

struct Counter { int arrivals, left, thread, late = 0; long long bytes = 0; u32 phase = 0; bool shown = false; std::vector<std::function<void()>> copies; };   // an mbarrier
struct Product { bool sparse, side_by_side; int selector; u64 a, b; Lane lanes[128]; float* d[128]; };
struct Group { Gathering gathering; Product next; std::vector<std::function<void()>> open; std::deque<std::vector<std::function<void()>>> committed; };   // a warpgroup

std::map<u32, Counter> counters;                            // by address
std::vector<Group> groups;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
Gathering barrier;
ucontext_t scheduler;
int happened;                                               // how often threads that waited for one another could go on
std::function<void()> body;

char failure[256];                                          // what went wrong first, if anything

[[noreturn]] inline void fail(const char* what, long long number)
{
    if (!*failure) std::snprintf(failure, sizeof failure, "block %d, thread %d: %s (%lld)", blockIdx.x, threadIdx.x, what, number);
    for (;;) swapcontext(&fibers[fiber].context, &scheduler);
}

inline void yield() { swapcontext(&fibers[fiber].context, &scheduler); }
inline Warp& my_warp() { return warps[fiber / 32]; }
inline int my_lane() { return threadIdx.x % 32; }

template <class Action> void gather_threads(Gathering& at, int count, Action action)
{
    const int generation = at.generation;
    if (++at.arrived == count) {
        action();
        at.arrived = 0;
        happened++;
        at.generation++;
    } else
        while (at.generation == generation) yield();
}

inline void run_fiber()
{
    body();
    fibers[fiber].finished = true;
    yield();
}

inline void run_block(int block, unsigned seed)
{
    const int threads = thread_count;
    std::mt19937 random(seed);
    blockIdx.x = block;
    std::memset(shared_memory, 0xff, sizeof shared_memory); // what nobody wrote is NaN
    fibers = std::vector<Fiber>(threads);
    warps = std::vector<Warp>(threads / 32);
    barrier = {};
    counters.clear();
    groups.assign((threads + 127) / 128, {});
    for (auto& fiber : fibers) {
        fiber.stack.reset(new char[96 * 1024]);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = 96 * 1024;
        fiber.context.uc_link = nullptr;
        fiber.copies.emplace_back();
        makecontext(&fiber.context, run_fiber, 0);
    }
    std::vector<int> order(threads);
    for (int i = 0; i < threads; i++) order[i] = i;
    std::vector<bool> held(threads / 32);                   // warps that stand still for a while, so that the others run far ahead
    for (int left = threads, idle = 0, period = 0; left; idle++) {
        if (idle > 3000) std::snprintf(failure, sizeof failure, "block %d: %d threads wait for one another", blockIdx.x, left);
        if (*failure) return;
        if (period-- == 0) {
            period = 8 << random() % 3 * 3;
            std::shuffle(order.begin(), order.end(), random);
            for (int warp = 0; warp < threads / 32; warp++) held[warp] = random() % 2;
        }
        if (idle > 1000) held.assign(held.size(), false);
        const int before = happened;
        for (int thread : order) {
            if (fibers[thread].finished || held[thread / 32]) continue;
            fiber = threadIdx.x = thread;
            swapcontext(&scheduler, &fibers[thread].context);
            left -= fibers[thread].finished;
            if (*failure) return;
        }
        if (happened != before) idle = 0;
    }
}

inline void __syncwarp() { gather_threads(my_warp().gathering, 32, [] {}); }
inline void __syncthreads() { gather_threads(barrier, thread_count, [] {}); }

inline int __shfl_sync(u32, int value, int source)
{
    Warp& warp = my_warp();
    warp.lanes[my_lane()].word = value;
    gather_threads(warp.gathering, 32, [&] { for (int lane = 0; lane < 32; lane++) warp.out[lane].x = warp.lanes[lane].word; });
    return warp.out[source & 31].x;
}

inline bool all_of_warp(bool one)
{
    Warp& warp = my_warp();
    warp.lanes[my_lane()].word = one;
    gather_threads(warp.gathering, 32, [&] {
        warp.out[0].x = 1;
        for (auto& lane : warp.lanes) warp.out[0].x &= lane.word;
    });
    return warp.out[0].x;
}

// --- shared memory ---------------------------------------------------------------------------------------------------------------

inline u32 shared_address(const void* pointer) { return (const unsigned char*)pointer - memory; }

inline unsigned char* checked(u32 address, int bytes)
{
    if (address % bytes || (int)(address + bytes) > shared_bytes) fail("a bad address in shared memory", address);
    return shared_memory + address;
}

template <class T> T load(u32 address) { T value; std::memcpy(&value, checked(address, sizeof value), sizeof value); return value; }
template <class T> void store(u32 address, T value) { std::memcpy(checked(address, sizeof value), &value, sizeof value); }

// What a thread loads may be a fragment of A, in registers that products in flight still read: compilers take the same ones for the next step.
template <class T> T load_fragment(u32 address)
{
    Fiber& mine = fibers[fiber];
    if (mine.reading || std::count(mine.committed.begin(), mine.committed.end(), true)) fail("registers written that products in flight read", address);
    mine.fenced = false;
    return load<T>(address);
}

inline u32 load_4(u32 address) { return load_fragment<u32>(address); }
inline uint4 load_16(u32 address) { return load_fragment<uint4>(address); }
inline void store_4(u32 address, u32 word) { store(address, word); }

inline void store_16(u32 address, uint4 words)
{
    Warp& warp = my_warp();
    store(address, words);
    fibers[fiber].hidden = GATHERED;
    fibers[fiber].wrote = warp.gathering.generation;
    if (!GATHERED && warp.arriving != fiber && warp.arrived == warp.gathering.generation) fail("a write after another lane arrived for it", address);
}

inline uint4 load_matrices_transposed(u32 address)
{
    Warp& warp = my_warp();
    warp.lanes[my_lane()].word = address;
    gather_threads(warp.gathering, 32, [&] {
        for (int lane = 0; lane < 32; lane++)
            for (int matrix = 0; matrix < 4; matrix++) {
                u16 pair[2];
                for (int i = 0; i < 2; i++)
                    std::memcpy(&pair[i], checked(warp.lanes[8 * matrix + lane % 4 * 2 + i].word, 16) + lane / 4 * 2, 2);
                std::memcpy((u32*)&warp.out[lane] + matrix, pair, 4);
            }
    });
    return warp.out[my_lane()];
}

inline void store_matrices_transposed(u32 address, uint4 words)
{
    Warp& warp = my_warp();
    warp.lanes[my_lane()].word = address;
    warp.lanes[my_lane()].a = words;
    gather_threads(warp.gathering, 32, [&] {
        for (int lane = 0; lane < 32; lane++)
            for (int matrix = 0; matrix < 4; matrix++)
                for (int i = 0; i < 2; i++)
                    std::memcpy(checked(warp.lanes[8 * matrix + lane % 4 * 2 + i].word, 16) + lane / 4 * 2,
                                (const unsigned char*)&warp.lanes[lane].a + matrix * 4 + i * 2, 2);
    });
    fibers[fiber].hidden = true;
}

// --- cp.async --------------------------------------------------------------------------------------------------------------------

inline void copy_16(u32 target, const void* source, int bytes = 16)
{
    if ((std::uintptr_t)source % 16) fail("a source that is not aligned", (long long)source);
    const auto copy = [=] {
        unsigned char chunk[16] = {};
        std::memcpy(chunk, source, bytes);
        std::memcpy(checked(target, 16), chunk, 16);
        fibers[fiber].hidden = true;
    };
    if (lazy) fibers[fiber].copies.back().push_back(copy);
    else copy();
}

inline void commit_copies() { fibers[fiber].copies.emplace_back(); }

template <int LEFT> void wait_for_copies()
{
    auto& groups = fibers[fiber].copies;
    while ((int)groups.size() - 1 > LEFT) {
        for (auto& copy : groups.front()) copy();
        groups.pop_front();
    }
}

// --- 16-bit numbers --------------------------------------------------------------------------------------------------------------

inline float widen(u16 number)
{
#if BFLOAT16
    const u32 bits = (u32)number << 16;
    float wide;
    std::memcpy(&wide, &bits, 4);
    return wide;
#else
    _Float16 half;
    std::memcpy(&half, &number, 2);
    return half;
#endif
}

inline u16 narrow_one(float value)
{
#if BFLOAT16
    u32 bits;
    std::memcpy(&bits, &value, 4);
    if (std::isnan(value)) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
#else
    const _Float16 half = value;
    u16 bits;
    std::memcpy(&bits, &half, 2);
    return bits;
#endif
}

inline float fast_tanh(float value) { return std::tanh(value) * (1 + 0x1p-11f); }       // as far off as it may be
inline float larger(float a, float b) { return std::isnan(a) || a > b ? a : b; }

inline u32 narrow(float low, float high) { return narrow_one(low) | (u32)narrow_one(high) << 16; }

inline float number_of(const uint4& words, int i)           // the i-th of 8 16-bit numbers
{
    u16 numbers[8];
    std::memcpy(numbers, &words, 16);
    return widen(numbers[i]);
}

// --- mma.sp ----------------------------------------------------------------------------------------------------------------------

// Column by column of 32, the row's number in A: the PTX ISA's fragments of a sparse 16 x 32 matrix (sparse_instruction.py).
inline void sparse_row(const Lane* lanes, int row, int selector, float* columns)
{
    for (int i = 0; i < 32; i++) columns[i] = 0;
    for (int pair = 0; pair < 16; pair++) {
        const u32 word = lanes[row % 8 * 4 + selector * 2 + pair / 2 / 4].word;
        const int nibble = word >> (16 * (row / 8) + 4 * (pair / 2 % 4)) & 15, position = pair & 1 ? nibble >> 2 : nibble & 3;
        if ((nibble & 3) >= nibble >> 2) fail("metadata that is not ordered", nibble);
        columns[pair / 2 * 4 + position] = number_of(lanes[row % 8 * 4 + pair % 8 / 2].a, (pair & 1) + 2 * (row / 8) + 4 * (pair / 8));
    }
}

template <int SELECTOR> void multiply(float (&d)[4], const uint4& a, const uint4& b, u32 metadata)
{
    Warp& warp = my_warp();
    Lane& mine = warp.lanes[my_lane()];
    mine.a = a, mine.b = b, mine.word = metadata;
    std::memcpy(mine.d, d, sizeof d);
    gather_threads(warp.gathering, 32, [&] {
        for (int row = 0; row < 16; row++) {
            float columns[32];
            sparse_row(warp.lanes, row, SELECTOR, columns);
            for (int n = 0; n < 8; n++) {
                const int lane = row % 8 * 4 + n / 2, at = row / 8 * 2 + n % 2;
                float sum = warp.lanes[lane].d[at];
                for (int k = 0; k < 32; k++) sum += columns[k] * number_of(warp.lanes[n * 4 + k % 8 / 2].b, k / 8 * 2 + k % 2);
                warp.d[lane][at] = sum;
            }
        }
    });
    std::memcpy(d, warp.d[my_lane()], sizeof d);
}

// --- mbarrier and cp.async.bulk --------------------------------------------------------------------------------------------------

inline Counter& counter_at(u32 address)
{
    const auto found = counters.find(address);
    if (found == counters.end() || !found->second.shown) fail("a barrier that nobody began, or has not shown", address);
    return found->second;
}

inline void end_phase(Counter& counter)                     // where all have arrived, bytes too
{
    if (counter.left || counter.bytes) return;
    counter.left = counter.arrivals;
    counter.phase++;
    happened++;
}

inline void barrier_begin(u32 address, int arrivals)
{
    checked(address, 8);
    counters[address] = {arrivals, arrivals, fiber};
}

inline void show_barriers()
{
    for (auto& [address, counter] : counters) counter.shown |= counter.thread == fiber;
}

inline void arrive(u32 address, int bytes)
{
    Counter& counter = counter_at(address);
    if (!counter.left) fail("more arrivals than a barrier expects", address);
    counter.left--;
    counter.bytes += bytes;
    end_phase(counter);
}

inline void barrier_arrive(u32 address)
{
    if (GATHERED && fibers[fiber].hidden) fail("an arrival before what was written is shown to the tensor cores", address);
    if (!GATHERED) {                                        // where copies in bulk alone bring data, one lane arrives for its warp
        Warp& warp = my_warp();
        warp.arrived = warp.gathering.generation, warp.arriving = fiber;
        for (int lane = fiber / 32 * 32; lane < fiber / 32 * 32 + 32; lane++) {
            if (fibers[lane].hidden) fail("an arrival before what was written is shown to the tensor cores", address);
            if (lane != fiber && fibers[lane].wrote == warp.arrived) fail("an arrival for lanes that it has not waited for", address);
        }
    }
    arrive(address, 0);
}

inline void arrive_after_copies(u32 address)
{
    auto& copies = fibers[fiber].copies;
    if (!lazy) return arrive(address, 0);
    Counter& counter = counter_at(address);
    counter.late++;
    counter.copies.push_back([address, mine = std::exchange(copies, {{}})] {
        for (auto& group : mine)
            for (auto& copy : group) copy();
        counter_at(address).late--;
        arrive(address, 0);
    });
}

inline void barrier_arrive_expecting(u32 address, int bytes) { arrive(address, bytes); }

inline void barrier_wait(u32 address, u32 parity)
{
    Counter& counter = counter_at(address);
    while ((counter.phase & 1) == parity) {
        if (counter.left == counter.late)
            for (auto& copy : std::exchange(counter.copies, {})) copy();
        if ((counter.phase & 1) == parity) yield();
    }
    fibers[fiber].hidden |= SELF_ARRIVING && ALIGNED;
}

inline void copy_bulk(u32 target, const void* source, int bytes, u32 barrier)
{
    if ((std::uintptr_t)source % 16 || bytes % 16) fail("a bulk copy that is not aligned", (long long)source);
    checked(target, 16), checked(target + bytes - 16, 16);
    const auto copy = [=] {
        Counter& counter = counter_at(barrier);
        std::memcpy(shared_memory + target, source, bytes);
        counter.bytes -= bytes;
        end_phase(counter);
    };
    if (lazy) counter_at(barrier).copies.push_back(copy);
    else copy();
}

struct Pair { int right, down; };

// Memory cut into boxes 128 bytes wide, swizzled: a matrix, or images of height x width pixels that lie `stride` apart, with as many channels as
// there are columns, in im2col mode.
struct TensorMap {
    const void* matrix;
    int columns, rows;
    long long stride;
    int box_rows;
    int images = 0, height = 0, width = 0;
    Pair lower = {}, upper = {}, step = {};
    int bytes = 2;                                          // of a number

    const void* at(long long index) const { return (const unsigned char*)matrix + index * bytes; }
};

inline void fill_box(u32 target, const TensorMap& map, u32 barrier, std::function<const void*(int, int)> number_at)     // by row and column; none: zero
{
    const int rows = map.box_rows, bytes = map.bytes;
    if (target % 1024) fail("a box that does not begin at a whole group of rows", target);
    checked(target, 16), checked(target + rows * 128 - 16, 16);
    const auto copy = [=] {
        Counter& counter = counter_at(barrier);
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < 128; j += bytes) {
                unsigned char* place = shared_memory + target + i * 128 + ((j / 16 ^ i & 7) << 4) + j % 16;
                const void* number = number_at(i, j / bytes);
                if (number) std::memcpy(place, number, bytes);
                else std::memset(place, 0, bytes);
            }
        counter.bytes -= rows * 128;
        end_phase(counter);
    };
    if (lazy) counter_at(barrier).copies.push_back(copy);
    else copy();
}

inline void copy_box(u32 target, const TensorMap& map, int column, int row, u32 barrier)
{
    fill_box(target, map, barrier, [=](int i, int j) {
        const bool inside = row + i < map.rows && column + j < map.columns;
        return inside ? map.at((row + i) * map.stride + column + j) : nullptr;
    });
}

// The PTX ISA's im2col mode: the bounding box reaches from the image's first pixel, moved by its lower corner, to the last one, moved by its upper
// corner. Pixels are visited in it from the coordinates on, `step` apart, line by line, image by image; what is read lies the offsets further.
inline void copy_pixels(u32 target, const TensorMap& map, int channel, int left, int top, int image, int right, int down, u32 barrier)
{
    const Pair first = map.lower, last = {map.width - 1 + map.upper.right, map.height - 1 + map.upper.down};
    if (left < first.right || left > last.right || top < first.down || top > last.down) fail("a box that begins outside of its bounding box", left);
    if (right < 0 || right > 255 || down < 0 || down > 255) fail("an offset that does not fit 8 bits", right);
    struct Pixel { int x, y, image; };
    std::vector<Pixel> met;
    for (Pixel at = {left, top, image}; (int)met.size() < map.box_rows;) {
        met.push_back({at.x + right, at.y + down, at.image});
        if ((at.x += map.step.right) <= last.right) continue;
        at.x = first.right;
        if ((at.y += map.step.down) <= last.down) continue;
        at.y = first.down, at.image++;
    }
    fill_box(target, map, barrier, [=](int i, int j) {
        const Pixel at = met[i];
        const bool inside = at.x >= 0 && at.x < map.width && at.y >= 0 && at.y < map.height && at.image < map.images && channel + j < map.columns;
        return inside ? map.at((((long long)at.image * map.height + at.y) * map.width + at.x) * map.stride + channel + j) : nullptr;
    });
}

inline void send_box(const TensorMap& map, int column, int row, u32 source)
{
    if (source % 1024) fail("a box that does not begin at a whole group of rows", source);
    const auto send = [=] {
        for (int i = 0; i < map.box_rows && row + i < map.rows; i++)
            for (int j = 0; j < 64 && column + j < map.columns; j++)
                std::memcpy((u16*)map.matrix + (row + i) * map.stride + column + j,       // of 16 bits, as results are
                            shared_memory + source + i * 128 + ((j / 8 ^ i & 7) << 4) + j % 8 * 2, 2);
    };
    if (lazy) fibers[fiber].copies.back().push_back(send);
    else send();
}

inline void wait_for_sent_boxes() { commit_copies(), wait_for_copies<0>(); }

inline void show_tensor_cores() { fibers[fiber].hidden = false; }

// --- wgmma.mma_async, .sp too ----------------------------------------------------------------------------------------------------

inline u64 matrix_descriptor(u32 address, u32 group_bytes)  // as ptx.cuh makes it; read below as the PTX ISA has it
{
    constexpr u64 SWIZZLE_128 = 1ull << 62, EIGHT_ROWS = 8 * 128;
    return SWIZZLE_128 | EIGHT_ROWS >> 4 << 32 | (u64)(group_bytes >> 4) << 16 | (address & 0x3ffff) >> 4;
}

// e4m3 (OCP): four bits of exponent, biased by 7, and three of mantissa; NaN where all are set; below 2^-6 steps of 2^-9.
inline float widen_e4m3(unsigned char number)
{
    const int exponent = number >> 3 & 15, mantissa = number & 7;
    const float size = (number & 127) == 127 ? NAN : exponent ? std::ldexp(8.0f + mantissa, exponent - 10) : std::ldexp((float)mantissa, -9);
    return number & 128 ? -size : size;
}

#if E4M3
using Number = unsigned char;
inline float widen_number(Number number) { return widen_e4m3(number); }
#else
using Number = u16;
inline float widen_number(Number number) { return widen(number); }
#endif

constexpr int LINE = 128 / sizeof(Number), DEPTH = 32 / sizeof(Number);     // numbers of 128 bytes; the k of wgmma.mma_async's shapes

// One number of A or B, columns side by side in memory: LINE columns are 128 bytes, the next ones lie `leading` bytes on; 8 rows lie side by side,
// the next 8 `stride` bytes on; bits 4 to 6 of an address are XORed with bits 7 to 9.
inline float number_in_shared(u64 descriptor, int row, int column)
{
    if (descriptor >> 62 != 1 || descriptor >> 49 & 7) fail("a descriptor of another layout", descriptor >> 49);
    const u32 start = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
    const u32 address = start + column / LINE * leading + column % LINE * sizeof(Number) + row / 8 * stride + row % 8 * 128;
    Number number;
    std::memcpy(&number, checked(address ^ (address >> 7 & 7) << 4, sizeof number), sizeof number);
    return widen_number(number);
}

template <int COUNT> void multiply_now(const Product& product)
{
    const int depth = product.sparse ? 32 : DEPTH;
    std::vector<float> b(depth * COUNT * 8);
    for (int k = 0; k < depth; k++)
        for (int n = 0; n < COUNT * 8; n++) b[k * COUNT * 8 + n] = product.side_by_side ? number_in_shared(product.b, k, n) : number_in_shared(product.b, n, k);
    for (int row = 0; row < 64; row++) {
        float columns[32];
        if (product.sparse) sparse_row(product.lanes + row / 16 * 32, row % 16, product.selector, columns);
        else
            for (int k = 0; k < depth; k++) columns[k] = number_in_shared(product.a, row, k);
        for (int n = 0; n < COUNT * 8; n++) {
            float& sum = product.d[row / 16 * 32 + row % 8 * 4 + n % 8 / 2][n / 8 * 4 + row % 16 / 8 * 2 + n % 2];
            for (int k = 0; k < depth; k++) sum += columns[k] * b[k * COUNT * 8 + n];
        }
    }
}

inline Group& my_group() { return groups[fiber / 128]; }
inline void begin_products() { fibers[fiber].fenced = true; }

inline void commit_products()
{
    Group& group = my_group();
    fibers[fiber].committed.push_back(std::exchange(fibers[fiber].reading, false));
    gather_threads(group.gathering, 128, [&] { group.committed.push_back(std::exchange(group.open, {})); });
}

template <int COUNT> void multiply_together(float (&d)[COUNT][4], bool sparse, int selector, u64 a, u64 b, bool side_by_side)
{
    Group& group = my_group();
    const int thread = threadIdx.x % 128;
    if (!fibers[fiber].fenced) fail("products of registers that no fence has shown", b);
    fibers[fiber].reading |= sparse;
    if (SELF_ARRIVING && ALIGNED && fibers[fiber].hidden) fail("a product before what was copied is shown to the tensor cores", b);
    group.next.d[thread] = d[0];
    if (thread && group.gathering.arrived && (group.next.a != a || group.next.b != b)) fail("descriptors that differ in a warpgroup", b);
    group.next.a = a, group.next.b = b, group.next.sparse = sparse, group.next.selector = selector, group.next.side_by_side = side_by_side;
    gather_threads(group.gathering, 128, [&] {
        const auto product = [next = group.next] { multiply_now<COUNT>(next); };
        if (late_products) group.open.push_back(product);
        else product();
    });
}

template <int SELECTOR, int SIDE_BY_SIDE, int COUNT> void multiply_group(float (&d)[COUNT][4], const uint4& a, u64 b, u32 metadata)
{
    Lane& mine = my_group().next.lanes[threadIdx.x % 128];
    mine.a = a, mine.word = metadata;
    multiply_together(d, true, SELECTOR, 0, b, SIDE_BY_SIDE);
}

template <int SIDE_BY_SIDE, int COUNT> void multiply_group(float (&d)[COUNT][4], u64 a, u64 b)
{
    multiply_together(d, false, 0, a, b, SIDE_BY_SIDE);
}

template <int LEFT, int COUNT> void wait_for_products(float (&)[COUNT][4])
{
    Group& group = my_group();
    auto& mine = fibers[fiber].committed;
    while ((int)mine.size() > LEFT) mine.pop_front();
    if (LEFT == 0) fibers[fiber].fenced = false;            // sums may be read and written
    gather_threads(group.gathering, 128, [&] {
        for (; (int)group.committed.size() > LEFT; group.committed.pop_front())
            for (auto& product : group.committed.front()) product();
    });
}

// --- a launch --------------------------------------------------------------------------------------------------------------------

inline const char* run_grid(int blocks, int threads, int bytes, int wait_late, int seed, std::function<void()> kernel)
{
    shared_bytes = bytes, thread_count = threads, lazy = wait_late, late_products = lazy != (seed & 1), gridDim.x = blocks;
    body = kernel;
    *failure = 0;
    for (int block = 0; block < blocks && !*failure; block++) run_block(block, seed + block);
    return failure;
}

extern "C" {

#if GATHERED
void tile_vector_wise(const u16* x, const unsigned char* images, const int* columns, const int* starts, const int* rows, const u16* bias,
                      const u16* residual, u16* y, long long x_stride, long long residual_stride, long long y_stride,
                      int tokens, int tiles, int token_blocks, int tokens_first);

const char* emulate(int blocks, int threads, int bytes, int wait_late, int seed, const u16* x, const unsigned char* images, const int* columns,
             const int* starts, const int* rows, const u16* bias, const u16* residual, u16* y, long long x_stride,
             long long residual_stride, long long y_stride, int tokens, int tiles, int token_blocks, int tokens_first)
{
    return run_grid(blocks, threads, bytes, wait_late, seed, [=] {
        tile_vector_wise(x, images, columns, starts, rows, bias, residual, y, x_stride, residual_stride, y_stride, tokens, tiles,
                         token_blocks, tokens_first);
    });
}
#else
#if TWO_FOUR
using Weight = const unsigned char*;
#else
using Weight = TensorMap;
#endif

void block_product(const TensorMap x, const Weight values, const TensorMap residuals, const TensorMap results, const int* units,
                   const int* rows, const int* tiles, const u16* bias, const u16* residual, u16* y, long long residual_stride,
                   long long y_stride, int row_count, int tokens, int tile_count, int token_blocks, int width, const float* x_scale,
                   const float* row_scales, const int* halves);
void block_convolution(const TensorMap x, const Weight values, const TensorMap residuals, const TensorMap results, const int* channels,
                       const int* taps, const int* rows, const int* tiles, const u16* bias, const u16* residual, u16* y,
                       long long residual_stride, long long y_stride, int row_count, int tokens, int tile_count, int token_blocks, int width,
                       int out_height, int out_width, int down, int right, int above, int before, const int* halves);

// `lines`: of blocks of W. `shape`: nothing, or images, height and width of x; `corners`: lower, upper and steps, (down, right); `place`: what is behind `width` above.
const char* emulate(int blocks, int threads, int bytes, int wait_late, int seed, const void* x, const void* values, const int* units,
             const int* taps, const int* rows, const int* tiles, const u16* bias, const u16* residual, u16* y, long long x_stride,
             long long residual_stride, long long y_stride, int row_count, int tokens, int columns, int lines, int tile_count, int token_blocks,
             int width, const float* x_scale, const float* row_scales, const int* halves, const int* shape, const int* corners, const int* place)
{
    TensorMap x_map = {x, columns, tokens, x_stride, TOKENS};
    x_map.bytes = sizeof(Number);
#if TWO_FOUR
    const Weight weight = (const unsigned char*)values;
#else
    Weight weight = {values, LINE, lines, LINE, PAIRED ? 64 : 128};
    weight.bytes = sizeof(Number);
#endif
    const TensorMap residual_map = {residual, row_count, tokens, residual_stride, TOKENS}, y_map = {y, row_count, tokens, y_stride, TOKENS};
#ifdef BLOCK_CONVOLUTION
    x_map = {x, columns, 0, x_stride, TOKENS, shape[0], shape[1], shape[2], {corners[1], corners[0]}, {corners[3], corners[2]},
             {corners[5], corners[4]}};
    return run_grid(blocks, threads, bytes, wait_late, seed, [=] {
        block_convolution(x_map, weight, residual_map, y_map, units, taps, rows, tiles, bias, residual, y, residual_stride, y_stride, row_count,
                          tokens, tile_count, token_blocks, width, place[0], place[1], place[2], place[3], place[4], place[5], halves);
    });
#else
    return run_grid(blocks, threads, bytes, wait_late, seed, [=] {
        block_product(x_map, weight, residual_map, y_map, units, rows, tiles, bias, residual, y, residual_stride, y_stride, row_count,
                      tokens, tile_count, token_blocks, width, x_scale, row_scales, halves);
    });
#endif
}
#endif
}
