// Products and sums: taps of a group, added up in accumulators that tiles share blocks of weights for.
#pragma once

#include "rescale.h"

using Product = aie::mmul<PIXELS, GROUP, GROUP, int8, int8>;
using Block = aie::vector<int8, GROUP * GROUP>;

// The block that adds values channel by channel.
alignas(ALIGNMENT) inline constexpr int8 IDENTITY[GROUP * GROUP] = {
    1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0,
    0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1};

// Where sums of a tile wait between parts.
inline int32 *waiting_place(const Header &header, const Tiles &tiles, unsigned tile, unsigned group, int32 *accumulators) {
    const Pixel first = tiles.pixel[tile];
    return accumulators + GROUP * ((group * header.rows + first.row) * header.width + first.column);
}

// What sums of a tile start from: bias, or what the part before left. One copy of the code for all readings, as of `finish`.
ONE_COPY inline Sums start(const Packet &packet, const Tiles &tiles, unsigned tile, unsigned group, int32 *accumulators) {
    const Header &header = *packet.header;
    Sums sums;
    if (header.first) {
        const aie::vector<int32, GROUP> bias = aie::load_v<GROUP>(packet.bias + GROUP * group);
        sums.from_vector(aie::concat(bias, bias, bias, bias), 0);
    } else {
        const int32 *waiting = waiting_place(header, tiles, tile, group, accumulators);
        aie::vector<int32, PIXELS * GROUP> found = aie::zeros<int32, PIXELS * GROUP>();
        for (unsigned pixel = 0; pixel < tiles.pixels(header, tile); ++pixel)
            found.insert(pixel, aie::load_v<GROUP>(waiting + GROUP * pixel));
        sums.from_vector(found, 0);
    }
    return sums;
}

// What becomes of sums of a tile: results, or they wait for the next part.
ONE_COPY inline void finish(const Packet &packet, const Tiles &tiles, unsigned tile, unsigned group, const Sums &sums,
                              const int8 *residual, int8 *result, int32 *accumulators) {
    const Header &header = *packet.header;
    if (header.last) {
        Values added;
        if (residual)
            added = load_tile(residual + tiles.result(header, tile, group));
        store_tile(header, tiles, tile, group, rescale(packet, group, sums, residual ? &added : nullptr), result);
    } else {
        int32 *waiting = waiting_place(header, tiles, tile, group, accumulators);
        const aie::vector<int32, PIXELS *GROUP> found = sums.to_vector<int32>(0);
        for (unsigned pixel = 0; pixel < tiles.pixels(header, tile); ++pixel)
            aie::store_v(waiting + GROUP * pixel, found.template extract<GROUP>(pixel));
    }
}

// N tiles of a group.
template <Operation O, Reading R, unsigned N>
void sum_tiles(const Packet &packet, const Tiles &tiles, unsigned group, unsigned tap, const int8 *activations, const int8 *residual,
               int8 *result, int32 *accumulators) {
    Product products[N];
    for (unsigned tile = 0; tile < N; ++tile)
        products[tile] = Product(start(packet, tiles, tile, group, accumulators));
    Block block = aie::load_v<GROUP * GROUP>(IDENTITY);
    for (unsigned end = tap + packet.counts[group]; tap < end; ++tap) {
        if constexpr (O == PRODUCT)
            block = aie::load_v<GROUP * GROUP>(packet.blocks + GROUP * GROUP * tap);
        Values values[N];
        load_tiles<R, N>(tiles, activations + GROUP * packet.offsets[tap], values);
        for (unsigned tile = 0; tile < N; ++tile)
            products[tile].mac(values[tile], block);
    }
    for (unsigned tile = 0; tile < N && tile < tiles.count; ++tile)
        finish(packet, tiles, tile, group, products[tile].to_accum(), residual, result, accumulators);
}
