"""Trains and exports the example models again, with the data files beside them.

    pip install . --group models && python models/make.py

Four small networks learn the handwritten digits that come with scikit-learn and are exported *raw*: normalisation
not folded, constants not folded, shapes computed at run time. Everything is seeded and runs on one thread, so a second
run on the same machine and versions writes the same files. A model that recognises less than 97 % of the held-out
digits in onnxruntime, or that fails another check, is not written.
"""

from __future__ import annotations

import math
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
LEAST_ACCURACY, MOST_BYTES = 0.97, 1_000_000


def write_data() -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    """Splits the digits, writes the two data files and returns (images, labels) to train on, then to test on."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=500, stratify=labels, random_state=7)
    _, calib_x, _, calib_y = train_test_split(train_x, train_y, test_size=400, stratify=train_y, random_state=7)
    np.savez_compressed(HERE / "digits_calib.npz", image=calib_x, labels=calib_y)
    np.savez_compressed(HERE / "digits_test.npz", image=test_x, labels=test_y)
    return torch.from_numpy(train_x), torch.from_numpy(train_y), test_x, test_y


def shifted(images: Tensor) -> Tensor:
    """Five copies of the images: in place, and moved by one pixel up, down, left and right."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    return torch.stack([padded[:, :, y : y + 8, x : x + 8] for y, x in [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]])


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn(inputs, outputs, 3, stride), nn.ReLU(), *conv_bn(outputs, outputs, 3))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_bn(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(1, 16, 3), nn.ReLU())
        sizes = [(16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2)]
        self.blocks = nn.Sequential(*(ResidualBlock(*size) for size in sizes))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.pool(self.blocks(self.stem(image)))
        return self.head(x.view(x.size(0), -1))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inputs
        self.adds = stride == 1 and inputs == outputs
        self.expand = nn.Sequential(*conv_bn(inputs, wide, 1), nn.ReLU6())
        self.depthwise = nn.Sequential(*conv_bn(wide, wide, 3, stride, groups=wide), nn.ReLU6())
        self.project = nn.Sequential(*conv_bn(wide, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(1, 16, 3), nn.ReLU6())
        sizes = [(16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1)]
        self.blocks = nn.Sequential(*(InvertedResidual(*size) for size in sizes))
        self.last = nn.Sequential(*conv_bn(32, 128, 1), nn.ReLU6())
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(128, 10))

    def forward(self, image: Tensor) -> Tensor:
        x = self.last(self.blocks(self.stem(image)))
        return self.head(x.mean(dim=(2, 3)))


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and MLP, the heads split and merged by hand."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(0.1)

    def split(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        return x.reshape(batch, tokens, self.heads, width // self.heads).transpose(1, 2)

    def attend(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)
        mixed = self.dropout(scores.softmax(dim=-1)) @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attend(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    def __init__(self, width: int = 48, heads: int = 4, layers: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, kernel_size=2, stride=2)
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.layers = nn.Sequential(*(EncoderLayer(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image)
        batch, width = x.shape[:2]
        x = x.reshape(batch, width, -1).transpose(1, 2)
        x = torch.cat((self.class_token.expand(batch, -1, -1), x), dim=1) + self.position
        return self.head(self.norm(self.layers(x))[:, 0])


class RowLSTM(nn.Module):
    """Reads the eight rows of the image in both directions."""

    def __init__(self, hidden: int = 48) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, hidden, num_layers=2, batch_first=True, bidirectional=True, dropout=0.1)
        self.head = nn.Sequential(nn.Linear(2 * hidden, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, image: Tensor) -> Tensor:
        _, (states, _) = self.lstm(image.reshape(image.size(0), 8, 8))
        return self.head(torch.cat((states[-2], states[-1]), dim=1))


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float) -> None:
    """AdamW with a one-cycle schedule; leaves the model as it is after the last epoch, in eval mode."""
    copies, size, batch = shifted(images), len(images), 64
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * math.ceil(size / batch))
    model.train()
    for _ in range(epochs):
        for pick in torch.randperm(size).split(batch):
            x = copies[torch.randint(len(copies), (len(pick),)), pick]
            loss = nn.functional.cross_entropy(model(x), labels[pick], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def export(model: nn.Module, file: Path, *, dynamo: bool) -> None:
    """Exports without any of the exporter's own optimization, for every batch size."""
    common = {"input_names": ["image"], "output_names": ["logits"], "dynamo": dynamo, "verbose": False}
    example = (torch.zeros(2, 1, 8, 8),)
    if dynamo:
        shapes = ({0: torch.export.Dim("batch")},)
        how = {"opset_version": 18, "optimize": False, "external_data": False, "dynamic_shapes": shapes}
    else:
        axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
        how = {"opset_version": 17, "do_constant_folding": False, "dynamic_axes": axes}
        how["training"] = torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the older exporter is the older one, and that a traced batch is a number
        torch.onnx.export(model, example, file, **common, **how)
    proto = onnx.load(file)
    for node in proto.graph.node:  # where on this machine the Python code was is nobody's business
        for trace in [entry for entry in node.metadata_props if entry.key == "pkg.torch.onnx.stack_trace"]:
            node.metadata_props.remove(trace)
    onnx.save(proto, file)


def check(file: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """The accuracy in onnxruntime; ends the run if the file is too large, not self-contained or does not do its job."""
    content = file.read_bytes()
    if len(content) >= MOST_BYTES or len(list(file.parent.iterdir())) > 1:
        raise SystemExit(f"{file.name}: {len(content)} bytes, or weights beside the file")
    if any(str(place).encode() in content for place in (HERE.parent, sys.prefix)):
        raise SystemExit(f"{file.name}: a path of this machine is in the file")
    onnx.checker.check_model(content, full_check=True)
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": images})
    for batch in (1, 2, 7):
        (some,) = session.run(None, {"image": images[:batch]})
        np.testing.assert_allclose(some, logits[:batch], rtol=1e-3, atol=1e-4)
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    if accuracy < LEAST_ACCURACY:
        raise SystemExit(f"{file.name}: accuracy {accuracy:.2%} is below {LEAST_ACCURACY:.0%}")
    return accuracy


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    images, labels, test_images, test_labels = write_data()
    recipes = [  # name, network, epochs, learning rate, whether by the torch.export-based exporter
        ("digits_resnet", ResNet, 40, 4e-3, False),
        ("digits_mobilenet", MobileNet, 60, 6e-3, True),
        ("digits_vit", VisionTransformer, 120, 3e-3, False),
        ("digits_lstm", RowLSTM, 80, 6e-3, False),
    ]
    for name, network, epochs, rate, dynamo in recipes:
        torch.manual_seed(7)
        model = network()
        train(model, images, labels, epochs, rate)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"{name}.onnx")
            export(model, file, dynamo=dynamo)
            accuracy = check(file, test_images, test_labels)
            content = file.read_bytes()
        (HERE / file.name).write_bytes(content)
        parameters, nodes = sum(p.numel() for p in model.parameters()), len(onnx.load_from_string(content).graph.node)
        print(f"{name}: {parameters} parameters, {nodes} nodes, accuracy {accuracy:.2%}, {len(content)} bytes")


if __name__ == "__main__":
    main()
