"""What ``ZELLIGE_DEBUG`` prints, and that nothing is computed when it does not."""

import pytest

from zellige.cpu.debug import ASSEMBLY, IR, PLAN, debug, debug_level
from zellige.errors import ZelligeError


def test_prints_up_to_the_level(monkeypatch, capsys):
    monkeypatch.setenv("ZELLIGE_DEBUG", "3")
    debug(PLAN, "plan", lambda: "first")
    debug(IR, "LLVM IR", lambda: "third")
    debug(ASSEMBLY, "assembly", lambda: pytest.fail("computed for nothing"))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [word in shown.err for word in ("plan", "first", "LLVM IR", "third", "assembly")] == [True] * 4 + [False]


@pytest.mark.parametrize("text", ["", "0", None])
def test_is_silent_unless_asked(monkeypatch, text):
    monkeypatch.delenv("ZELLIGE_DEBUG", raising=False)
    if text is not None:
        monkeypatch.setenv("ZELLIGE_DEBUG", text)
    assert debug_level() == 0
    debug(PLAN, "plan", lambda: pytest.fail("computed for nothing"))


@pytest.mark.parametrize("text", ["yes", "-1", "2.5"])
def test_other_values_are_an_error(monkeypatch, text):
    monkeypatch.setenv("ZELLIGE_DEBUG", text)
    with pytest.raises(ZelligeError, match=f"ZELLIGE_DEBUG must be a number.*{text}"):
        debug_level()
