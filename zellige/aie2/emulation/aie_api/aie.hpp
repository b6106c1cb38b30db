// The few classes and functions of AMD's AIE API that the kernels use, for any machine that GCC compiles for: names, arguments and
// results as their documentation states them. Vectors are arrays; loops over them are left to the compiler to vectorise. With
// AIE_EMULATION_COUNTS, products, loads of 32 bytes and shuffles are counted. An access to an address that a core's memory can't be
// accessed at, which a chip would not notice, is kept in aie_emulation_misaligned.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

using int8 = std::int8_t;
using uint8 = std::uint8_t;
using int16 = std::int16_t;
using uint16 = std::uint16_t;
using int32 = std::int32_t;
using int64 = std::int64_t;

struct acc32 {
    using type = int32;
};

struct acc64 {
    using type = int64;
};

// What stands for an instruction or a few of a core's: with AIE_EMULATION_APART, calls stay calls, for them to be counted.
#ifdef AIE_EMULATION_APART
#define AIE_API __attribute__((noinline)) inline
#else
#define AIE_API inline
#endif

// The last address that was loaded from or stored to and isn't a multiple of what it should be; nullptr if there is none.
extern "C" {
inline const void *aie_emulation_misaligned __attribute__((used)) = nullptr;
}

namespace aie {

enum class rounding_mode { floor, positive_inf };
enum class saturation_mode { none, saturate };

namespace detail {

#ifdef AIE_EMULATION_COUNTS
struct Counts {
    long products, loads, shuffles;
};
inline Counts counts;
#define AIE_EMULATION_COUNT(what, number) (::aie::detail::counts.what += (number))
#else
#define AIE_EMULATION_COUNT(what, number) ((void)0)
#endif

inline rounding_mode rounding = rounding_mode::floor;
inline saturation_mode saturation = saturation_mode::none;

// Widths of accesses are at most that of a load.
template <unsigned Bytes>
inline void expect_aligned(const void *pointer) {
    constexpr unsigned width = Bytes < 32 ? Bytes : 32;
    if (reinterpret_cast<std::uintptr_t>(pointer) % width)
        aie_emulation_misaligned = pointer;
}

// Shift, round, saturate: what leaves an accumulator.
template <typename T, typename Wide>
inline T srs(Wide value, int shift, bool half_up, bool saturate) {
    Wide found = value >> shift;
    if (half_up && shift > 0)
        found += value >> (shift - 1) & 1;
    if (saturate) {
        found = found < std::numeric_limits<T>::min() ? static_cast<Wide>(std::numeric_limits<T>::min()) : found;
        found = found > std::numeric_limits<T>::max() ? static_cast<Wide>(std::numeric_limits<T>::max()) : found;
    }
    return static_cast<T>(found);
}

} // namespace detail

AIE_API void set_rounding(rounding_mode mode) { detail::rounding = mode; }
AIE_API void set_saturation(saturation_mode mode) { detail::saturation = mode; }

template <typename T, unsigned Elems>
class vector {
  public:
    using value_type = T;

    static constexpr unsigned size() { return Elems; }

    AIE_API T get(unsigned index) const { return data[index]; }

    template <unsigned ElemsOut>
    AIE_API vector<T, ElemsOut> extract(unsigned index) const {
        vector<T, ElemsOut> found;
        std::memcpy(found.data, data + index * ElemsOut, sizeof found.data);
        return found;
    }

    template <unsigned ElemsIn>
    AIE_API vector &insert(unsigned index, const vector<T, ElemsIn> &part) {
        std::memcpy(data + index * ElemsIn, part.data, sizeof part.data);
        return *this;
    }

    template <typename Other>
    AIE_API auto cast_to() const {
        vector<Other, Elems * sizeof(T) / sizeof(Other)> found;
        static_assert(sizeof found.data == sizeof data);
        std::memcpy(found.data, data, sizeof data);
        return found;
    }

    alignas(sizeof(T) * Elems) T data[Elems];
};

template <unsigned Elems>
class mask {
  public:
    bool data[Elems];
};

template <typename Tag, unsigned Elems>
class accum {
  public:
    using storage = typename Tag::type;

    static constexpr unsigned size() { return Elems; }

    template <typename T>
    AIE_API void from_vector(const vector<T, Elems> &values, int shift = 0) {
        for (unsigned i = 0; i < Elems; ++i)
            data[i] = static_cast<storage>(static_cast<std::make_unsigned_t<storage>>(static_cast<storage>(values.data[i])) << shift);
    }

    template <typename T>
    AIE_API vector<T, Elems> to_vector(int shift = 0) const {
        vector<T, Elems> found;
        const bool half_up = detail::rounding == rounding_mode::positive_inf, saturate = detail::saturation == saturation_mode::saturate;
        for (unsigned i = 0; i < Elems; ++i)
            found.data[i] = detail::srs<T>(data[i], shift, half_up, saturate);
        return found;
    }

    alignas(64) storage data[Elems];
};

template <unsigned Elems, typename T>
AIE_API vector<T, Elems> load_v(const T *pointer) {
    AIE_EMULATION_COUNT(loads, sizeof(T) * Elems / 32);
    detail::expect_aligned<sizeof(T) * Elems>(pointer);
    vector<T, Elems> found;
    std::memcpy(found.data, pointer, sizeof found.data);
    return found;
}

template <typename T, unsigned Elems>
AIE_API void store_v(T *pointer, const vector<T, Elems> &values) {
    detail::expect_aligned<sizeof(T) * Elems>(pointer);
    std::memcpy(pointer, values.data, sizeof values.data);
}

template <typename T, unsigned Elems>
AIE_API void store_unaligned_v(T *pointer, const vector<T, Elems> &values, unsigned aligned_elems = 1) {
    if (reinterpret_cast<std::uintptr_t>(pointer) % (aligned_elems * sizeof(T)))
        aie_emulation_misaligned = pointer;
    std::memcpy(pointer, values.data, sizeof values.data);
}

template <typename T, unsigned Elems>
AIE_API vector<T, Elems> broadcast(T value) {
    vector<T, Elems> found;
    for (unsigned i = 0; i < Elems; ++i)
        found.data[i] = value;
    return found;
}

template <typename T, unsigned Elems>
AIE_API vector<T, Elems> zeros() {
    return broadcast<T, Elems>(0);
}

template <typename T, unsigned Elems, typename... Others>
AIE_API auto concat(const vector<T, Elems> &first, const Others &...others) {
    vector<T, Elems *(1 + sizeof...(Others))> found;
    unsigned index = 0;
    found.insert(index++, first);
    (found.insert(index++, others), ...);
    return found;
}

template <typename T, unsigned Elems>
AIE_API vector<T, Elems> shuffle_down_fill(const vector<T, Elems> &values, const vector<T, Elems> &fill, unsigned n) {
    AIE_EMULATION_COUNT(shuffles, 1);
    vector<T, Elems> found;
    const vector<T, 2 *Elems> both = concat(values, fill);
    std::memcpy(found.data, both.data + n, sizeof found.data);
    return found;
}

template <typename T, unsigned Elems>
AIE_API vector<T, Elems> max(const vector<T, Elems> &a, const vector<T, Elems> &b) {
    vector<T, Elems> found;
    for (unsigned i = 0; i < Elems; ++i)
        found.data[i] = a.data[i] > b.data[i] ? a.data[i] : b.data[i];
    return found;
}

template <typename T, unsigned Elems>
AIE_API vector<T, Elems> min(const vector<T, Elems> &a, const vector<T, Elems> &b) {
    vector<T, Elems> found;
    for (unsigned i = 0; i < Elems; ++i)
        found.data[i] = a.data[i] < b.data[i] ? a.data[i] : b.data[i];
    return found;
}

template <typename T, unsigned Elems>
AIE_API mask<Elems> eq(const vector<T, Elems> &a, const vector<T, Elems> &b) {
    mask<Elems> found;
    for (unsigned i = 0; i < Elems; ++i)
        found.data[i] = a.data[i] == b.data[i];
    return found;
}

// Values of `b` where the mask is set, of `a` elsewhere.
template <typename T, unsigned Elems>
AIE_API vector<T, Elems> select(const vector<T, Elems> &a, const vector<T, Elems> &b, const mask<Elems> &where) {
    vector<T, Elems> found;
    for (unsigned i = 0; i < Elems; ++i)
        found.data[i] = where.data[i] ? b.data[i] : a.data[i];
    return found;
}

template <unsigned Elems>
AIE_API accum<acc64, Elems> mul(const vector<int32, Elems> &a, const vector<int32, Elems> &b) {
    accum<acc64, Elems> found;
    for (unsigned i = 0; i < Elems; ++i)
        found.data[i] = static_cast<int64>(a.data[i]) * b.data[i];
    return found;
}

template <unsigned Elems>
AIE_API accum<acc64, Elems> mac(const accum<acc64, Elems> &sum, const vector<int32, Elems> &a, const vector<int32, Elems> &b) {
    accum<acc64, Elems> found;
    for (unsigned i = 0; i < Elems; ++i)
        found.data[i] = sum.data[i] + static_cast<int64>(a.data[i]) * b.data[i];
    return found;
}

template <typename Tag, unsigned Elems>
AIE_API accum<Tag, Elems> add(const accum<Tag, Elems> &a, const accum<Tag, Elems> &b) {
    accum<Tag, Elems> found;
    for (unsigned i = 0; i < Elems; ++i)
        found.data[i] = a.data[i] + b.data[i];
    return found;
}

// C[M][N] += A[M][K] · B[K][N], row by row: a row of C is one vector of the machine.
template <unsigned M, unsigned K, unsigned N, typename TypeA, typename TypeB>
class mmul {
    static_assert(std::is_same_v<TypeA, int8> && std::is_same_v<TypeB, int8>, "only int8 is emulated");

  public:
    using accum_type = accum<acc32, M * N>;

    mmul() = default;
    AIE_API mmul(const accum_type &start) : sums(start) {}

    AIE_API void mac(const vector<TypeA, M * K> &a, const vector<TypeB, K * N> &b) {
        AIE_EMULATION_COUNT(products, 1);
        typedef int32 Wide __attribute__((vector_size(4 * N)));
        typedef TypeB Narrow __attribute__((vector_size(N)));
        Wide rows[K];
        for (unsigned k = 0; k < K; ++k) {
            Narrow row;
            std::memcpy(&row, b.data + k * N, sizeof row);
            rows[k] = __builtin_convertvector(row, Wide);
        }
        for (unsigned m = 0; m < M; ++m) {
            Wide sum;
            std::memcpy(&sum, sums.data + m * N, sizeof sum);
            for (unsigned k = 0; k < K; ++k)
                sum += rows[k] * static_cast<int32>(a.data[m * K + k]);
            std::memcpy(sums.data + m * N, &sum, sizeof sum);
        }
    }

    AIE_API accum_type to_accum() const { return sums; }

    template <typename T>
    AIE_API vector<T, M * N> to_vector(int shift = 0) const {
        return sums.template to_vector<T>(shift);
    }

  private:
    accum_type sums;
};

} // namespace aie
