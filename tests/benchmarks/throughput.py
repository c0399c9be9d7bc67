"""How fast a trial trains, against the plain trainer that most people write.

    python tests/benchmarks/throughput.py [--rounds 5] [--steps 20]

Plain: torchvision's Fashion-MNIST in a `DataLoader`, each image resized and normalised as it is fetched, fp32, NCHW,
torch's SGD, one step a batch. Ours: a `Trial` on the images that the project prepares once. Same networks (narrow
groups, wide groups, the book's RegNetX32), batches of 128, one thread a worker; at 28 and 96 pixels, one worker and two
at once. Timed in turn, in processes of their own that have trained before.

Printed, a JSON line a case: images per second of a worker of either (medians over rounds and workers), the median of
the ratios round by round, and the share of a matrix product's flops a second that our training reaches (three passes of
two flops a multiply-add; a product of 1024 × 1024, fp32, one thread).
"""

import argparse
import gzip
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from sweep.models import build
from sweep.spaces import ZOO, Architecture, Stage, complexity
from sweep.studies import Recipe
from sweep.training.data import find_source, open_split, prepare
from sweep.training.trial import Trial

BATCH, SEED, PRODUCT = 128, 0, 1024
NETWORKS = {
    "narrow groups": Architecture((Stage(2, 24, 4), Stage(3, 48, 4)), stem_width=16),
    "wide groups": Architecture((Stage(2, 32, 32), Stage(3, 64, 64)), stem_width=16),
    "RegNetX32": ZOO["regnetx32"],
}
RESOLUTIONS = (28, 96)
Train = Callable[[], object]


def plain(name: str, resolution: int, steps: int, folder: Path) -> Train:
    torch.manual_seed(SEED)
    network = build(NETWORKS[name], resolution=resolution, channels=1, classes=10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-5)
    resized = [transforms.Resize(resolution)] if resolution != 28 else []
    shown = transforms.Compose([*resized, transforms.ToTensor(), transforms.Normalize(0.286, 0.353)])
    images = datasets.FashionMNIST(folder, transform=shown)
    loader = DataLoader(torch.utils.data.Subset(images, range(steps * BATCH)), batch_size=BATCH, shuffle=True)

    def train() -> None:
        for x_BCHW, labels_B in loader:
            loss = cross_entropy(network(x_BCHW), labels_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def ours(name: str, resolution: int, steps: int, folder: Path) -> Train:
    split = open_split(prepare(resolution=resolution), num_train=steps * BATCH, num_validation=0, seed=SEED)
    recipe = Recipe(batch_size=BATCH, learning_rate=0.05)
    epochs = Trial(NETWORKS[name], recipe, split, num_epochs=1_000, seed=SEED).run()
    return lambda: next(epochs)


def product(name: str, resolution: int, steps: int, folder: Path) -> Train:
    a, b = torch.rand(2, PRODUCT, PRODUCT)
    return lambda: [a @ b for _ in range(steps)]


SIDES = {"plain": plain, "ours": ours, "product": product}


def work(side: str, name: str, resolution: int, steps: int, folder: Path, line: Connection) -> None:
    """Train whenever asked, and answer the seconds."""
    torch.set_num_threads(1)
    train = SIDES[side](name, resolution, steps, folder)
    train()
    line.send("ready")
    while line.recv():
        started = time.perf_counter()
        train()
        line.send(time.perf_counter() - started)


class Workers:
    """So many processes of one side, which train at the same time."""

    def __init__(self, num: int, side: str, *case: object):
        context = multiprocessing.get_context("spawn")
        pairs = [context.Pipe() for _ in range(num)]
        self._lines = [own for own, _ in pairs]
        self._processes = [context.Process(target=work, args=(side, *case, theirs)) for _, theirs in pairs]
        for process in self._processes:
            process.start()
        for line in self._lines:
            line.recv()

    def seconds(self) -> float:
        """Of a round: the mean over workers."""
        for line in self._lines:
            line.send(True)
        return statistics.mean(line.recv() for line in self._lines)

    def end(self) -> None:
        for line, process in zip(self._lines, self._processes):
            line.send(False)
            process.join()


def measure(
    num_workers: int, name: str, resolution: int, *, rounds: int, steps: int, folder: Path
) -> dict[str, object]:
    sides = {side: Workers(num_workers, side, name, resolution, steps, folder) for side in SIDES}
    seconds = [{side: workers.seconds() for side, workers in sides.items()} for _ in range(rounds)]
    for workers in sides.values():
        workers.end()
    median = {side: statistics.median(row[side] for row in seconds) for side in SIDES}
    flops = complexity(NETWORKS[name], resolution=resolution, channels=1, classes=10).flops
    speed, most = 6 * flops * BATCH * steps / median["ours"], 2 * PRODUCT**3 * steps / median["product"]
    return {
        "network": name,
        "resolution": resolution,
        "workers": num_workers,
        "plain_images_per_s": round(BATCH * steps / median["plain"]),
        "images_per_s": round(BATCH * steps / median["ours"]),
        "ratio": round(statistics.median(row["plain"] / row["ours"] for row in seconds), 2),
        "share_of_product": round(speed / most, 3),
    }


def unpacked(folder: Path) -> None:
    """Fashion-MNIST where torchvision looks for it."""
    raw, source = folder / "FashionMNIST" / "raw", find_source()
    if source is None:
        raise SystemExit("Fashion-MNIST is not on this machine; install Debian's package dataset-fashion-mnist")
    raw.mkdir(parents=True)
    for file in source.glob("*ubyte*"):
        data = file.read_bytes()
        (raw / file.name.removesuffix(".gz")).write_bytes(gzip.decompress(data) if file.suffix == ".gz" else data)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpacked(folder)
        for resolution in RESOLUTIONS:
            prepare(resolution=resolution)
            for network in NETWORKS:
                for num_workers in (1, 2):
                    found = measure(
                        num_workers, network, resolution, rounds=asked.rounds, steps=asked.steps, folder=folder
                    )
                    print(json.dumps(found), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
