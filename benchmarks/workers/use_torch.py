"""PyTorch as a worker. Variant 'eager', or 'compile' for torch.compile."""

import sys

import common
import numpy as np
import torch
from common import Job, sample, serve
from torch_networks import Networks

torch.set_num_threads(common.threads())


def compiled(fn):
    return torch.compile(fn) if sys.argv[2] == "compile" else fn


def mlp(sizes):
    layers = []
    for a, b in zip(sizes, sizes[1:], strict=False):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for p, w in zip(model.parameters(), common.weights(sizes), strict=True):
            p.copy_(torch.from_numpy(np.ascontiguousarray(w.T)))
    return model


def article():
    return torch.nn.Sequential(*mlp(common.ARTICLE), torch.nn.Softmax(dim=-1))


def article_step(model):
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.001, alpha=0.9, eps=1e-7)

    @compiled
    def forward(x, y):
        out = model(x)
        return torch.nn.functional.mse_loss(out, y), (out.argmax(-1) == y.argmax(-1)).float().mean()

    def step(x, y):
        optimizer.zero_grad(set_to_none=True)
        cost, accuracy = forward(x, y)
        cost.backward()
        optimizer.step()
        return cost.detach(), accuracy

    return step


def article_mlp_fit():
    x, y = map(torch.from_numpy, common.mnist())
    step = article_step(article())
    generator = torch.Generator().manual_seed(0)

    def run(n=1):
        for _ in range(n):
            total, hits, batches = torch.zeros(()), torch.zeros(()), 0
            for rows in torch.randperm(common.ROWS, generator=generator).split(common.BATCH):
                cost, accuracy = step(x[rows], y[rows])
                total, hits, batches = total + cost, hits + accuracy, batches + 1
        return total.item() / batches

    return Job(run, [run()])


def mlp_1024_adam():
    x, y = map(torch.from_numpy, common.wide_batch())
    y = y.long()
    model = mlp(common.WIDE)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, eps=1e-7)
    loss = compiled(lambda x, y: torch.nn.functional.cross_entropy(model(x), y))
    update = compiled(optimizer.step)

    def run(n=1):
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            cost = loss(x, y)
            cost.backward()
            update()
        return cost.item()

    return Job(run, [run() for _ in range(3)])


def one_row_inference():
    model, x = compiled(article().eval()), common.one_row()

    def run(n=1):
        with torch.inference_mode():
            for _ in range(n):
                y = model(torch.from_numpy(x)).numpy()
        return y

    return Job(run, sample(run()))


def black_scholes():
    price = compiled(common.black_scholes(torch.exp, torch.log, torch.sqrt, torch.erf))
    arrays = [torch.from_numpy(a) for a in common.options()]

    def run(n=1):
        for _ in range(n):
            prices = price(*arrays)
        return prices

    return Job(run, sample(run()[0]) + sample(run()[1]))


def logsoftmax_sum():
    x = torch.from_numpy(common.logits())

    @compiled
    def both(x):
        y = torch.log_softmax(x, dim=-1)
        return y, y.sum(dim=-1)

    def run(n=1):
        for _ in range(n):
            y = both(x)
        return y

    return Job(run, sample(run()[1]))


def matmul(shape, form):
    a, b = map(torch.from_numpy, common.matrices(shape, form))
    a, b = a.T if form == "tn" else a, b.T if form == "nt" else b

    def run(n=1):
        for _ in range(n):
            c = a @ b
        return c

    return Job(run, sample(run()))


def process_start():
    cost, _ = article_step(article())(torch.zeros(128, 784), torch.zeros(128, 10))
    return cost.item()


serve(
    ["torch"],
    {
        "article_mlp_fit": article_mlp_fit,
        "mlp_1024_adam": mlp_1024_adam,
        "one_row_inference": one_row_inference,
        "black_scholes": black_scholes,
        "logsoftmax_sum": logsoftmax_sum,
        "matmul": matmul,
    }
    | Networks(compiled).served(),
    {"process_start": process_start},
)
