"""Memory that runs out for real is one sentence; other errors stay."""

import numpy as np
import pytest
import torch

from ops.machine.memory import memory_in_a_sentence


@pytest.mark.parametrize("ask", [lambda: torch.empty(10**14), lambda: np.empty(10**14), lambda: bytearray(10**17)])
def test_memory_that_is_not_there_is_one_sentence(ask):
    with pytest.raises(ValueError, match=r"^out of memory on this process, \d+\.\d GiB at the peak: less of x$"):
        with memory_in_a_sentence("less of x"):
            ask()


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_stay(error):
    with pytest.raises(type(error), match=str(error.args[0])), memory_in_a_sentence("x"):
        raise error
