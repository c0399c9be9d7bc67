"""A trial's share of a card: what it may take, and what it says when that is not enough. No card is needed here."""

import pytest
import torch

from sweep.training import device


def test_a_network_that_does_not_fit_says_what_to_change():
    with (
        pytest.raises(
            RuntimeError, match=r"does not fit into 0\.25 of a card \(gpus_per_trial = 0\.25.*raise it.*batch_size"
        ),
        device.explained(0.25),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nand more")


def test_other_errors_pass():
    with pytest.raises(KeyError), device.explained(0.25):
        raise KeyError("other")


@pytest.mark.parametrize(("gpus_per_trial", "limits"), [(0.25, [0.25]), (1, []), (0, [])])
def test_a_fraction_of_a_card_limits_its_memory(monkeypatch, gpus_per_trial, limits):
    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", seen.append)
    device.limit_to_share(gpus_per_trial)
    assert seen == limits


def test_without_a_card_there_is_nothing_to_limit():
    device.limit_to_share(0.25)
    if not torch.cuda.is_available():
        assert device.pick_device() == torch.device("cpu")
