// Tiles: four pixels of a row, of eight channels each, are what a core multiplies at once. Four tiles share a block of weights.
#pragma once

#include "packet.h"

constexpr unsigned PIXELS = 4; // of a tile
constexpr unsigned TILES = 4;  // that are computed together
constexpr unsigned WORD = 32;  // bytes of a load

using Values = aie::vector<int8, PIXELS * GROUP>;

// How a tap's values of some tiles lie in the activations.
enum Reading {
    TOGETHER, // one behind the other: a load more than there are tiles
    PAIRS,    // two by two, where a row has two
    APART     // anywhere
};

struct Pixel {
    int row, column;
};

// Some tiles of a result, the last ones perhaps fewer than there is room for: then the last is there again.
struct Tiles {
    unsigned count = 0;
    Pixel pixel[TILES];    // their first ones
    unsigned place[TILES]; // of these in the activations, in bytes from that of the result's first
    Pixel next;            // behind them
    bool two;              // a row has two tiles

    // The tiles from a pixel on, row by row.
    Tiles(const Header &header, Pixel first) : next(first), two(header.width > int(PIXELS) && header.width <= int(2 * PIXELS)) {
        const unsigned line = header.stride * header.input_groups * header.input_width;
        for (unsigned tile = 0; tile < TILES; ++tile) {
            pixel[tile] = next.row < header.rows ? next : pixel[tile - 1];
            place[tile] = GROUP * (pixel[tile].row * line + pixel[tile].column);
            count += next.row < header.rows;
            next.column += PIXELS;
            if (next.column >= header.width)
                next = {next.row + 1, 0};
        }
    }

    // Whether the tiles are neighbours in one row.
    bool neighbours() const { return count == TILES && pixel[0].row == pixel[TILES - 1].row; }

    // Pixels of a tile that are part of the result.
    unsigned pixels(const Header &header, unsigned tile) const {
        const unsigned left = header.width - pixel[tile].column;
        return left < PIXELS ? left : PIXELS;
    }

    Reading reading() const { return neighbours() ? TOGETHER : two && count > 1 ? PAIRS : APART; }

    // Where a tile lies in results and residuals, [rows][groups][width][8], in bytes.
    unsigned result(const Header &header, unsigned tile, unsigned group) const {
        return GROUP * ((pixel[tile].row * header.groups + group) * header.width + pixel[tile].column);
    }
};

inline unsigned misalignment(const int8 *pointer) { return reinterpret_cast<uintptr_t>(pointer) % WORD; }

// N vectors of values that lie one behind the other from anywhere on: N + 1 loads.
template <unsigned N>
inline void load_run(const int8 *from, Values (&found)[N]) {
    const unsigned shift = misalignment(from);
    Values word = aie::load_v<WORD>(from - shift);
    for (unsigned i = 0; i < N; ++i) {
        const Values next = aie::load_v<WORD>(from - shift + (i + 1) * WORD);
        found[i] = aie::shuffle_down_fill(word, next, shift);
        word = next;
    }
}

// One tile, from its first pixel on.
inline Values load_tile(const int8 *from) {
    Values one[1];
    load_run<1>(from, one);
    return one[0];
}

// What a tap reads for N tiles; `from` is where it reads the first pixel of the result.
template <Reading R, unsigned N>
inline void load_tiles(const Tiles &tiles, const int8 *from, Values (&found)[N]) {
    if constexpr (R == TOGETHER) {
        load_run<N>(from + tiles.place[0], found);
    } else if constexpr (R == PAIRS) {
        for (unsigned tile = 0; tile < N; tile += 2) {
            Values pair[2];
            load_run<2>(from + tiles.place[tile], pair);
            found[tile] = pair[0];
            found[tile + 1] = pair[1];
        }
    } else {
        for (unsigned tile = 0; tile < N; ++tile)
            found[tile] = load_tile(from + tiles.place[tile]);
    }
}

// Write a tile of a group to the result, [rows][groups][width][8], and nothing beside it.
ONE_COPY inline void store_tile(const Header &header, const Tiles &tiles, unsigned tile, unsigned group, Values values, int8 *result) {
    values = aie::min(aie::max(values, aie::broadcast<int8, Values::size()>(header.low)), aie::broadcast<int8, Values::size()>(header.high));
    int8 *to = result + tiles.result(header, tile, group);
    const unsigned pixels = tiles.pixels(header, tile);
    if (pixels == PIXELS) {
        aie::store_unaligned_v(to, values, GROUP);
    } else {
        const aie::vector<int32, PIXELS * 2> halves = values.template cast_to<int32>();
        for (unsigned half = 0; half < 2 * pixels; ++half)
            reinterpret_cast<int32 *>(to)[half] = halves.get(half);
    }
}
