// The PTX instructions that the kernels are made of, one function each; names say what they do, comments what PTX calls them.
// Tests run the kernels on a CPU with another file in the place of this one.

#ifndef ZELLIGE_PTX
#define ZELLIGE_PTX

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

__device__ __forceinline__ u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

// --- shared memory ---------------------------------------------------------------------------------------------------------------

__device__ __forceinline__ u32 load_4(u32 address)
{
    u32 word;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(address) : "memory");
    return word;
}

__device__ __forceinline__ uint4 load_16(u32 address)
{
    uint4 words;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w) : "r"(address) : "memory");
    return words;
}

__device__ __forceinline__ void store_4(u32 address, u32 word)
{
    asm volatile("st.shared.b32 [%0], %1;" :: "r"(address), "r"(word) : "memory");
}

__device__ __forceinline__ void store_16(u32 address, uint4 words)
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" :: "r"(address), "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w) : "memory");
}

// ldmatrix.x4.trans: lane l gives the address of a row of 16 bytes, 8 lanes one of four 8 x 8 matrices.
__device__ __forceinline__ uint4 load_matrices_transposed(u32 address)
{
    uint4 words;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w) : "r"(address) : "memory");
    return words;
}

// stmatrix.x4.trans: the same way back.
__device__ __forceinline__ void store_matrices_transposed(u32 address, uint4 words)
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};"
                 :: "r"(address), "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w) : "memory");
}

__device__ __forceinline__ bool all_of_warp(bool one) { return __all_sync(0xffffffffu, one); }

// --- cp.async: 16 bytes from global to shared memory; those past `bytes` become zero ------------------------------------------------

__device__ __forceinline__ void copy_16(u32 target, const void* source, int bytes = 16)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(target), "l"(source), "r"(bytes) : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int LEFT> __device__ __forceinline__ void wait_for_copies() { asm volatile("cp.async.wait_group %0;" :: "n"(LEFT) : "memory"); }

// --- 16-bit numbers --------------------------------------------------------------------------------------------------------------

__device__ __forceinline__ float widen(u16 number)
{
#if BFLOAT16
    return __uint_as_float((u32)number << 16);
#else
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(number));
    return wide;
#endif
}

__device__ __forceinline__ u32 narrow(float low, float high)   // two numbers, rounded to nearest even
{
    u32 pair;
#if BFLOAT16
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#endif
    return pair;
}

__device__ __forceinline__ float fast_tanh(float value)         // off by 2^-11 of itself at most
{
    float found;
    asm("tanh.approx.f32 %0, %1;" : "=f"(found) : "f"(value));
    return found;
}

__device__ __forceinline__ float larger(float a, float b)      // NaN if either is
{
    float c;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
    return c;
}

// --- mma.sp: D (16 x 8) += A (16 x 32, 2:4) times B (32 x 8) --------------------------------------------------------------------------

#if BFLOAT16
#define TYPES ".f32.bf16.bf16.f32"
#else
#define TYPES ".f32.f16.f16.f32"
#endif

template <int SELECTOR>
__device__ __forceinline__ void multiply(float (&d)[4], const uint4& a, const uint4& b, u32 metadata)
{
    asm volatile("mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col" TYPES
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, %13;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y), "r"(b.z), "r"(b.w), "r"(metadata), "n"(SELECTOR));
}

#undef TYPES

// --- Hopper: barriers in shared memory that count arrivals, and bytes of bulk copies (mbarrier, cp.async.bulk) ------------------------

__device__ __forceinline__ void barrier_begin(u32 barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(barrier), "r"(arrivals) : "memory");
}

// After barrier_begin, before __syncthreads: bulk copies and other threads see the barriers.
__device__ __forceinline__ void show_barriers()
{
    asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(u32 barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(barrier) : "memory");
}

// This thread arrives when all cp.async that it has issued so far are done: cp.async.mbarrier.arrive.noinc.
__device__ __forceinline__ void arrive_after_copies(u32 barrier)
{
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" :: "r"(barrier) : "memory");
}

__device__ __forceinline__ void barrier_arrive_expecting(u32 barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" :: "r"(barrier), "r"(bytes) : "memory");
}

// Until the phase of this parity is over. One block alone takes part: to acquire from a cluster would empty the L1 cache each time. Waits take
// microseconds; one of two seconds can only be a mistake, and stops the kernel. How long a try lasts is the hardware's affair.
__device__ __forceinline__ void barrier_wait(u32 barrier, u32 parity)
{
    u32 begin = 0;
    for (u32 tries = 1;; tries++) {
        u32 over, now;
        asm volatile("{\n\t.reg .pred over;\n\t"
                     "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 over, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, over;\n\t}" : "=r"(over) : "r"(barrier), "r"(parity) : "memory");
        if (over) return;
        if (tries % 256) continue;
        asm volatile("mov.u32 %0, %globaltimer_lo;" : "=r"(now));       // nanoseconds
        if (tries == 256) begin = now;
        else if (now - begin > 2000000000u) asm volatile("trap;");
    }
}

__device__ __forceinline__ void copy_bulk(u32 target, const void* source, int bytes, u32 barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 :: "r"(target), "l"(source), "r"(bytes), "r"(barrier) : "memory");
}

// Memory cut into boxes: a matrix, or in im2col mode the pixels of images. What the driver encodes (cuTensorMapEncodeTiled, …Im2col).
struct __align__(64) TensorMap { u64 words[16]; };

// cp.async.bulk.tensor: the box that begins at this column and row; what lies outside of the matrix becomes zero.
__device__ __forceinline__ void copy_box(u32 target, const TensorMap& map, int column, int row, u32 barrier)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
                 :: "r"(target), "l"(&map), "r"(column), "r"(row), "r"(barrier) : "memory");
}

// The same in im2col mode, of images x height x width x channels: 64 channels of so many pixels as the map says, from the one at (left, top, image)
// on, in the order of output pixels, and each moved by (right, down).
__device__ __forceinline__ void copy_pixels(u32 target, const TensorMap& map, int channel, int left, int top, int image, int right, int down,
                                            u32 barrier)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3, %4, %5}], [%6], {%7, %8};"
                 :: "r"(target), "l"(&map), "r"(channel), "r"(left), "r"(top), "r"(image), "r"(barrier), "h"((u16)right), "h"((u16)down) : "memory");
}

// A box of a matrix the other way; what lies outside of the matrix is left out.
__device__ __forceinline__ void send_box(const TensorMap& map, int column, int row, u32 source)
{
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];"
                 :: "l"(&map), "r"(column), "r"(row), "r"(source) : "memory");
}

// Until shared memory of what this thread has sent may be written again.
__device__ __forceinline__ void wait_for_sent_boxes()
{
    asm volatile("cp.async.bulk.commit_group;\n\tcp.async.bulk.wait_group.read 0;" ::: "memory");
}

// What this thread has written to shared memory, or knows to be written, becomes visible to tensor cores and bulk copies that read it on their own.
__device__ __forceinline__ void show_tensor_cores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// --- Hopper: wgmma.mma_async, D (64 x TOKENS) += A times B in shared memory; .sp: A 64 x 32, 2:4, in registers, else 64 x 16 (E4M3: 64 x 32), in shared memory.
// SIDE_BY_SIDE: tokens lie side by side in B, else the numbers that are multiplied, as E4M3 has it always.

// 128 bytes a row, swizzled over 8 rows. B lies token by token in groups of 64, `group_bytes` apart. A has one group: its 64 columns.
__device__ __forceinline__ u64 matrix_descriptor(u32 address, u32 group_bytes)
{
    constexpr u64 SWIZZLE_128 = 1ull << 62, EIGHT_ROWS = 8 * 128;
    return SWIZZLE_128 | EIGHT_ROWS >> 4 << 32 | (u64)(group_bytes >> 4) << 16 | (address & 0x3ffff) >> 4;
}

__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until no more than LEFT groups of products that were committed are under way.
template <int LEFT, int COUNT> __device__ __forceinline__ void wait_for_products(float (&d)[COUNT][4])
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(LEFT) : "memory");
    if constexpr (LEFT == 0) {                   // none is under way, and nothing was read before
#pragma unroll
        for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3]) :: "memory");
    }
}

#if BFLOAT16
#define TYPES ".f32.bf16.bf16"
#else
#define TYPES ".f32.f16.f16"
#endif
#if E4M3                                         // 32 bytes as ever: twice as many numbers, that lie side by side in A and B
#define PLAIN_TYPES "k32.f32.e4m3.e4m3"
#define ORDER(name)
#else
#define PLAIN_TYPES "k16" TYPES
#define ORDER(name) ", 0, " name
#endif
#define D4(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define D16(i) D4(i), D4(i + 1), D4(i + 2), D4(i + 3)
#define D64(i) D16(i), D16(i + 4), D16(i + 8), D16(i + 12)

#define NAMES_64 \
    " %0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31," \
    " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47," \
    " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NAMES_96 NAMES_64 "," \
    " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79," \
    " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define NAMES_128 NAMES_96 "," \
    " %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111," \
    " %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

template <int SELECTOR, int SIDE_BY_SIDE>
__device__ __forceinline__ void multiply_group(float (&d)[16][4], const uint4& a, u64 b, u32 metadata)
{
    asm volatile("{\n\t.reg .pred add;\n\tsetp.eq.b32 add, 0, 0;\n\t"
                 "wgmma.mma_async.sp.sync.aligned.m64n128k32" TYPES " {" NAMES_64 "}, "
                 "{%64, %65, %66, %67}, %68, %69, %70, add, 1, 1, %71;\n\t}"
                 : D64(0) : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "r"(metadata), "n"(SELECTOR), "n"(SIDE_BY_SIDE));
}

template <int SELECTOR, int SIDE_BY_SIDE>
__device__ __forceinline__ void multiply_group(float (&d)[24][4], const uint4& a, u64 b, u32 metadata)
{
    asm volatile("{\n\t.reg .pred add;\n\tsetp.eq.b32 add, 0, 0;\n\t"
                 "wgmma.mma_async.sp.sync.aligned.m64n192k32" TYPES " {" NAMES_96 "}, "
                 "{%96, %97, %98, %99}, %100, %101, %102, add, 1, 1, %103;\n\t}"
                 : D64(0), D16(16), D16(20) : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "r"(metadata), "n"(SELECTOR), "n"(SIDE_BY_SIDE));
}

template <int SELECTOR, int SIDE_BY_SIDE>
__device__ __forceinline__ void multiply_group(float (&d)[32][4], const uint4& a, u64 b, u32 metadata)
{
    asm volatile("{\n\t.reg .pred add;\n\tsetp.eq.b32 add, 0, 0;\n\t"
                 "wgmma.mma_async.sp.sync.aligned.m64n256k32" TYPES " {" NAMES_128 "}, "
                 "{%128, %129, %130, %131}, %132, %133, %134, add, 1, 1, %135;\n\t}"
                 : D64(0), D64(16) : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "r"(metadata), "n"(SELECTOR), "n"(SIDE_BY_SIDE));
}

template <int SIDE_BY_SIDE>
__device__ __forceinline__ void multiply_group(float (&d)[16][4], u64 a, u64 b)
{
    asm volatile("{\n\t.reg .pred add;\n\tsetp.eq.b32 add, 0, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n128" PLAIN_TYPES " {" NAMES_64 "}, %64, %65, add, 1, 1" ORDER("%66") ";\n\t}"
                 : D64(0) : "l"(a), "l"(b), "n"(SIDE_BY_SIDE));
}

template <int SIDE_BY_SIDE>
__device__ __forceinline__ void multiply_group(float (&d)[24][4], u64 a, u64 b)
{
    asm volatile("{\n\t.reg .pred add;\n\tsetp.eq.b32 add, 0, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n192" PLAIN_TYPES " {" NAMES_96 "}, %96, %97, add, 1, 1" ORDER("%98") ";\n\t}"
                 : D64(0), D16(16), D16(20) : "l"(a), "l"(b), "n"(SIDE_BY_SIDE));
}

template <int SIDE_BY_SIDE>
__device__ __forceinline__ void multiply_group(float (&d)[32][4], u64 a, u64 b)
{
    asm volatile("{\n\t.reg .pred add;\n\tsetp.eq.b32 add, 0, 0;\n\t"
                 "wgmma.mma_async.sync.aligned.m64n256" PLAIN_TYPES " {" NAMES_128 "}, %128, %129, add, 1, 1" ORDER("%130") ";\n\t}"
                 : D64(0), D64(16) : "l"(a), "l"(b), "n"(SIDE_BY_SIDE));
}

#undef TYPES
#undef PLAIN_TYPES
#undef ORDER
#undef D4
#undef D16
#undef D64
#undef NAMES_64
#undef NAMES_96
#undef NAMES_128

#endif
