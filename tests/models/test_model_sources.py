"""Every source of models gives a network in eval mode with inputs that fit it, or an error that helps."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from stand_in import tiny_network
from torch import nn

from zellige.errors import FileFormatError, ZelligeError
from zellige.models import resolve, warm_statistics
from zellige.models.named import Request
from zellige.models.weights import load_weights, save_weights

FACTORIES = """
import torch
from torch import nn

def network():
    return nn.Linear(4, 2)

def with_inputs():
    return nn.Linear(4, 2), (torch.ones(3, 4),)

def nonsense():
    return 5

def greedy(argument):
    return nn.Linear(4, 2)

def failing():
    return {}["no such key"]

def no_inputs():
    return nn.Linear(4, 2), ()

def a_word():
    return nn.Linear(4, 2), ("x",)

def a_number():
    return nn.Linear(4, 2), 5

def scalar():
    return nn.ReLU(), torch.ones(())
"""


@pytest.mark.parametrize(
    ("name", "shape"), [("torchvision:resnet18", (2, 3, 224, 224)), ("timm:resnet10t", (2, 3, 176, 176))]
)
def test_libraries_give_seeded_networks_at_their_own_size(name: str, shape: tuple[int, ...]) -> None:
    first, second = resolve(name, batch=2), resolve(name, batch=2)
    assert not first.model.training
    assert first.random_weights and first.weights == "random (seed 0)"
    assert first.example_inputs[0].shape == shape
    assert torch.equal(first.example_inputs[0], second.example_inputs[0])
    other = second.model.state_dict()
    assert all(torch.equal(tensor, other[key]) for key, tensor in first.model.state_dict().items())


def test_inception_sees_larger_images_and_a_shape_can_be_asked_for() -> None:
    from zellige.models.libraries import LARGER_IMAGES

    assert LARGER_IMAGES["inception_v3"] == (3, 299, 299)
    assert resolve("torchvision:squeezenet1_1", shape=(3, 64, 96)).example_inputs[0].shape == (1, 3, 64, 96)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    resolve("torchvision:squeezenet1_1", shape=(3, 64, 64))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet5", "did you mean resnet50"),
        ("timm:resnet5000", "timm has no model"),
        ("resnet50", "unknown model 'resnet50': expected torchvision:resnet50"),
        ("torchvision:", "unknown model"),
        ("nowhere.pt2", "there is no file nowhere.pt2"),
        ("python:json", "expected python:PACKAGE.MODULE:FUNCTION"),
        ("python:no_such_module:build", "no_such_module can't be imported"),
        ("python:json:no_such_function", "has no function 'no_such_function'"),
    ],
)
def test_unknown_names_are_clear_errors(name: str, message: str) -> None:
    with pytest.raises(ZelligeError, match=message):
        resolve(name)


def test_batches_must_have_samples() -> None:
    with pytest.raises(ZelligeError, match="at least 1"):
        resolve("torchvision:resnet18", batch=0)


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, under a name of its own."""
    (tmp_path / "my_networks.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_networks", raising=False)
    return "python:my_networks"


def test_factories_from_the_working_directory(factories: str) -> None:
    assert resolve(f"{factories}:with_inputs").example_inputs[0].shape == (3, 4)
    assert resolve(f"{factories}:network", batch=5, shape=(4,)).example_inputs[0].shape == (5, 4)
    assert not resolve(f"{factories}:with_inputs").model.training


def test_factories_that_do_not_fit(factories: str) -> None:
    with pytest.raises(ZelligeError, match="gave int; expected"):
        resolve(f"{factories}:nonsense")
    with pytest.raises(ZelligeError, match="--shape"):
        resolve(f"{factories}:network")
    with pytest.raises(ZelligeError, match="batch 3, not 2"):
        resolve(f"{factories}:with_inputs", batch=2)
    with pytest.raises(ZelligeError, match="batch 1, not 2"):
        resolve(f"{factories}:scalar", batch=2)
    assert resolve(f"{factories}:scalar").example_inputs[0].shape == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("greedy", "failed, called without arguments: TypeError: greedy.. missing 1 required positional argument"),
        ("failing", "failed, called without arguments: KeyError: 'no such key'"),
        ("no_inputs", "gave .. as example inputs; expected a tensor, or a tuple of tensors"),
        ("a_word", "gave .'x',. as example inputs; expected a tensor, or a tuple of tensors"),
        ("a_number", "gave 5 as example inputs; expected a tensor, or a tuple of tensors"),
    ],
)
def test_factories_that_fail(factories: str, name: str, message: str) -> None:
    with pytest.raises(ZelligeError, match=f"{factories}:{name} {message}"):
        resolve(f"{factories}:{name}")


def test_a_module_that_fails_when_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_faults.py").write_text("def build(:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ZelligeError, match="my_faults can't be imported: SyntaxError"):
        resolve("python:my_faults:build")


def test_exported_programs_keep_their_shapes(tmp_path: Path) -> None:
    model, x = tiny_network(), torch.randn(2, 3, 16, 16)
    path = tmp_path / "tiny.pt2"
    torch.export.save(torch.export.export(model, (x,)), path)
    named = resolve(str(path))
    assert torch.equal(named.example_inputs[0], x)
    assert torch.allclose(named.model(x), model(x))
    assert "tiny.pt2" in named.weights and not named.random_weights
    with pytest.raises(ZelligeError, match="export it again"):
        resolve(str(path), batch=3)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ZelligeError, match="can't be read as an exported program"):
        resolve(str(path))


def test_exported_programs_without_inputs(tmp_path: Path) -> None:
    class Constant(nn.Module):
        def forward(self) -> torch.Tensor:
            return torch.ones(1)

    torch.export.save(torch.export.export(Constant(), ()), tmp_path / "constant.pt2")
    with pytest.raises(ZelligeError, match="takes no inputs"):
        resolve(str(tmp_path / "constant.pt2"))


@given(st.binary(max_size=40))
def test_no_bytes_are_read_as_weights(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.pt"
    for start in (b"", b"\x80\x02", b"PK\x03\x04"):
        path.write_bytes(start + content)
        with pytest.raises(FileFormatError, match=r"bytes\.pt (can't be read as weights|holds no state dict)"):
            load_weights(nn.Linear(1, 1), path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_come_back_from_a_file(tmp_path: Path, suffix: str) -> None:
    saved, path = tiny_network(), tmp_path / f"weights{suffix}"
    with torch.no_grad():
        saved[0].weight.mul_(3)
    if suffix == ".pt":
        torch.save(saved.state_dict(), path)
    else:
        assert save_weights(saved, path, {"weights": "random (seed 0)"}) == path.stat().st_size
    fresh = tiny_network()
    said = load_weights(fresh, path)
    assert path.name in said and ("random (seed 0)" in said) == (suffix == ".safetensors")
    assert all(torch.equal(tensor, fresh.state_dict()[key]) for key, tensor in saved.state_dict().items())


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    """In whatever order notes were given, and whichever process writes them."""
    model, notes = tiny_network(), {"weights": "random", "model": "tiny", "é": "ü", "a": "1", "z": "2"}
    save_weights(model, tmp_path / "one.safetensors", notes)
    save_weights(model, tmp_path / "other.safetensors", dict(reversed(notes.items())))
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "other.safetensors").read_bytes()
    with safe_open(tmp_path / "one.safetensors", "pt") as file:
        assert file.metadata() == notes
    assert all(torch.equal(tensor, load_file(tmp_path / "one.safetensors")[key]) for key, tensor in model.state_dict().items())


def test_weights_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    model = tiny_network()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state = dict(before)
    wrong_shape = {**state, "0.bias": torch.zeros(3)}
    for broken, message in (
        ({**wrong_shape}, r"0.bias has shape \(3,\), expected \(16,\)"),
        ({key: value for key, value in state.items() if key != "0.bias"}, "1 tensors are missing .such as 0.bias"),
        ({**state, "extra": torch.zeros(1)}, "1 are unknown .such as extra"),
    ):
        torch.save(broken, tmp_path / "broken.pt")
        with pytest.raises(ZelligeError, match=message):
            load_weights(model, tmp_path / "broken.pt")
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('pickles must not run')",))


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    torch.save({"weight": Payload()}, tmp_path / "pickle.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    save_weights(nn.Linear(1, 1), tmp_path / "safetensors.pt")
    for name, content in (("empty.pt", b""), ("words.pt", b"hello"), ("empty.safetensors", b"")):
        (tmp_path / name).write_bytes(content)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(FileFormatError, match=rf"{path.name} (can't be read as weights: |holds no state dict)") as caught:
            load_weights(nn.Linear(1, 1), path)
        assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ZelligeError, match="there is no weights file"):
        load_weights(nn.Linear(1, 1), tmp_path / "nowhere.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_bit_that_flipped_in_weights_is_noticed(tmp_path: Path, legacy: bool) -> None:
    """PyTorch's reader compares no checksums; files of its old format have none."""
    model, path = tiny_network(), tmp_path / "weights.pt"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    content = bytearray(path.read_bytes())
    content[content.index(model.state_dict()["0.bias"].numpy().tobytes())] ^= 1
    path.write_bytes(content)
    if legacy:
        load_weights(model, path)
        return
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(FileFormatError, match=r"weights\.pt can't be read as weights: .* doesn't have its checksum any more"):
        load_weights(model, path)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_an_unwritable_place_leaves_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(ZelligeError, match="can't save"):
        save_weights(nn.Linear(1, 1), tmp_path / "no" / "such" / "place.safetensors")


def test_statistics_make_batch_norms_normal() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    ).eval()
    example = (torch.randn(1, 3, 32, 32),)
    assert warm_statistics(model, example) == 2
    samples = torch.randn((4, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    out = model(samples)
    assert torch.allclose(out.mean((0, 2, 3)), torch.zeros(8), atol=1e-3)
    assert torch.allclose(out.var((0, 2, 3)), torch.ones(8), atol=1e-2)
    assert not any(module.training for module in model.modules())
    assert {module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}


def test_an_error_in_the_pass_leaves_modes_as_they_were() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Linear(7, 1)).eval()
    with pytest.raises(RuntimeError):
        warm_statistics(model, (torch.randn(1, 3, 4, 4),))
    assert not model[0].training and model[0].momentum == 0.1


def test_examples_are_seeded_and_shaped() -> None:
    first, second = Request("x", batch=3).example((2, 5)), Request("x", batch=3, seed=1).example((2, 5))
    assert first.shape == (3, 2, 5) and not torch.equal(first, second)
    assert torch.equal(first, Request("x", batch=3).example((2, 5)))


def test_a_shape_that_the_network_does_not_take() -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(ZelligeError, match=r"torchvision:resnet18 doesn't run on inputs of 1×1×3×64×64 .* Expected 3D"):
        resolve("torchvision:resnet18", shape=(1, 3, 64, 64))
