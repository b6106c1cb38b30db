// The kernel of every core: one step of the packet at hand. What it must compute is defined by zellige/aie2/step.py.
//
// It may read up to 31 bytes before and 96 after what a tap or a residual needs, within the tile's memory, and uses none of that.

#include "moves.h"
#include "sums.h"

namespace {

// Call `body` with a reading and a number of tiles that are known when it is compiled: four tiles, or one alone.
template <typename Body>
void with_reading(const Tiles &tiles, Body body) {
    constexpr std::integral_constant<unsigned, TILES> four;
    const Reading reading = tiles.reading();
    if (reading == TOGETHER)
        body(std::integral_constant<Reading, TOGETHER>(), four);
    else if (reading == PAIRS)
        body(std::integral_constant<Reading, PAIRS>(), four);
    else if (tiles.count > 1)
        body(std::integral_constant<Reading, APART>(), four);
    else
        body(std::integral_constant<Reading, APART>(), std::integral_constant<unsigned, 1>());
}

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
        with_reading(tiles, [&](auto reading, auto number) {
            unsigned tap = 0;
            for (int group = 0; group < header.groups; tap += packet.counts[group++]) {
                if (header.operation == MAXIMUM)
                    maximum_tiles<reading(), number()>(packet, tiles, group, tap, activations, result);
                else if (header.operation == SUM)
                    sum_tiles<SUM, reading(), number()>(packet, tiles, group, tap, activations, residual, result, accumulators);
                else
                    sum_tiles<PRODUCT, reading(), number()>(packet, tiles, group, tap, activations, residual, result, accumulators);
            }
        });
    }
}
