"""Views, slices, joins and what is written into them equal PyTorch's."""

import torch
import torch.nn.functional as F
from against_torch import Calls, assert_equal_to_torch, few, random
from hypothesis import given
from hypothesis import strategies as st


def test_views():
    model = Calls(
        flatten=lambda x: x.flatten(1), part=lambda x: x.flatten(1, 2), view=lambda x: x.view(2, -1, 5),
        unflatten=lambda x: x.unflatten(1, (2, 3)), unsqueeze=lambda x: x[:, None], last=lambda x: x.unsqueeze(-1),
        squeeze=lambda x: x[:, :1].squeeze(1), squeeze_all=lambda x: x[:1, :1].squeeze(), kept=lambda x: x.squeeze(0),
        permute=lambda x: x.permute(0, 2, 3, 1), transpose=lambda x: x.transpose(1, -1), matrix=lambda x: x[0, 0].t(),
        swapped=lambda x: x.mT, moved=lambda x: x.movedim(1, -1),
        contiguous=lambda x: x.transpose(1, 2).contiguous().view(2, -1),
        channels_last=lambda x: x.contiguous(memory_format=torch.channels_last) + 1,
        like=lambda x: x.reshape_as(x.transpose(0, 1)), same=lambda x: x.view_as(x))
    assert_equal_to_torch(model, random(2, 6, 4, 5))


def test_pieces_and_joins():
    model = Calls(
        steps=lambda x: x[:, 1:6:2, 2:-1], ends=lambda x: x[..., -3:], beyond=lambda x: x[:, 2:99], one=lambda x: x[1],
        last=lambda x: x[:, -1], chunk=lambda x: x.chunk(4, 1), split=lambda x: torch.split(x, [2, 4], 1),
        even=lambda x: x.split(2, 1)[1], thirds=lambda x: torch.tensor_split(x, 4, 1), unbind=lambda x: x.unbind(2),
        narrow=lambda x: x.narrow(1, 2, 3), join=lambda x: torch.cat([x, x[:, :1], -x], 1),
        stack=lambda x: torch.stack([x, x + 1], 1), rows=lambda x: torch.cat([x, x], -2), repeat=lambda x: x.repeat(2, 1, 3, 1),
        deeper=lambda x: x.repeat(2, 1, 1, 1, 1), order=lambda x: x[:, [2, 1, 0, 3, 4]], flip=lambda x: x.flip(1, 3),
        roll=lambda x: x.roll((1, -2), (1, 3)), chosen=lambda x: x.index_select(-1, torch.tensor([0, 1, 4])),
        with_zeros=lambda x: torch.cat([x, x.new_zeros(2, 1, 4, 5)], 1), only=lambda x: torch.cat([x], 1))
    assert_equal_to_torch(model, random(2, 6, 4, 5))


def test_pieces_without_elements():
    """They take part in what PyTorch computes, and leave no node."""
    model = Calls(
        split=lambda x: x.split([0, 6], 1)[1], joined=lambda x: torch.cat(x.split([2, 0, 4], 1)[::-1], 1),
        slices=lambda x: torch.cat([x[:, 3:3], x], 1), computed=lambda x: torch.cat([F.relu(x[:, :0] + 1), x[:, 4:]], 1),
        sum=lambda x: x + x[:, :0].sum(1, keepdim=True), convolved=lambda x: torch.cat([x, F.avg_pool2d(x[:0], 1)]))
    graph = assert_equal_to_torch(model, random(2, 6, 4, 5))
    assert sorted({node.op for node in graph}) == ["add", "concat", "reshape", "slice"]


def test_shuffles():
    model = Calls(
        channels=lambda x: F.channel_shuffle(x, 4),
        by_hand=lambda x: x.view(2, 2, 4, 4, 6).transpose(1, 2).contiguous().view(2, 8, 4, 6),
        pixels=lambda x: F.pixel_shuffle(x, 2), back=lambda x: F.pixel_unshuffle(x, 2),
        unbatched=lambda x: F.pixel_shuffle(x[0], 2))
    assert_equal_to_torch(model, random(2, 8, 4, 6))


def written(x, where, value):
    result = x * 1
    result[where] = value
    return result


def first_half_rectified(x):
    result = x + 1
    result[:, :3].relu_()
    return result * 2


def test_writes_in_place():
    model = Calls(
        slice=lambda x: written(x, (slice(None), slice(1, 3)), 0.5), select=lambda x: written(x, (slice(None), 2), -1.0),
        tensor=lambda x: written(x, (slice(None), slice(2, 4)), x[:, :2]), view=first_half_rectified,
        broadcast=lambda x: written(x, (slice(None), slice(0, 2)), x[:, :1]), chain=lambda x: x.add(1).mul_(2).relu_())
    assert_equal_to_torch(model, random(2, 6, 3, 3))


def halves_exchanged(x, place):
    """Memory that nothing was written to, filled piece by piece."""
    place[:, :3], place[:, 3:] = x[:, 3:], -x[:, :3]
    return place


def test_memory_that_nothing_was_written_to():
    """What lies there enters no graph as a constant: PyTorch fills it with NaN here."""
    model = Calls(
        plain=lambda x: halves_exchanged(x, torch.empty(2, 6, 3, 3, dtype=x.dtype)),
        like=lambda x: halves_exchanged(x, torch.empty_like(x)), new=lambda x: halves_exchanged(x, x.new_empty(2, 6, 3, 3)),
        strided=lambda x: halves_exchanged(x, torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)),
        again=lambda x: halves_exchanged(x, x.new_empty_strided(x.shape, x.stride())),
        permuted=lambda x: halves_exchanged(x, torch.empty_permuted(x.shape, (0, 2, 3, 1), dtype=x.dtype)))
    assert torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    try:
        graph = assert_equal_to_torch(model, random(2, 6, 3, 3))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(not array.any() for array in graph.constants.values())


@few
@given(data=st.data())
def test_slices(data):
    shape = (3, 7, 5)
    bounds = []
    for size in shape:
        start = data.draw(st.integers(-size, size - 1))
        stop = data.draw(st.integers(start % size + 1, size + 2))
        bounds.append(slice(start, stop, data.draw(st.integers(1, 3))))
    assert_equal_to_torch(Calls(result=lambda x: x[tuple(bounds)]), random(*shape))
