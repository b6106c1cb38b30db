"""Test settings: one deterministic hypothesis profile, a longer one for ``make test-all``, a cache of their own."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined, Triton's own functions too: before anything imports triton
common = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("quick", max_examples=25, **common)
settings.register_profile("full", max_examples=400, **common)
settings.load_profile("full" if os.environ.get("ZELLIGE_FULL") else "quick")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Random weights are the same whichever tests ran before, and in whichever process."""
    import torch  # which may import Triton: after what is set above

    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def machine_code_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Machine code goes to a directory of this run alone: tests neither use the user's cache nor leave anything in it. Processes
    that share out the tests share it too.
    """
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "machine-code"
    directory.mkdir(mode=0o700, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZELLIGE_CACHE", str(directory))
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Full-size tests run under ``make test-all`` alone; a quick run deselects them, and says how many."""
    if os.environ.get("ZELLIGE_FULL"):
        return
    full = [item for item in items if item.get_closest_marker("full")]
    if full:
        config.hook.pytest_deselected(items=full)
        items[:] = [item for item in items if not item.get_closest_marker("full")]
