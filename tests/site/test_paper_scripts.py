"""The scripts of the paper's experiments, on data made up here."""

import json
import sqlite3
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from smoothcert import BoxRadius, Certificates, SmoothedClassifier, SplitNoise, UniformNoise, certified_accuracy_score

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "examples"), str(ROOT / "benchmarks")]

import cifar10  # noqa: E402
import cifar10_figures as figures  # noqa: E402
import cifar10_gpu  # noqa: E402
import gpu  # noqa: E402
import imagenet  # noqa: E402

RECORDS = 20
TINY = ["--depth=10", "--width=1", "--patch=4", "--batch-size=16", "--samples=60", "--sigma=0.75", "--device=cpu"]
TINY += [f"--records={RECORDS}", "--images=8"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files like CIFAR-10's: the label is the brightness."""
    folder, rng = tmp_path_factory.mktemp("cifar10"), np.random.default_rng(0)
    for name in cifar10.TRAIN_FILES + cifar10.TEST_FILES:
        labels = rng.integers(2, size=(RECORDS, 1))
        pixels = labels * 200 + rng.integers(50, size=(RECORDS, 3072))
        np.concatenate([labels, pixels], axis=1).astype(np.uint8).tofile(folder / name)
    return folder


def run(command, *arguments):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def accuracies(output):
    """Return the table of certified accuracies that a script prints: by radius, a list of columns."""
    rows = [line.split() for line in output.partition("Certified accuracy")[2].splitlines()]
    rows = [row for row in rows if row and row[0] in RADII and row[1] != "inputs,"]
    return {float(row[0]): [float(cell) for cell in row[1:]] for row in rows}


RADII = {f"{radius:g}" for radius in cifar10.RADII}


# Data


def test_records_are_read_as_planes(tmp_path):
    record = np.arange(3073) % 251
    record[0] = 7
    np.stack([record, record]).astype(np.uint8).tofile(tmp_path / "test_batch.bin")
    images, labels = cifar10.read_images(tmp_path, ["test_batch.bin"], records=2)
    assert images.shape == (2, 3, 32, 32)
    assert labels.tolist() == [7, 7]
    # The green pixel in row 1, column 2: after the label, the red plane and one row.
    assert images[0, 1, 1, 2] == (1 + 1024 + 32 + 2) % 251


def test_missing_and_truncated_files_are_named(data, tmp_path):
    with pytest.raises(Exception, match=r"data_batch_1\.bin: expected a file of 30,730,000 bytes.*no such file.*kriz"):
        cifar10.read_images(tmp_path, cifar10.TRAIN_FILES)
    whole = (data / "test_batch.bin").read_bytes()
    (tmp_path / "test_batch.bin").write_bytes(whole[:-1])
    expected = rf"test_batch\.bin: expected a file of {len(whole):,} bytes.*found {len(whole) - 1:,} bytes.*cifar\.html"
    with pytest.raises(Exception, match=expected):
        cifar10.read_images(tmp_path, cifar10.TEST_FILES, RECORDS)
    (tmp_path / "test_batch.bin").write_bytes(b"\xff" * len(whole))
    with pytest.raises(Exception, match="expected labels from 0 to 9, found 255"):
        cifar10.read_images(tmp_path, cifar10.TEST_FILES, RECORDS)


def test_a_folder_without_data_ends_the_script_without_a_traceback(tmp_path):
    result = run(cifar10.main, f"--data={tmp_path}")
    assert result.exit_code == 1
    assert "Error:" in result.output
    assert cifar10.ADDRESS in result.output
    result = run(imagenet.main, f"--data={tmp_path}")
    assert result.exit_code == 1
    assert "expected one folder for each class" in result.output


def test_training_images_are_moved_and_mirrored_and_stay_bytes():
    images = np.random.default_rng(0).integers(256, size=(1, 3, 32, 32), dtype=np.uint8)
    dataset = cifar10.TrainingImages(images, np.array([3]))
    torch.manual_seed(0)
    seen = torch.stack([dataset[0][0] for _ in range(400)])
    assert int(dataset[0][1]) == 3
    np.testing.assert_array_equal((seen * 255).round(), seen * 255)
    # Up to 4 pixels in each of 4 directions, where the border is black, and each image mirrored or not.
    assert len(seen.unique(dim=0)) > 120
    padded = np.pad(images[0], ((0, 0), (4, 4), (4, 4))) / np.float32(255)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 32, 32)).reshape(-1, 3, 32, 32)
    possible = {window.tobytes() for window in np.concatenate([windows, windows[..., ::-1]])}
    assert {image.numpy().tobytes() for image in seen} <= possible


# Networks


def n_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_networks_are_those_of_the_paper():
    # 2.2 million as in Zagoruyko and Komodakis 2016, and 25.6 million as in He et al. 2016.
    assert n_parameters(cifar10.wide_resnet(40, 2)) == 2_243_546
    assert n_parameters(imagenet.resnet_50()) == 25_557_032


def test_the_wide_resnet_has_as_many_layers_as_it_says():
    layers = [
        part for part in cifar10.wide_resnet(40, 2).modules() if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear))
    ]
    assert len([layer for layer in layers if getattr(layer, "kernel_size", None) != (1, 1)]) == 38
    assert cifar10.wide_resnet(10, 1, patch=4)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_reduced_precision_stays_inside_the_features():
    network = cifar10.wide_resnet(10, 1, 4, torch.bfloat16).eval()
    inside = []
    network.features[1].register_forward_hook(lambda module, given, answer: inside.append(answer.dtype))
    logits = network(torch.rand(2, 3, 32, 32))
    assert (inside, logits.dtype) == ([torch.bfloat16], torch.float32)


def test_a_float32_network_keeps_the_autocast_of_its_caller():
    network = cifar10.wide_resnet(10, 1, 4).eval()
    inside = []
    network.features[1].register_forward_hook(lambda module, given, answer: inside.append(answer.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.rand(2, 3, 32, 32))
    assert (inside, logits.dtype) == ([torch.bfloat16], torch.float32)


def test_blocks_add_their_path_to_the_short_cut():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 6)
    same, wider = cifar10.Block(4, 4, 1).eval(), cifar10.Block(4, 8, 2).eval()
    for block in (same, wider):
        torch.nn.init.zeros_(block.convolution_2.weight)
    assert torch.equal(same(x), x)
    assert torch.equal(wider(x), wider.short_cut(torch.relu(wider.norm_1(x))))
    torch.nn.init.normal_(same.convolution_2.weight)
    path = torch.relu(same.norm_2(same.convolution_1(torch.relu(same.norm_1(x)))))
    assert torch.equal(same(x), x + same.convolution_2(path))
    bottleneck = imagenet.Bottleneck(4, 2, 2).eval()
    torch.nn.init.zeros_(bottleneck.path[-1].weight)
    assert torch.equal(bottleneck(x), torch.relu(bottleneck.short_cut(x)))
    assert torch.equal(imagenet.Bottleneck(8, 2, 1).short_cut(x), x)


def test_networks_halve_the_picture_where_the_channels_grow():
    """WideResNet: 32 x 32 pixels in the first group, and 8 x 8 in the last; ResNet: a 32nd of the side."""
    for network, side, expected in (
        (cifar10.wide_resnet(10, 1), 32, (64, 8, 8)),
        (cifar10.wide_resnet(16, 2, 2), 32, (128, 4, 4)),
        (imagenet.resnet_50(3, depths=(1, 2, 1, 1)), 64, (2048, 2, 2)),
    ):
        shapes, pool = [], network.features[-2]
        pool.register_forward_hook(
            lambda module, given, answer, shapes=shapes: shapes.append(tuple(given[0].shape[1:]))
        )
        network.eval()(torch.zeros(1, 3, side, side))
        assert shapes == [expected]
    (first, *_, last) = (part for part in cifar10.wide_resnet(16, 4).modules() if isinstance(part, torch.nn.Conv2d))
    for part in (first, last):
        # He initialization by the number of outputs.
        expected = (2 / (part.out_channels * part.kernel_size[0] ** 2)) ** 0.5
        assert part.weight.std().item() == pytest.approx(expected, rel=0.15)


# What the scripts hand on


class StoppedError(Exception):
    """Ends a script before it trains."""


def handed_on(monkeypatch, script, function, command, *arguments):
    """Return what a script hands to a function that would train."""
    seen = {}

    def stop(*given, **named):
        seen.update(named, given=given)
        raise StoppedError

    monkeypatch.setattr(script, function, stop)
    with pytest.raises(StoppedError):
        run(command, *arguments)
    return seen


def test_parts_of_the_data_are_trained_on_and_certified(data, folders, tmp_path, monkeypatch):
    options = [*TINY, f"--data={data}", "--train-size=7", "--precision=bfloat16", f"--output={tmp_path}", "--seed=5"]
    seen = handed_on(monkeypatch, cifar10, "run_experiment", cifar10.main, *options)
    network, images, X, y, n_classes = seen["given"]
    assert n_parameters(network) == n_parameters(cifar10.wide_resnet(10, 1, 4))
    assert (network.precision, len(images), n_classes) == (torch.bfloat16, 7, 10)
    raw, labels = cifar10.read_images(data, cifar10.TEST_FILES, RECORDS)
    rows = [0, 3, 5, 8, 11, 14, 16, 19]
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X, raw[rows] / np.float32(255))
    np.testing.assert_array_equal(y, labels[rows])
    trained = cifar10.read_images(data, cifar10.TRAIN_FILES, RECORDS)[0][:7]
    np.testing.assert_array_equal(images.images, trained)
    assert (seen["output"], seen["seed"], seen["epochs"], seen["samples"]) == (tmp_path, 5, 120, 60)

    options = [f"--data={folders}", "--train-size=5", "--size=16", "--every=3"]
    seen = handed_on(monkeypatch, imagenet, "run_experiment", imagenet.main, *options)
    network, images, chosen, y, n_classes = seen["given"]
    assert (len(images), images.size, images.training, n_classes) == (5, 16, True, 2)
    # Of 4 + 4 images, the first, the fourth and the seventh.
    assert (len(chosen), chosen.training, y.tolist(), seen["epochs"]) == (3, False, [0, 0, 1], 30)
    assert [path.name for path in chosen.paths] == ["0.png", "3.png", "2.png"]
    assert network.head.out_features == 2


def test_experiments_follow_the_options(tmp_path, monkeypatch):
    given = {"noise": "uniform", "sigma": 0.5, "training": "stability", "stability_weight": 3.0, "start_from": None}
    given |= {"epochs": 4, "batch_size": 128, "train_size": None, "precision": "float32", "seed": 2, "lr": None}
    given |= {"device": "cpu", "compiled": False, "workers": 1, "samples": 70}
    network, X, y, trained, certified = torch.nn.Linear(4, 2), np.zeros((3, 4)), np.zeros(3, dtype=int), [], []
    monkeypatch.setattr(cifar10, "train", lambda *args, **kwargs: trained.append((args, kwargs)) or "model")
    monkeypatch.setattr(cifar10, "certify", lambda *args, **kwargs: certified.append((args, kwargs)))
    cifar10.run_experiment(network, "images", X, y, 2, tmp_path / "new", **given)
    ((one, images, noise, path, recipe), settings) = trained[0]
    assert (one, images, settings) == (network, "images", {"device": "cpu", "iterator_train__num_workers": 1})
    assert (type(noise), noise.levels) == (UniformNoise, 255)
    assert noise.lam == pytest.approx(0.5 * np.sqrt(3))
    assert path == tmp_path / "new" / "uniform-0.5-stability.pt"
    assert recipe == {
        "epochs": 4,
        "batch_size": 128,
        "training": "stability",
        "train_size": None,
        "precision": "float32",
        "seed": 2,
        "stability_weight": 3.0,
        "lr": 0.2,
        "noise": str(noise),
        "parameters of the network": 10,
    }
    (args, settings) = certified[0]
    assert args == ("model", X, y, noise, tmp_path / "new" / "uniform-0.5-stability.sqlite", 2)
    assert settings.pop("inference").channels_last
    assert settings == {"n_samples": 70, "random_state": 2, "verbose": 1}
    cifar10.run_experiment(network, "images", X, y, 2, tmp_path, **given | {"lr": 0.7})
    assert trained[1][0][-1]["lr"] == 0.7


# Runs


@pytest.mark.parametrize(
    ("noise", "training"),
    [("split", "augment"), ("uniform", "stability"), ("deterministic-split", "augment")],
)
def test_a_small_run_learns_and_certifies(noise, training, data, tmp_path):
    options = [f"--data={data}", f"--output={tmp_path}", f"--noise={noise}", f"--training={training}", "--epochs=6"]
    result = run(cifar10.main, *TINY, *options)
    table = accuracies(result.output)
    assert table[0.0][0] == 1.0
    stored = Certificates.from_store(tmp_path / f"{noise}-0.75-{training}.sqlite", radius="lipschitz")
    assert stored.alpha == (0 if noise == "deterministic-split" else 0.001)
    assert table[1.0][0] == pytest.approx((stored.radii >= 1).mean(), abs=5e-4)
    if noise == "deterministic-split":
        assert len(table[0.0]) == 1
        assert stored.alpha == 0
    else:
        assert len(table[0.0]) == 8
        for lipschitz, _, box, greedy, *_ in table.values():
            assert lipschitz <= box <= greedy


def raise_interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_training_and_certifying_go_on_where_they_were_stopped(data, tmp_path, monkeypatch):
    options = [*TINY, f"--data={data}", "--epochs=3"]
    whole = run(cifar10.main, *options, f"--output={tmp_path / 'whole'}")
    weights = torch.load(tmp_path / "whole" / "split-0.75-augment.pt", weights_only=True)
    assert weights["epoch"] == 3

    # Started again, the run finds everything done.
    again = run(cifar10.main, *options, f"--output={tmp_path / 'whole'}")
    assert accuracies(again.output) == accuracies(whole.output)
    same = torch.load(tmp_path / "whole" / "split-0.75-augment.pt", weights_only=True)
    for name, value in weights["module"].items():
        assert torch.equal(value, same["module"][name])

    # A store that lost its last images gets the same ones again.
    store = tmp_path / "whole" / "split-0.75-augment.sqlite"
    before = Certificates.from_store(store).radii
    with sqlite3.connect(store) as connection:
        connection.execute("DELETE FROM results WHERE input >= 5")
    run(cifar10.main, *options, f"--output={tmp_path / 'whole'}")
    np.testing.assert_array_equal(Certificates.from_store(store).radii, before)

    with monkeypatch.context() as patched:
        patched.setattr(cifar10.SmoothedClassifier, "certify", raise_interrupt)
        stopped = run(cifar10.main, *options, f"--output={tmp_path / 'whole'}")
    assert stopped.exit_code == 1
    assert stopped.output.endswith(f"Error: Stopped. {store} keeps the votes so far; run again to continue.\n")

    other = run(cifar10.main, *TINY, f"--data={data}", "--epochs=4", f"--output={tmp_path / 'whole'}")
    assert other.exit_code == 1
    assert "was trained with other settings (epochs)" in other.output
    other = run(cifar10.main, *options, "--width=2", f"--output={tmp_path / 'whole'}")
    assert "was trained with other settings (parameters of the network)" in other.output


def test_a_stopped_training_continues_with_its_weights_and_rate(data, tmp_path):
    images, labels = cifar10.read_images(data, cifar10.TRAIN_FILES, RECORDS)
    recipe = {"epochs": 4, "batch_size": 16, "lr": 0.05, "training": "augment", "seed": 0}

    class Stop(cifar10.Checkpoints):
        def on_epoch_end(self, net, **kwargs):
            super().on_epoch_end(net)
            if self.epoch_ == 2:
                raise KeyboardInterrupt

    class Recorded(cifar10.Checkpoints):
        def on_batch_begin(self, net, **kwargs):
            super().on_batch_begin(net, **kwargs)
            seen.append(net.optimizer_.param_groups[0]["lr"])

    def train(kind, name="net.pt"):
        torch.manual_seed(0)
        network = cifar10.wide_resnet(10, 1, 4)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cifar10, "Checkpoints", kind)
            dataset = cifar10.TrainingImages(images, labels)
            return cifar10.train(network, dataset, SplitNoise(1.0, levels=255), tmp_path / name, recipe)

    seen = []
    with pytest.raises(Exception, match="Stopped after epoch 2 of 4"):
        train(Stop)
    continued = train(Recorded)
    assert not continued.training
    # The second half of the cosine from .05 over four epochs of six batches, and then nothing is left to do.
    np.testing.assert_allclose(seen, 0.05 * (1 + np.cos(np.pi * np.arange(12, 24) / 24)) / 2)
    # The later epochs have their own order, crops and noise: those of a training that was never stopped.
    whole = train(cifar10.Checkpoints, "whole.pt").state_dict()
    for name, value in continued.state_dict().items():
        torch.testing.assert_close(value, whole[name])


def test_training_goes_on_from_the_weights_of_another(data, tmp_path):
    options = [*TINY, f"--data={data}", "--epochs=1"]
    run(cifar10.main, *options, f"--output={tmp_path}")
    first = tmp_path / "split-0.75-augment.pt"
    options += ["--training=stability", f"--start-from={first}", f"--output={tmp_path}"]
    run(cifar10.main, *options, "--stability-weight=2", "--lr=1e-9")
    before, after = (
        torch.load(path, weights_only=True)["module"] for path in (first, tmp_path / "split-0.75-stability.pt")
    )
    for name, value in before.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)
    other = run(cifar10.main, *options, "--stability-weight=3", "--lr=1e-9")
    assert "was trained with other settings (stability_weight)" in other.output
    other = run(cifar10.main, *options, "--width=2", f"--output={tmp_path / 'other'}")
    assert other.exit_code == 1
    assert f"{first}: expected weights of this network, found other content" in other.output
    text = tmp_path / "text.pt"
    text.write_text("no weights")
    other = run(cifar10.main, *options, f"--start-from={text}", f"--output={tmp_path / 'other'}")
    assert f"{text}: expected weights of this network" in other.output


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--device=nowhere", "torch cannot use 'nowhere' here"),
        ("--sigma=0", "0.0 is not in the range x>0"),
        ("--lr=0", "0.0 is not in the range x>0"),
        ("--workers=-1", "-1 is not in the range x>=0"),
        ("--records=0", "0 is not in the range x>=1"),
    ],
)
def test_options_that_cannot_be(option, message, data, tmp_path):
    result = run(cifar10.main, *TINY, f"--data={data}", f"--output={tmp_path}", option)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_a_store_of_another_run_says_what_to_do(data, tmp_path):
    options = [*TINY, f"--data={data}", "--epochs=1", f"--output={tmp_path}"]
    run(cifar10.main, *options)
    other = run(cifar10.main, *options, "--samples=61")
    assert other.exit_code == 1
    assert "n_samples: 60, 61" in other.output
    store = tmp_path / "split-0.75-augment.sqlite"
    assert f"To draw all votes anew, delete {store}; the weights stay." in other.output
    store.unlink()
    assert accuracies(run(cifar10.main, *options, "--samples=61").output)


def test_networks_that_were_not_trained_cannot_be_certified(data, tmp_path):
    result = run(
        cifar10_gpu.main, "certify", f"--data={data}", f"--output={tmp_path}", f"--records={RECORDS}", "--device=cpu"
    )
    assert "there are no weights. Train the network first." in result.output


def test_the_weight_of_stability_reaches_the_loss(data, tmp_path, monkeypatch):
    weights = []
    loss = cifar10.StabilityLoss.forward
    monkeypatch.setattr(
        cifar10.StabilityLoss, "forward", lambda self, *args: weights.append(self.stability_weight) or loss(self, *args)
    )
    options = [*TINY, f"--data={data}", "--epochs=1", "--training=stability"]
    run(cifar10.main, *options, f"--output={tmp_path / 'default'}")
    run(cifar10.main, *options, f"--output={tmp_path / 'given'}", "--stability-weight=2")
    assert set(weights[: len(weights) // 2]) == {6.0}
    assert set(weights[len(weights) // 2 :]) == {2.0}


def test_bad_options_are_refused(data, tmp_path):
    options = [*TINY, f"--data={data}", f"--output={tmp_path}"]
    assert "must be 10, 16, 22" in run(cifar10.main, *options, "--depth=12").output
    assert "needs --training stability" in run(cifar10.main, *options, "--stability-weight=2").output


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An image folder of two classes, dark and bright, in images of several sizes."""
    root, rng = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for part, n in (("train", 8), ("val", 4)):
        for number, name in enumerate(("n01", "n02")):
            (root / part / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(50, size=(20 + i, 30, 3)) + 200 * number
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{i}.png")
    return root


@pytest.mark.slow
def test_imagenet_end_to_end(folders, tmp_path, monkeypatch):
    """With one block in each group instead of 3, 4, 6 and 3."""
    monkeypatch.setattr(imagenet, "resnet_50", partial(imagenet.resnet_50, depths=(1, 1, 1, 1)))
    options = ["--size=32", "--every=2", "--epochs=10", "--batch-size=8", "--samples=20", "--sigma=0.75", "--lr=0.02"]
    result = run(imagenet.main, f"--data={folders}", f"--output={tmp_path}", "--device=cpu", *options)
    assert "4/4" in result.output
    assert accuracies(result.output)[0.0][0] == 1.0
    assert {"split-0.75-augment.pt", "split-0.75-augment.sqlite"} <= {path.name for path in tmp_path.iterdir()}


def test_the_resnet_of_imagenet_answers_and_learns(folders):
    paths, labels = imagenet.find_images(folders / "train")
    assert labels.tolist() == [0] * 8 + [1] * 8
    images = imagenet.Images(paths, labels, size=32, training=True)
    batch = torch.stack([images[i][0] for i in range(4)])
    assert batch.shape == (4, 3, 32, 32)
    assert 0 <= batch.min() < batch.max() <= 1
    network = imagenet.resnet_50(2, depths=(1, 1, 1, 1))
    network(batch).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_classes_of_images_are_folders_in_sorted_order(tmp_path):
    for name, files in {"b": ["2.JPEG", "1.png", "notes.txt"], "a": ["9.jpg"], "c": ["3.png"]}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    (tmp_path / "readme.txt").touch()
    paths, labels = imagenet.find_images(tmp_path)
    assert [path.name for path in paths] == ["9.jpg", "1.png", "2.JPEG", "3.png"]
    assert labels.tolist() == [0, 1, 1, 2]
    (tmp_path / "b2").mkdir()
    with pytest.raises(Exception, match=r"expected one folder for each class .*, found 4 folders with 4 images"):
        imagenet.find_images(tmp_path)


def test_training_and_validation_have_the_same_classes(folders, tmp_path):
    for part, names in (("train", "ab"), ("val", "ac")):
        for name in names:
            (tmp_path / part / name).mkdir(parents=True)
            image = next((folders / "train").rglob("*.png"))
            (tmp_path / part / name / "1.png").write_bytes(image.read_bytes())
    result = run(imagenet.main, f"--data={tmp_path}", f"--output={tmp_path}")
    assert "train and val must have the same folders of classes, but only one of them has b, c." in result.output


def test_random_parts_of_images():
    torch.manual_seed(0)
    boxes = np.array([imagenet.random_part(200, 100) for _ in range(500)])
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= 200 + 1e-4).all()
    assert (boxes[:, 3] <= 100 + 1e-4).all()
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    share, aspect = w * h / 20_000, w / h
    assert share.min() == pytest.approx(0.08, abs=0.02)
    # Parts of an aspect ratio near 1 that would be higher than the image are as high as it is.
    whole = h < 100 - 1e-6
    assert aspect[whole].min() == pytest.approx(3 / 4, abs=0.02)
    assert aspect[whole].max() == pytest.approx(4 / 3, abs=0.02)
    assert share.max() > 0.6
    assert (boxes[:, 0] > 60).any()


def test_images_are_mirrored_in_training_alone(tmp_path):
    pixels = np.zeros((16, 16, 3), dtype=np.uint8)
    pixels[:, 8:] = np.linspace(0, 255, 8).astype(np.uint8)[:, None]
    (tmp_path / "one").mkdir()
    Image.fromarray(pixels).save(tmp_path / "one" / "x.png")
    torch.manual_seed(0)
    rises = {}
    for training in (True, False):
        images = imagenet.Images(*imagenet.find_images(tmp_path), size=16, training=training)
        rows = [images[0][0].mean(dim=(0, 1)) for _ in range(30)]
        rises[training] = {bool(row[-1] > row[0]) for row in rows}
    assert rises == {True: {True, False}, False: {True}}


def test_images_are_cut_in_the_middle_to_be_certified(tmp_path):
    # 16 x 32: the central 14 x 14 pixels are white.
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[1:15, 9:23] = 255
    (tmp_path / "one").mkdir()
    Image.fromarray(pixels).save(tmp_path / "one" / "x.png")
    paths, labels = imagenet.find_images(tmp_path)
    image, label = imagenet.Images(paths, labels, size=14, training=False)[0]
    assert label == 0
    assert (image == 1).all()


def test_the_commands_for_a_gpu_run_on_a_cpu(data, tmp_path):
    options = [f"--data={data}", f"--output={tmp_path}", f"--records={RECORDS}", "--depth=10", "--width=1", "--patch=4"]
    options += ["--device=cpu", "--precision=float32", "--batch-size=20"]
    run(cifar10_gpu.main, "train", *options, "--seconds=1.5", "--workers=0", "--lr=0.1")
    trained = json.loads((tmp_path / "split-1.75-augment.train.json").read_text())
    assert trained["epochs"] > 0
    assert trained["seconds"] >= 1.5
    run(cifar10_gpu.main, "certify", *options, "--images=6", "--samples=60", "--measure=0.1", "--at=0.5")
    certified = json.loads((tmp_path / "split-1.75-augment.certify.json").read_text())
    stored = Certificates.from_store(tmp_path / "split-1.75-augment.sqlite", radius="box")
    _, y = cifar10.read_images(data, cifar10.TEST_FILES, RECORDS)
    y = y[np.linspace(0, RECORDS - 1, 6).round().astype(int)]
    assert certified["box, multiclass"] == certified_accuracy_score(y, stored, cifar10_gpu.RADII).round(4).tolist()
    assert certified["bare network per second"] > 0
    assert certified["certify_at 0.5"]["votes per image"] <= 60

    first = tmp_path / "split-1.75-augment.pt"
    stability = ["--training=stability", f"--start-from={first}", "--stability-weight=2", "--lr=1e-9"]
    run(cifar10_gpu.main, "train", *options, "--seconds=0.1", "--workers=0", *stability)
    before, after = (
        torch.load(tmp_path / f"split-1.75-{kind}.pt", weights_only=True) for kind in ("augment", "stability")
    )
    assert torch.allclose(before["module.head.weight"], after["module.head.weight"], atol=1e-6)


@pytest.mark.slow
def test_the_check_of_a_gpu_runs_on_a_cpu(tmp_path):
    result = run(gpu.main, "--device=cpu", "--tiny", f"--output={tmp_path}")
    assert result.exit_code == 0
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    measured = {row["measured"]: row for row in rows}
    exact = [row for row in rows if row["goal"] == "0"]
    assert len(exact) == 5
    assert [row["value"] for row in exact] == [0] * 5
    assert {"MNIST network", "WideResNet-40-2, fp32", "WideResNet-40-2, bf16", "ResNet-50, bf16, compiled"} <= set(
        measured
    )
    assert all(row["value"] > 0 for row in rows if row not in exact)
    assert sum("certify_at" in name for name in measured) == len(gpu.RADII)
    table = (tmp_path / "gpu.md").read_text()
    assert all(name in table for name in measured)


def test_the_check_of_a_gpu_needs_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run(gpu.main, f"--output={tmp_path}")
    assert result.exit_code == 1
    assert "Use --device cpu --tiny" in result.output


def test_wrong_noise_is_found(monkeypatch):
    """A reference that differs in one value stands for a device that draws another one."""
    sample = gpu.reference.sample

    def other(recipe, points, keys, segments, out):
        sample(recipe, points, keys, segments, out)
        out[0, 0] += 1

    monkeypatch.setattr(gpu.reference, "sample", other)
    (found,) = gpu.kernel_integers(gpu.Setting("cpu", tiny=True))
    # Once in each comparison: two families, 11 lattices, two sizes, two types.
    assert found["value"] == 2 * 11 * 2 * 2


def test_the_rate_of_the_timed_schedule_rises_and_falls_to_0(monkeypatch):
    schedule = cifar10_gpu.TimedSchedule(seconds=100)
    net = SimpleNamespace(lr=1.0, optimizer_=SimpleNamespace(param_groups=[{"lr": 1.0}]))
    now, rates = [0.0], []
    monkeypatch.setattr(cifar10_gpu.time, "perf_counter", lambda: now[0])
    schedule.on_train_begin(net)
    for _ in range(cifar10_gpu.PREPARATION):
        schedule.on_batch_begin(net, batch=(None, [0]))
    for now[0] in (2.0, 4.0, 50.0, 99.9):
        schedule.on_batch_begin(net, batch=(None, [0]))
        rates.append(net.optimizer_.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, [0.5, 1.0, 0.5, 0.0], atol=5e-3)
    now[0] = 100.1
    with pytest.raises(KeyboardInterrupt):
        schedule.on_batch_begin(net, batch=(None, [0]))


# Figures


def bright(batch):
    """Ten classes by the mean of the features."""
    return np.clip(batch.mean(axis=1) * 28 - 9.5, 0, 9).astype(int)


def constant(batch):
    return np.full(len(batch), 3)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Stores as the scripts write them, of a function in place of a network."""
    folder, rng = tmp_path_factory.mktemp("stores"), np.random.default_rng(0)
    X, y = (rng.random((40, 200)) < np.linspace(0, 1, 40)[:, None]).astype(float), None
    made = [("split", 0.5, "augment"), ("split", 4, "stability"), ("split", 2.5, "augment")]
    made += [("uniform", 0.5, "augment"), ("uniform", 9, "augment"), ("deterministic-split", 0.5, "stability")]
    for noise, sigma, training in made:
        clf = SmoothedClassifier.from_pretrained(
            constant if sigma == 9 else bright,
            range(10),
            cifar10.NOISES[noise].from_sigma(sigma, levels=255),
            n_samples=2000,
            random_state=0,
        )
        y = clf.predict(X) if y is None else y
        clf.certify(X, store=folder / f"{noise}-{sigma:g}-{training}.sqlite", y=y)
    return folder


def test_the_presets_are_the_grids_of_the_paper():
    assert len(figures.CIFAR10_SIGMAS) == 27
    assert figures.CIFAR10_SIGMAS[:3] == [0.15, 0.25, 0.5]
    assert figures.CIFAR10_SIGMAS[14:17] == [3.5, 4, 4.5]
    assert figures.CIFAR10_SIGMAS[-4:] == [8, 9, 10, 12]
    assert sorted(sigma for number in range(7, 16) for sigma in figures.PANELS[number]) == figures.CIFAR10_SIGMAS
    assert figures.PANELS[16] + figures.PANELS[17] == figures.IMAGENET_SIGMAS


@pytest.mark.slow
def test_figures_are_drawn_and_say_what_is_missing(stores, tmp_path):
    drawn = [1, 2, 4, 5, 6, 9, 15]
    result = run(figures.main, f"--cifar10={stores}", f"--output={tmp_path}", *drawn)
    assert result.exit_code == 0
    for number in drawn:
        image = matplotlib.image.imread(tmp_path / f"paper_figure_{number}.png")
        assert image[..., :3].std() > 0.05
    lines = result.output.splitlines()
    assert any(line.endswith("paper_figure_4.png") for line in lines)
    assert any(line.endswith("paper_figure_9.png: without sigma=1.5 augment, sigma=1.5 stability, sigma=1.75 augment, "
                             "sigma=1.75 stability, sigma=2 augment, sigma=2 stability") for line in lines)  # fmt: skip
    (said,) = [line for line in lines if "constant" in line]
    assert "uniform-9-augment.sqlite" in said


def test_a_constant_classifier_is_shown_as_such_and_kept_out_of_the_envelope(stores):
    results = figures.find_results([stores])
    assert [one.sigma for one in results if one.constant] == [9]
    fig, _ = figures.panels(15, results)
    labels = {line.get_label() for ax in fig.axes for line in ax.lines if line.get_gid() == "curve"}
    assert labels == {"uniform, a constant classifier", "uniform++, a constant classifier"}
    fig, missing = figures.figure_1(results, [])
    curves = {line.get_label(): line for line in fig.axes[0].lines}
    assert missing == ""
    # Certified everywhere, it would keep the curve at the share of its class.
    assert curves["uniform++"].get_ydata()[-1] == 0


def test_the_envelope_is_the_best_at_each_radius(stores):
    results = figures.select(figures.find_results([stores]), noise="split")
    best = figures.envelope(results, "greedy")
    at = best.radii
    single = [certified_accuracy_score(one.y, one.certificates("greedy"), at) for one in results]
    assert len(single) == 3
    np.testing.assert_array_equal(best.accuracy, np.max(single, axis=0))
    assert best.accuracy[0] > 0.5


def test_figure_4_certifies_as_the_library_does(stores):
    (result,) = figures.select(figures.find_results([stores]), noise="split", sigma=4.0)
    at = np.linspace(0, 10, 200)
    for alpha in (0.1, 1e-6):
        stored = Certificates.from_store(result.path, radius=BoxRadius(closed_form=True), scheme="binary", alpha=alpha)
        drawn = figures.closed_form_curve(result, at, alpha, None, np.random.default_rng(0))
        np.testing.assert_array_equal(drawn, certified_accuracy_score(result.y, stored, at))
    fewer = figures.closed_form_curve(result, at, 0.001, 50, np.random.default_rng(0))
    assert fewer.sum() < figures.closed_form_curve(result, at, 0.001, None, np.random.default_rng(0)).sum()


def lines_of(ax):
    return {line.get_label(): line for line in ax.lines if line.get_gid() == "curve"}


def height(line, radius):
    """Height of a drawn step curve at a radius."""
    x, y = line.get_data()
    return y[np.searchsorted(x, radius)]


def test_figure_6_has_both_schemes(stores):
    results = figures.find_results([stores])
    fig, missing = figures.figure_6(results, [])
    (result,) = figures.select(results, sigma=2.5)
    lines = lines_of(fig.axes[0])
    assert (missing, list(lines)) == ("", ["split, multiclass", "split, binary"])
    heights = []
    for scheme in ("multiclass", "binary"):
        stored = Certificates.from_store(result.path, radius="greedy", scheme=scheme)
        line = lines[f"split, {scheme}"]
        at = np.linspace(0, 20, 400)
        heights.append([height(line, radius) for radius in at])
        assert heights[-1] == certified_accuracy_score(result.y, stored, at).tolist()
    assert heights[0] != heights[1]
    assert figures.figure_6([], [])[1] == "needs stores of sigma=2.5, augment"


def test_figure_5_has_networks_of_stability_training(stores):
    results = figures.find_results([stores])
    fig, missing = figures.figure_5(results, [])
    assert missing == "without ImageNet split, ImageNet split++, ImageNet deterministic"
    assert [ax.get_title().split(",")[0] for ax in fig.axes] == ["Figure 5: ImageNet", "Figure 5: CIFAR-10"]
    lines = lines_of(fig.axes[1])
    assert list(lines) == ["split", "split++", "deterministic"]
    for label, sigma, radius in (
        ("split", 4.0, "lipschitz"),
        ("split++", 4.0, "greedy"),
        ("deterministic", 0.5, "lipschitz"),
    ):
        (result,) = figures.select(results, sigma=sigma, training="stability")
        expected = certified_accuracy_score(result.y, result.certificates(radius), [0.0, 0.25, 1.0])
        assert [height(lines[label], at) for at in (0.0, 0.25, 1.0)] == expected.tolist()


def test_stores_are_found_by_name_and_figures_take_their_data(stores, tmp_path):
    for name in ("split-1-augment.json", "gauss-1-augment.sqlite", "split-1-none.sqlite", "old-split-1-augment.sqlite"):
        (tmp_path / name).touch()
    assert figures.find_results([tmp_path]) == []
    results = figures.find_results([tmp_path, stores])
    assert sorted({(one.noise, one.sigma, one.training) for one in results}) == [
        ("deterministic-split", 0.5, "stability"),
        ("split", 0.5, "augment"),
        ("split", 2.5, "augment"),
        ("split", 4.0, "stability"),
        ("uniform", 0.5, "augment"),
        ("uniform", 9.0, "augment"),
    ]
    nothing = "without sigma=0.5 augment"
    assert not figures.FIGURES[16]([], results)[1].startswith(nothing)
    assert figures.FIGURES[16](results, [])[1].startswith(nothing)
    assert not figures.FIGURES[7](results, [])[1].count("sigma=0.5 augment")
    assert (
        figures.figure_1(figures.select(results, noise="split"), results)[1]
        == "without uniform, uniform++, deterministic"
    )


def test_figure_2_is_corollary_2_7(tmp_path):
    fig, _ = figures.figure_2([], [])
    lines = {line.get_label(): line for line in fig.axes[0].lines}
    p_a, radii = lines["lam=4, Corollary 2.7"].get_data()
    np.testing.assert_allclose(radii, np.log(1.5 - p_a) / np.log(1 - 1 / 8), rtol=1e-12)
    np.testing.assert_allclose(lines["lam=4, Corollary 2.4"].get_ydata(), 8 * (p_a - 0.5), rtol=1e-12)
