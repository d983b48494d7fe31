"""What several test files share: building it takes seconds."""

import signal

import pytest
import torch
from cli_runs import Chain, run_chain


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Where the tests run in the background of a shell, Ctrl-C is ignored, and so it would be in what they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors: more threads only wait for each other where the cores are busy."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A workspace with the whole chain behind it; tests that change it take a copy."""
    return run_chain(tmp_path_factory.mktemp("chain"))
