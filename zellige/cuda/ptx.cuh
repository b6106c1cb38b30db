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

#endif
