"""PyTorch as a worker. Variant 'eager', 'compile' for torch.compile, or 'graphs' for its CUDA graphs."""

import sys

import common
import numpy as np
import torch
from common import Job, of_matrices, on_card, sample, serve
from torch_networks import DEVICE, Networks, there

torch.set_num_threads(common.threads())
if on_card():
    torch.backends.cudnn.allow_tf32 = False


def compiled(fn):
    if sys.argv[2] == "eager":
        return fn
    return torch.compile(fn, mode="reduce-overhead" if sys.argv[2] == "graphs" else None)


def mlp(sizes):
    layers = []
    for a, b in zip(sizes, sizes[1:], strict=False):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for p, w in zip(model.parameters(), common.weights(sizes), strict=True):
            p.copy_(torch.from_numpy(np.ascontiguousarray(w.T)))
    return model.to(DEVICE)


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
    x, y = map(there, common.mnist())
    step = article_step(article())
    generator = torch.Generator(DEVICE).manual_seed(0)

    def run(n=1):
        for _ in range(n):
            total, hits, batches = torch.zeros((), device=DEVICE), torch.zeros((), device=DEVICE), 0
            for rows in torch.randperm(common.ROWS, generator=generator, device=DEVICE).split(common.BATCH):
                cost, accuracy = step(x[rows], y[rows])
                total, hits, batches = total + cost, hits + accuracy, batches + 1
        return total.item() / batches

    return Job(run, [run()])


def mlp_1024_adam():
    x, y = map(there, common.wide_batch())
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
                y = model(there(x)).cpu().numpy()
        return y

    return Job(run, sample(run()))


def black_scholes(count=common.OPTIONS):
    price = compiled(common.black_scholes(torch.exp, torch.log, torch.sqrt, torch.erf))
    arrays = [there(a) for a in common.options(count)]

    def run(n=1):
        for _ in range(n):
            prices = price(*arrays)
        return prices

    return Job(run, sample(run()[0].cpu()) + sample(run()[1].cpu()))


def logsoftmax_sum(rows=4096):
    x = there(common.logits(rows))

    @compiled
    def both(x):
        y = torch.log_softmax(x, dim=-1)
        return y, y.sum(dim=-1)

    def run(n=1):
        for _ in range(n):
            y = both(x)
        return y

    return Job(run, sample(run()[1].cpu()))


def matmul(shape, form, dtype="float32"):
    a, b = (there(m).to(getattr(torch, dtype)) for m in common.matrices(shape, form))
    a, b = a.T if form == "tn" else a, b.T if form == "nt" else b

    def run(n=1):
        for _ in range(n):
            c = a @ b
        return c

    return Job(run, of_matrices(run().float().cpu()))


def process_start():
    cost, _ = article_step(article())(torch.zeros(128, 784, device=DEVICE), torch.zeros(128, 10, device=DEVICE))
    return cost.item()


def wait(result):
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


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
    wait,
)
