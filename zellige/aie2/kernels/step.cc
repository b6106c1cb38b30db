// The kernel of every core: one step of the packet at hand. What it must compute is defined by zellige/aie2/step.py.
//
// It may read up to 31 bytes before and 96 after what a tap or a residual needs, within the tile's memory, and uses none of that.

#include "moves.h"
#include "sums.h"

namespace {

// How some tiles of a group are computed: by operation; then by reading, four tiles at a time, or one alone.
using Compute = void (*)(const Packet &, const Tiles &, unsigned group, unsigned tap, const int8 *activations, const int8 *residual,
                         int8 *result, int32 *accumulators);
constexpr Compute COMPUTE[][4] = {
    {sum_tiles<PRODUCT, TOGETHER, TILES>, sum_tiles<PRODUCT, PAIRS, TILES>, sum_tiles<PRODUCT, APART, TILES>, sum_tiles<PRODUCT, APART, 1>},
    {sum_tiles<SUM, TOGETHER, TILES>, sum_tiles<SUM, PAIRS, TILES>, sum_tiles<SUM, APART, TILES>, sum_tiles<SUM, APART, 1>},
    {maximum_tiles<TOGETHER, TILES>, maximum_tiles<PAIRS, TILES>, maximum_tiles<APART, TILES>, maximum_tiles<APART, 1>},
};
constexpr unsigned ALONE = 3;
static_assert(PRODUCT == 0 && SUM == 1 && MAXIMUM == 2 && TOGETHER == 0 && PAIRS == 1 && APART == 2);

} // namespace

extern "C" void step(const uint8 *raw, const int8 *object, int8 *result, int32 *accumulators) {
    aie::set_rounding(aie::rounding_mode::positive_inf);
    aie::set_saturation(aie::saturation_mode::saturate);
    const Packet packet(raw);
    const Header &header = *packet.header;
    if (header.operation == TABLE)
        return look_up(packet, object, result);
    const int8 *residual = header.terms == 2 ? object : nullptr;
    const int8 *activations = object + (residual ? GROUP * header.rows * header.groups * header.width : 0);
    for (Pixel first = {0, 0}; first.row < header.rows;) {
        const Tiles tiles(header, first);
        first = tiles.next;
        const Compute compute = COMPUTE[header.operation][tiles.count == 1 ? ALONE : tiles.reading()];
        unsigned tap = 0;
        for (int group = 0; group < header.groups; tap += packet.counts[group++])
            compute(packet, tiles, group, tap, activations, residual, result, accumulators);
    }
}
