"""The bench's training step in PyTorch, driven as bench/serve.h says.

    esmm_bench.py ENGINE --threads N --precision f32|bf16 [--rows N] [--seed N]

ENGINE is one of
  ordinary  what the documentation leads to: EmbeddingBag with sparse gradients, SparseAdam, and the
            fused Adam for the dense layers
  expert    what someone does who profiles it: the distinct ids of a batch are found once, their
            rows gathered, both towers' first layers are one product, and the rows' lazy Adam is
            written by hand over the gathered rows

Ready-made index tensors go in: nothing is parsed, hashed or looked up, and neither metrics nor
digests are kept. With --compile the loss and the row update of `expert` are compiled.
"""

import argparse
import json
import os
import sys
import time

parser = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("engine", choices=["ordinary", "expert"])
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
parser.add_argument("--rows", type=int, default=20_000_000, help="of all fields")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--compile", action="store_true")
ARGUMENTS = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(ARGUMENTS.threads)  # read when torch is loaded

import numpy  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

FIELDS = 20
DIM = 18
HIDDEN = (200, 80)
POOL = 524_288
ZIPF_EXPONENT = 1.05
CLICK_RATE = 0.045
PURCHASE_RATE = 0.1
LEARNING_RATE = 1e-3
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


def make_pool(rows):
    """(ids [POOL, FIELDS] with field f in [f·rows/FIELDS, (f + 1)·rows/FIELDS), y, z [POOL])."""
    ids_a_field = rows // FIELDS
    generator = numpy.random.default_rng(ARGUMENTS.seed)
    upto = numpy.cumsum(numpy.arange(1, ids_a_field + 1, dtype=numpy.float64) ** -ZIPF_EXPONENT)
    ranks = numpy.searchsorted(upto, generator.random(POOL * FIELDS) * upto[-1], side="right")
    scattered = generator.permutation(ids_a_field)
    ids = scattered[ranks.clip(max=ids_a_field - 1)].reshape(POOL, FIELDS)
    ids += numpy.arange(FIELDS) * ids_a_field
    y = generator.random(POOL) < CLICK_RATE
    z = y & (generator.random(POOL) < PURCHASE_RATE)
    return (torch.from_numpy(ids), torch.from_numpy(y.astype(numpy.float32)),
            torch.from_numpy(z.astype(numpy.float32)))


def layers_after_first():
    return nn.Sequential(nn.ReLU(), nn.Linear(*HIDDEN), nn.ReLU(), nn.Linear(HIDDEN[1], 1))


class TwoTowers(nn.Module):
    """The logits (a, b) of an input [N, FIELDS · DIM]; a tower by itself."""

    def __init__(self):
        super().__init__()
        self.ctr = nn.Sequential(nn.Linear(FIELDS * DIM, HIDDEN[0]), layers_after_first())
        self.cvr = nn.Sequential(nn.Linear(FIELDS * DIM, HIDDEN[0]), layers_after_first())

    def forward(self, x):
        return self.ctr(x).squeeze(1), self.cvr(x).squeeze(1)


class JoinedTowers(nn.Module):
    """The same with one first layer for both."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(FIELDS * DIM, 2 * HIDDEN[0])
        self.ctr = layers_after_first()
        self.cvr = layers_after_first()

    def forward(self, x):
        ctr, cvr = self.first(x).split(HIDDEN[0], dim=1)
        return self.ctr(ctr).squeeze(1), self.cvr(cvr).squeeze(1)


def make_loss(towers):
    def loss(x, y, z):
        if ARGUMENTS.precision == "bf16":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                a, b = towers(x)
            a, b = a.float(), b.float()
        else:
            a, b = towers(x)
        both = (torch.sigmoid(a) * torch.sigmoid(b)).clamp(1e-7, 1 - 1e-7)
        return (functional.binary_cross_entropy_with_logits(a, y)
                + functional.binary_cross_entropy(both, z))

    return loss


def dense_optimizer(towers):
    return torch.optim.Adam(towers.parameters(), lr=LEARNING_RATE, betas=(BETA1, BETA2),
                            eps=EPSILON, fused=True)


class Ordinary:
    def __init__(self, rows):
        self.table = nn.EmbeddingBag(rows, DIM, mode="sum", sparse=True)
        nn.init.normal_(self.table.weight, std=0.05)
        towers = TwoTowers()
        self.loss = make_loss(towers)
        self.dense = dense_optimizer(towers)
        self.sparse = torch.optim.SparseAdam(self.table.parameters(), lr=LEARNING_RATE)

    def step(self, ids, y, z):
        x = self.table(ids.view(-1, 1)).view(-1, FIELDS * DIM)
        loss = self.loss(x, y, z)
        self.sparse.zero_grad()
        self.dense.zero_grad()
        loss.backward()
        self.sparse.step()
        self.dense.step()

    def touch(self):
        for state in self.sparse.state.values():
            state["exp_avg"].mul_(1.0)
            state["exp_avg_sq"].add_(1e-8)


def adam_rows(weights, first, second, gradient, rate, epsilon):
    first = torch.lerp(first, gradient, 1 - BETA1)
    second = BETA2 * second + (1 - BETA2) * gradient * gradient
    return weights - rate * first / (second.sqrt() + epsilon), first, second


class Expert:
    def __init__(self, rows):
        self.weights = torch.empty(rows, DIM).normal_(std=0.05)
        self.first = torch.zeros(rows, DIM)
        self.second = torch.zeros(rows, DIM)
        self.steps = 0
        towers = JoinedTowers()
        self.dense = dense_optimizer(towers)
        self.loss, self.adam_rows = make_loss(towers), adam_rows
        if ARGUMENTS.compile:
            self.loss = torch.compile(self.loss, dynamic=False)
            self.adam_rows = torch.compile(adam_rows, dynamic=True)

    def step(self, ids, y, z):
        distinct, places = torch.unique(ids.view(-1), return_inverse=True)
        rows = self.weights.index_select(0, distinct)
        x = rows.index_select(0, places).view(-1, FIELDS * DIM).requires_grad_()
        self.loss(x, y, z).backward()
        gradient = torch.zeros_like(rows).index_add_(0, places, x.grad.view(-1, DIM))
        self.update_rows(distinct, rows, gradient)
        self.dense.step()
        self.dense.zero_grad()

    def update_rows(self, distinct, rows, gradient):
        """The same step as w -= lr/(1 - β1^t) · m / (√(v/(1 - β2^t)) + ε)."""
        self.steps += 1
        root = (1 - BETA2 ** self.steps) ** 0.5
        rate = torch.tensor(LEARNING_RATE * root / (1 - BETA1 ** self.steps))
        updated = self.adam_rows(rows, self.first.index_select(0, distinct),
                                 self.second.index_select(0, distinct), gradient, rate,
                                 torch.tensor(EPSILON * root))
        for table, values in zip((self.weights, self.first, self.second), updated):
            table.index_copy_(0, distinct, values)

    def touch(self):
        self.first.mul_(1.0)
        self.second.add_(1e-8)


class Slices:
    """Whole batches of the pool, one after the other, timed."""

    def __init__(self, engine, pool):
        self.engine = engine
        self.pool = pool
        self.place = 0

    def next_batch(self, batch):
        if self.place + batch > POOL:
            self.place = 0
        part = slice(self.place, self.place + batch)
        self.place += batch
        return [tensor[part] for tensor in self.pool]

    def run(self, batch, seconds):
        times = []
        begin = now = time.perf_counter()
        while now - begin < seconds:
            self.engine.step(*self.next_batch(batch))
            times.append(time.perf_counter() - now)
            now += times[-1]
        times.sort()
        return {"samples": batch * len(times), "seconds": now - begin,
                "longest_ms": 1e3 * times[-1], "p99_ms": 1e3 * times[int(0.99 * (len(times) - 1))]}


def main():
    torch.manual_seed(ARGUMENTS.seed)
    torch.set_num_threads(ARGUMENTS.threads)
    torch.set_num_interop_threads(1)
    pool = make_pool(ARGUMENTS.rows)
    engine = {"ordinary": Ordinary, "expert": Expert}[ARGUMENTS.engine](ARGUMENTS.rows)
    slices = Slices(engine, pool)
    slices.run(256, 0.01)
    engine.touch()  # every page of the optimizer's state is there before timing begins
    print(json.dumps({"isa": torch.backends.cpu.get_cpu_capability(),
                      "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        batch, seconds = line.split()
        print(json.dumps(slices.run(int(batch), float(seconds))), flush=True)


if __name__ == "__main__":
    main()
