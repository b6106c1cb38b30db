// Maxima of taps, and values looked up in a table: no sums, no rescaling.
#pragma once

#include "tiles.h"

// N tiles of a group: the largest tap, channel by channel.
template <Reading R, unsigned N>
void maximum_tiles(const Packet &packet, const Tiles &tiles, unsigned group, unsigned tap, const int8 *activations, int8 *result) {
    const Header &header = *packet.header;
    Values most[N], values[N];
    load_tiles<R, N>(tiles, activations + GROUP * packet.offsets[tap], most);
    for (unsigned end = tap + packet.counts[group]; ++tap < end;) {
        load_tiles<R, N>(tiles, activations + GROUP * packet.offsets[tap], values);
        for (unsigned tile = 0; tile < N; ++tile)
            most[tile] = aie::max(most[tile], values[tile]);
    }
    for (unsigned tile = 0; tile < N && tile < tiles.count; ++tile)
        store_tile(header, tiles, tile, group, most[tile], result);
}

// A group: every value by itself, in the scalar unit.
inline void look_up(const Packet &packet, unsigned group, unsigned tap, const int8 *activations, int8 *result) {
    const Header &header = *packet.header;
    const int8 *from = activations + GROUP * packet.offsets[tap];
    const unsigned line = header.stride * header.input_groups * header.input_width;
    for (int row = 0; row < header.rows; ++row)
        for (int column = 0; column < header.width; ++column)
            for (unsigned channel = 0; channel < GROUP; ++channel) {
                const int8 found = packet.table[from[GROUP * (row * line + column) + channel] + 128];
                const int8 high = found > header.high ? static_cast<int8>(header.high) : found;
                result[GROUP * ((row * header.groups + group) * header.width + column) + channel] =
                    high < header.low ? static_cast<int8>(header.low) : high;
            }
}
