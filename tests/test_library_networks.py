"""Networks of other families than ConvNet and ResNet."""

import pytest
import torch

from dmgd.evaluation.networks import make_network, parameter_count, smallest_size


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("mobilenet-v2", 3_504_872),
        ("efficientnet-b0", 5_288_548),
        ("vit-tiny", 5_717_416),
        ("swin-tiny", 28_288_354),
        ("resnet-50", 25_557_032),
    ],
)
def test_at_224_pixels_they_have_the_published_parameters(name, published):
    with torch.device("meta"):
        network = make_network(name, num_classes=1000, channels=3, size=224, norm="batch")
    assert parameter_count(network) == published


@pytest.mark.parametrize("name", ["mobilenet-v2", "efficientnet-b0", "vit-tiny", "swin-tiny"])
def test_they_take_grey_images_of_the_smallest_size_and_are_functions_of_the_seed(name):
    size = smallest_size(name)
    outputs = []
    for _ in range(2):
        torch.manual_seed(0)
        network = make_network(name, num_classes=7, channels=1, size=size, norm="instance").train()
        outputs.append(network(torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(1))))
    assert outputs[0].shape == (2, 7)
    assert torch.equal(*outputs)
    torch.autograd.grad(outputs[-1].sum(), list(network.parameters()))  # every parameter is used


def test_a_network_that_is_too_large_for_the_images_is_refused(inline, tmp_path):
    run = tmp_path / "run"
    inline("distill", "--source", "digits", "--method", "random", "--ipc", 1, "--out", run)
    said = inline("evaluate", run, "--network", "mobilenet-v2", "--repeats", 1, "--epochs", 1, code=2).stderr
    assert "mobilenet-v2 needs images of at least 64 pixels, not 8; give --size 64" in said
