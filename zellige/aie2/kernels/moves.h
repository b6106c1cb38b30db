// Maxima of taps, and values looked up in a table: no sums, no rescaling.
#pragma once

#include "tiles.h"

// N tiles of a group: the largest tap, channel by channel.
template <Reading R, unsigned N>
void maximum_tiles(const Packet &packet, const Tiles &tiles, unsigned group, unsigned tap, const int8 *activations, const int8 *,
                   int8 *result, int32 *) {
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

// Every value by itself, in the scalar unit; groups have one tap each.
inline void look_up(const Packet &packet, const int8 *activations, int8 *result) {
    const Header &header = *packet.header;
    const unsigned line = header.stride * header.input_groups * header.input_width;
    for (int row = 0; row < header.rows; ++row)
        for (int group = 0; group < header.groups; ++group) {
            const int8 *from = activations + GROUP * (packet.offsets[group] + row * line);
            for (unsigned value = 0; value < GROUP * header.width; ++value) {
                const int8 found = packet.table[*from++ + 128];
                const int8 high = found > header.high ? static_cast<int8>(header.high) : found;
                *result++ = high < header.low ? static_cast<int8>(header.low) : high;
            }
        }
}
