// What a core is told to do: a packet, part by part, as zellige/aie2/packet.py lays it out.
#pragma once

#include <aie_api/aie.hpp>

constexpr unsigned GROUP = 8;      // channels that lie side by side
constexpr unsigned ALIGNMENT = 32; // bytes; parts start at multiples

// Functions of which program memory should hold one copy, though they are called from several places.
#define ONE_COPY __attribute__((noinline))

enum Operation { PRODUCT, SUM, MAXIMUM, TABLE };

struct Header {
    int32 size, operation, steps, terms, results, groups, rows, width, input_groups, input_width, stride, first, last, low, high;
    int32 plain; // all sums are rescaled by shifts alone, alike for the eight channels of a group, and within 32 bits
};

struct Packet {
    const Header *header;
    const uint16 *counts;                             // of a group's taps
    const int32 *bias, *multiplier, *residual, *shift; // [groups][8]
    const int8 *table;
    const uint16 *offsets;
    const int8 *blocks; // [taps][8 inputs][8 outputs]

    explicit Packet(const uint8 *raw) : header(reinterpret_cast<const Header *>(raw)) {
        const unsigned groups = header->groups;
        unsigned at = sizeof(Header);
        const auto take = [&](unsigned bytes) {
            const uint8 *part = raw + at;
            at = (at + bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
            return part;
        };
        counts = reinterpret_cast<const uint16 *>(take(2 * groups));
        const bool sums = header->operation == PRODUCT || header->operation == SUM;
        const unsigned rescaled = sums && header->last ? 4 * GROUP * groups : 0;
        bias = reinterpret_cast<const int32 *>(take(sums && header->first ? 4 * GROUP * groups : 0));
        multiplier = reinterpret_cast<const int32 *>(take(rescaled));
        residual = reinterpret_cast<const int32 *>(take(header->terms == 2 ? rescaled : 0));
        shift = reinterpret_cast<const int32 *>(take(rescaled));
        table = reinterpret_cast<const int8 *>(take(header->operation == TABLE ? 256 : 0));
        unsigned taps = 0;
        for (unsigned group = 0; group < groups; ++group)
            taps += counts[group];
        offsets = reinterpret_cast<const uint16 *>(take(2 * taps));
        blocks = reinterpret_cast<const int8 *>(take(0));
    }
};
