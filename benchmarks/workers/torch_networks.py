"""The networks in PyTorch: pictures channels first in memory order channels last, as PyTorch is quickest."""

import networks
import numpy as np
import torch
from common import Job, device, sample
from torch import nn
from torch.nn import functional as F

DEVICE = torch.device(device())


def there(array):
    """NumPy's array as a tensor on the device."""
    return torch.from_numpy(array).to(DEVICE)


class Net(nn.Module):
    """Layers are made where the network first asks for them, and found again by their order."""

    def __init__(self, build, x, **more):
        super().__init__()
        self.build, self.more, self.weights, self.at = build, more, networks.Weights(), 0
        self.parts = nn.ModuleList()
        self.made = False
        with torch.no_grad():
            self(x)
        self.made = True

    def forward(self, x):
        self.at = 0
        return self.build(self, x, **self.more)

    def part(self, make):
        if not self.made:
            self.parts.append(make().to(DEVICE))
        self.at += 1
        return self.parts[self.at - 1]

    def filled(self, module, **values):
        with torch.no_grad():
            for name, value in values.items():
                getattr(module, name).copy_(torch.from_numpy(np.ascontiguousarray(value)))
        return module

    def conv(self, x, filters, kernel, stride=1, padding="same", bias=True):
        def make():
            around = kernel // 2 if padding == "same" else 0
            layer = nn.Conv2d(x.shape[1], filters, kernel, stride, around, bias=bias)
            own = {"weight": self.weights.kernel(kernel, kernel, x.shape[1], filters).transpose(3, 2, 0, 1)}
            return self.filled(layer, **own, **({"bias": self.weights.zeros(filters)} if bias else {}))

        return self.part(make)(x)

    def conv1d(self, x, filters, kernel, dilation=1):
        def make():
            layer = nn.Conv1d(x.shape[1], filters, kernel, padding=dilation * (kernel // 2), dilation=dilation)
            own = self.weights.kernel(kernel, x.shape[1], filters).transpose(2, 1, 0)
            return self.filled(layer, weight=own, bias=self.weights.zeros(filters))

        return self.part(make)(x)

    def norm(self, x):
        def make():
            kind = nn.BatchNorm2d if x.ndim == 4 else nn.BatchNorm1d
            scale, shift, mean, variance = self.weights.norm(x.shape[1])
            layer = kind(x.shape[1], eps=1e-5, momentum=0.01)
            layer = self.filled(layer, weight=scale, bias=shift, running_mean=mean, running_var=variance)
            return layer

        layer = self.part(make)
        if self.made:
            return layer(x)
        return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=1e-5)

    def layer_norm(self, x):
        return self.part(lambda: nn.LayerNorm(x.shape[-1], eps=1e-5))(x)

    def dense(self, x, units):
        def make():
            own = self.weights.kernel(x.shape[-1], units).T
            return self.filled(nn.Linear(x.shape[-1], units), weight=own, bias=self.weights.zeros(units))

        return self.part(make)(x)

    def embedding(self, x, words, units):
        def make():
            return self.filled(nn.Embedding(words, units), weight=0.05 * self.weights.kernel(1, words, units)[0])

        return self.part(make)(x)

    def lstm(self, x, units):
        def make():
            layer = nn.LSTM(x.shape[-1], units, batch_first=True)
            kernel, recurrent = self.weights.kernel(x.shape[-1], 4 * units), self.weights.recurrent(units, 4 * units)
            zeros = self.weights.zeros(4 * units)  # gates are in Keras's order
            kernels = {"weight_ih_l0": kernel.T, "weight_hh_l0": recurrent.T}
            return self.filled(layer, **kernels, bias_ih_l0=zeros, bias_hh_l0=zeros)

        return self.part(make)(x)[0][:, -1]

    def gru(self, x, units):
        def make():
            layer = nn.GRU(x.shape[-1], units, batch_first=True)
            kernel, recurrent = self.weights.kernel(x.shape[-1], 3 * units), self.weights.recurrent(units, 3 * units)
            first = lambda w: np.concatenate([w[:, units : 2 * units], w[:, :units], w[:, 2 * units :]], 1).T
            zeros = self.weights.zeros(3 * units)
            kernels = {"weight_ih_l0": first(kernel), "weight_hh_l0": first(recurrent)}
            return self.filled(layer, **kernels, bias_ih_l0=zeros, bias_hh_l0=zeros)

        return self.part(make)(x)[0][:, -1]

    def attention(self, q, k, v, heads):
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def relu(self, x):
        return F.relu(x)

    def add(self, x, y):
        return x + y

    def pad(self, x, n):
        return F.pad(x, (n, n, n, n))

    def max_pool(self, x, size, stride):
        return F.max_pool2d(x, size, stride)

    def average(self, x):
        return x.mean((2, 3)) if x.ndim == 4 else x.mean(1)

    def flatten(self, x):
        return x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x.flatten(1)


class Networks:
    """`compiled` is torch.compile or nothing."""

    def __init__(self, compiled):
        self.compiled = compiled

    def served(self):
        return {
            "convnet_train": self.convnet_train,
            "convnet_inference": self.convnet_inference,
            "resnet50_train": self.resnet50_train,
            "resnet50_inference": self.resnet50_inference,
            "dilated_inference": self.dilated_inference,
            "transformer_train": self.transformer_train,
            "recurrent_train": self.recurrent_train,
            "recurrent_inference": self.recurrent_inference,
        }

    def pictures(self, x):
        return there(x).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def training(self, build, x, y, loss=F.cross_entropy, optimizer=None, **more):
        net = Net(build, x, **more).to(memory_format=torch.channels_last)
        y = there(y)
        y = y.long() if y.dtype == torch.int32 else y
        optimizer = (optimizer or (lambda p: torch.optim.Adam(p, lr=0.001, eps=1e-7)))(net.parameters())
        forward = self.compiled(lambda x, y: loss(net(x), y))

        def run(n=1):
            for _ in range(n):
                optimizer.zero_grad(set_to_none=True)
                cost = forward(x, y)
                cost.backward()
                optimizer.step()
            return cost.item()

        return Job(run, [run() for _ in range(3)])

    def inference(self, build, x, order=lambda y: y, **more):
        net = self.compiled(Net(build, x, **more).to(memory_format=torch.channels_last).eval())

        def run(n=1):
            with torch.inference_mode():
                for _ in range(n):
                    y = net(x)
            return order(y)

        return Job(run, sample(run().cpu().numpy()))

    def convnet_train(self):
        x, y = networks.pictures(128, 28, 28, 1)
        return self.training(networks.convnet, self.pictures(x), y)

    def convnet_inference(self):
        return self.inference(networks.convnet, self.pictures(networks.pictures(128, 28, 28, 1)[0]))

    def resnet50_train(self, batch):
        x, y = networks.pictures(int(batch), 224, 224, 3)
        sgd = lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9)
        return self.training(networks.resnet50, self.pictures(x), y, optimizer=sgd)

    def resnet50_inference(self, batch):
        return self.inference(networks.resnet50, self.pictures(networks.pictures(int(batch), 224, 224, 3)[0]))

    def dilated_inference(self):
        x = there(networks.bases()).transpose(1, 2).contiguous()
        return self.inference(networks.dilated, x, order=lambda y: y.transpose(1, 2).contiguous())

    def transformer_train(self):
        x, y = networks.embedded()
        return self.training(networks.transformer, there(x), y)

    def recurrent_train(self, kind, batch=networks.SENTENCES):
        x, y = networks.sentences(batch)
        loss = F.binary_cross_entropy_with_logits
        return self.training(networks.recurrent, there(x), y, loss=loss, kind=kind)

    def recurrent_inference(self, kind):
        return self.inference(networks.recurrent, there(networks.sentences()[0]), kind=kind)
