"""Two workers are one: the same images, the same batch statistics, the same gradients, the same curve."""

import pytest
import torch
from torch import distributed
from training.two_workers import train

from sweep.studies import Recipe
from sweep.training.distributed import ALONE, GlobalBatchNorm1d, GlobalBatchNorm2d, Share


@pytest.mark.parametrize(("batch_size", "num_workers"), [(64, 1), (64, 2), (63, 2), (7, 3), (5, 5)])
def test_the_parts_are_the_batch_and_the_weights_make_their_mean_that_of_the_batch(batch_size, num_workers):
    shares = [Share(rank, num_workers) for rank in range(num_workers)]
    batch = torch.arange(batch_size, dtype=torch.float64) ** 2
    parts = [batch[share.part(batch_size)] for share in shares]
    assert torch.equal(torch.cat(parts), batch)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    means = [share.weight(batch_size) * part.mean() for share, part in zip(shares, parts)]
    assert float(sum(means)) / num_workers == pytest.approx(float(batch.mean()), rel=1e-14)


def test_alone_it_changes_nothing():
    network, device = torch.nn.Sequential(torch.nn.BatchNorm2d(3)), torch.device("cpu")
    assert ALONE.synchronised(network, device) is ALONE.replica(network, device) is network
    assert type(network[0]) is torch.nn.BatchNorm2d
    assert ALONE.weight(63) == 1


@pytest.fixture(scope="module")
def trained(network, fashion, tmp_path_factory):
    """`trained[name of a recipe]`: what one worker alone ends with, and what each of two does."""
    recipes = {
        "single": Recipe(batch_size=64, learning_rate=0.005, warmup_steps=5),
        "double": Recipe(batch_size=63, warmup_steps=5),  # an odd batch: the parts are unequal
        # The last of its batches has 151 images.
        "mixed": Recipe(
            batch_size=283, drop_last=False, mixup=0.4, random_erasing=0.5, gradient_clip=0.5, l1_decay=1e-4
        ),
    }
    folder = tmp_path_factory.mktemp("workers")
    (one,), two = (train(folder, number, network, fashion, **recipes) for number in (1, 2))
    return {name: (one[name], [worker[name] for worker in two]) for name in recipes}


@pytest.mark.parametrize("recipe", ["double", "mixed"])
def test_in_double_precision_two_workers_equal_one_to_the_last_digits(trained, recipe):
    one, two = trained[recipe]
    for worker in two:
        assert worker["losses"] == pytest.approx(one["losses"], rel=1e-6)  # summed in single precision
        assert worker["network"].keys() == one["network"].keys()
        for name, value in one["network"].items():  # running statistics of batch norms are in it
            torch.testing.assert_close(worker["network"][name], value, rtol=1e-9, atol=1e-11)
    assert two[0]["losses"] == two[1]["losses"]


def test_in_single_precision_they_differ_by_grown_rounding(trained):
    one, two = trained["single"]
    assert two[0]["losses"] == pytest.approx(one["losses"], rel=5e-5)  # measured: 5e-6
    assert two[0]["losses"][0] == pytest.approx(one["losses"][0], rel=1e-5)


def test_where_it_judges_it_is_the_plain_batch_norm():
    plain, ours = torch.nn.BatchNorm2d(4).eval(), GlobalBatchNorm2d(4).eval()
    x_BCHW = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain(x_BCHW), ours(x_BCHW))


def test_a_perceptrons_norm_is_replaced_too(tmp_path):
    """One worker in a process group of its own, in training: values, gradients and statistics of the plain norm."""
    torch.manual_seed(0)
    plain, wrapped = torch.nn.BatchNorm1d(4), torch.nn.Sequential(torch.nn.BatchNorm1d(4))
    x_BC = torch.randn(5, 4)
    ours_BC, plain_BC = x_BC.clone().requires_grad_(), x_BC.clone().requires_grad_()
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        ours = Share(0, 2).synchronised(wrapped, torch.device("cpu"))
        given = ours(ours_BC)
        given.square().sum().backward()
    finally:
        distributed.destroy_process_group()
    expected = plain(plain_BC)
    expected.square().sum().backward()
    assert type(ours[0]) is GlobalBatchNorm1d
    torch.testing.assert_close(given, expected)
    torch.testing.assert_close(ours_BC.grad, plain_BC.grad, rtol=1e-4, atol=1e-5)
    for (name, tensor), other in zip(ours[0].state_dict().items(), plain.state_dict().values()):
        torch.testing.assert_close(tensor, other, msg=name)
