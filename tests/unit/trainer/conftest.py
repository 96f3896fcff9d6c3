import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As a run of such small networks has it; the order of sums, and with it the last bit, depends on this."""
    torch.set_num_threads(1)
