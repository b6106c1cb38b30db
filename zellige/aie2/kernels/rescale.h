// From sums to results: floor((sum * multiplier + residual * its multiplier + half) / 2^shift), saturated (zellige/graph/fixed_point.py).
#pragma once

#include "tiles.h"

using Sums = aie::accum<acc32, PIXELS * GROUP>;

// By shifts alone: the sums stay in 32 bits.
inline Values rescale_plain(const Packet &packet, unsigned group, const Sums &sums, const Values *residual) {
    const int32 shift = packet.shift[GROUP * group];
    if (!residual)
        return sums.to_vector<int8>(shift);
    Sums added;
    added.from_vector(*residual, 31 - __builtin_clz(packet.residual[GROUP * group]));
    return aie::add(sums, added).to_vector<int8>(shift);
}

// In 64 bits, by whatever multiplier and shift every channel has: two pixels at a time, once more for each other shift.
inline Values rescale_wide(const Packet &packet, unsigned group, const Sums &sums, const Values *residual) {
    constexpr unsigned LANES = 2 * GROUP;
    const auto twice = [&](const int32 *numbers) {
        const aie::vector<int32, GROUP> once = aie::load_v<GROUP>(numbers + GROUP * group);
        return aie::concat(once, once);
    };
    const aie::vector<int32, LANES> multiplier = twice(packet.multiplier), second = twice(packet.residual), shift = twice(packet.shift);
    const aie::vector<int32, PIXELS *GROUP> terms = sums.to_vector<int32>(0);
    aie::vector<int32, PIXELS *GROUP> values, found;
    if (residual) {
        Sums wide;
        wide.from_vector(*residual, 0);
        values = wide.to_vector<int32>(0);
    }
    for (unsigned half = 0; half < 2; ++half) {
        aie::accum<acc64, LANES> total = aie::mul(terms.template extract<LANES>(half), multiplier);
        if (residual)
            total = aie::mac(total, values.template extract<LANES>(half), second);
        aie::vector<int32, LANES> part = total.template to_vector<int32>(shift.get(0));
        for (unsigned channel = 1; channel < GROUP; ++channel) {
            const int32 other = shift.get(channel);
            if (other != shift.get(channel - 1))
                part = aie::select(part, total.template to_vector<int32>(other), aie::eq(shift, aie::broadcast<int32, LANES>(other)));
        }
        found.insert(half, part);
    }
    Sums narrow;
    narrow.from_vector(found, 0);
    return narrow.to_vector<int8>(0);
}

inline Values rescale(const Packet &packet, unsigned group, const Sums &sums, const Values *residual) {
    return packet.header->plain ? rescale_plain(packet, group, sums, residual) : rescale_wide(packet, group, sums, residual);
}
