// From sums to results: floor((sum * multiplier + residual * its multiplier + half) / 2^shift), saturated (zellige/graph/fixed_point.py).
#pragma once

#include "tiles.h"

using Sums = aie::accum<acc32, PIXELS * GROUP>;

constexpr int MOST_SHIFT_32 = 31; // that a sum of 32 bits can be shifted by

inline bool alike(const aie::vector<int32, GROUP> &values) {
    return aie::eq(values, aie::broadcast<int32, GROUP>(values.get(0))).full();
}

// How a group of eight channels is rescaled. `plain`: by shifts alone, alike for all channels; the sums stay in 32 bits.
struct Rescaling {
    aie::vector<int32, GROUP> multiplier, residual, shift;
    bool plain;
    int residual_shift = 0;

    Rescaling(const Packet &packet, unsigned group)
        : multiplier(aie::load_v<GROUP>(packet.multiplier + GROUP * group)), residual(aie::load_v<GROUP>(packet.residual + GROUP * group)),
          shift(aie::load_v<GROUP>(packet.shift + GROUP * group)) {
        const int32 factor = packet.header->inputs == 2 ? residual.get(0) : 1;
        while (residual_shift < MOST_SHIFT_32 - 1 && 1 << residual_shift < factor)
            ++residual_shift;
        plain = shift.get(0) <= MOST_SHIFT_32 && factor == 1 << residual_shift && alike(shift) && multiplier.get(0) == 1 &&
                alike(multiplier) && (packet.header->inputs == 1 || alike(residual));
    }
};

// Of a tile, by 64 bits and whatever shift every channel has: two pixels at a time, once more for each other shift.
inline Values rescale_wide(const Rescaling &by, const Sums &sums, const Values *residual) {
    constexpr unsigned LANES = 2 * GROUP;
    const aie::vector<int32, PIXELS *GROUP> terms = sums.to_vector<int32>(0);
    const aie::vector<int32, LANES> multiplier = aie::concat(by.multiplier, by.multiplier), shift = aie::concat(by.shift, by.shift);
    aie::vector<int32, PIXELS * GROUP> found;
    for (unsigned half = 0; half < 2; ++half) {
        aie::accum<acc64, LANES> total = aie::mul(terms.template extract<LANES>(half), multiplier);
        if (residual) {
            Sums wide;
            wide.from_vector(*residual, 0);
            const aie::vector<int32, PIXELS *GROUP> values = wide.to_vector<int32>(0);
            total = aie::mac(total, values.template extract<LANES>(half), aie::concat(by.residual, by.residual));
        }
        aie::vector<int32, LANES> part = total.template to_vector<int32>(by.shift.get(0));
        for (unsigned channel = 1; channel < GROUP; ++channel) {
            const int32 other = by.shift.get(channel);
            if (other != by.shift.get(channel - 1))
                part = aie::select(part, total.template to_vector<int32>(other), aie::eq(shift, aie::broadcast<int32, LANES>(other)));
        }
        found.insert(half, part);
    }
    Sums narrow;
    narrow.from_vector(found, 0);
    return narrow.to_vector<int8>(0);
}

inline Values rescale(const Rescaling &by, const Sums &sums, const Values *residual) {
    if (!by.plain)
        return rescale_wide(by, sums, residual);
    Sums total = sums;
    if (residual) {
        Sums wide;
        wide.from_vector(*residual, by.residual_shift);
        total = aie::add(sums, wide);
    }
    return total.to_vector<int8>(by.shift.get(0));
}
