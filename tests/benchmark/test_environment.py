"""What a run ran on."""

from __future__ import annotations

import platform
from importlib.metadata import version

import pytest
import torch

from peftmark.benchmark.environment import environment, find_device
from peftmark.errors import PeftmarkError


def test_environment() -> None:
    env = environment(torch.device("cpu"), "ab" * 32)
    assert env.hardware_class.startswith("cpu:")
    assert len(env.hardware_class) > len("cpu:")
    assert (env.device, env.torch, env.python) == ("cpu", torch.__version__, platform.python_version())
    assert env.packages["timm"] == version("timm")
    assert env.packages["peftmark"] == version("peftmark")
    assert env.threads == torch.get_num_threads()
    assert env.data_sha256 == "ab" * 32
    assert (env.git_sha is None) == (env.dirty is None)
    assert env.git_sha is None or len(env.git_sha) == 40


def test_devices() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("nothing", "cuda:99"):
        with pytest.raises(PeftmarkError, match=f"no device '{name}' here ") as error:
            find_device(name)
        assert "\n" not in str(error.value)
