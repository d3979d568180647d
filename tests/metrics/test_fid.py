"""FID and KID: formulas against closed forms, protocols against clean-fid, weights that are there or not."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from gtool.errors import CheckpointError, DataError, NetworkError
from gtool.io.files import cache_dir
from gtool.metrics import kid as kid_module
from gtool.metrics.features import inception, weights
from gtool.metrics.features.collector import FeatureCollector, Features
from gtool.metrics.features.inception import InceptionExtractor, load_inception
from gtool.metrics.features.published import MODES
from gtool.metrics.features.weights import INCEPTION
from gtool.metrics.fid import distance, fid
from gtool.metrics.frechet import Gaussian, Moments, frechet, frechet_of_rows
from gtool.metrics.kid import kid
from gtool.metrics.reference import reference_features
from tests.helpers import pictures


def rows(count, size=16, seed=0, shift=0.0):
    random = np.random.RandomState(seed)
    mixing = np.random.RandomState(99).randn(size, size)
    return torch.from_numpy(random.randn(count, size) @ mixing + shift)


def fit(data):
    return Moments.of(data).gaussian()


def kid_of(fake, real, seed=0):
    return kid(Features.of(fake), Features.of(real), seed)["kid"]


# Distances.


def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    mean, deviation = torch.randn(2, 6).double(), torch.rand(2, 6).double() + 0.1
    gaussians = [Gaussian(10, m, torch.diag(s**2)) for m, s in zip(mean, deviation, strict=True)]
    expected = float((mean[0] - mean[1]).square().sum() + (deviation[0] - deviation[1]).square().sum())
    assert frechet(*gaussians) == pytest.approx(expected, rel=1e-10)


def test_frechet_is_symmetric_and_zero_on_itself():
    first, second = fit(rows(50)), fit(rows(60, seed=1, shift=0.3))
    assert frechet(first, second) == pytest.approx(frechet(second, first), rel=1e-9)
    assert frechet(first, first) == pytest.approx(0, abs=1e-9)


def test_what_is_no_covariance_or_gives_no_number_is_refused():
    mean, whole = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    sound = Gaussian(9, mean, whole)
    bent = whole + torch.tensor([[0, 2, 0], [2, 0, 0], [0, 0, 0]])  # eigenvalues -1, 1, 3
    with pytest.raises(DataError, match="negative eigenvalues"):
        frechet(Gaussian(9, mean, bent), sound)
    with pytest.raises(DataError, match="came out as inf"):
        frechet(Gaussian(9, mean + 1e200, whole), sound)


def test_the_route_for_few_rows_agrees_with_the_full_one():
    first, second = rows(20, size=64), rows(30, size=64, seed=1, shift=0.2)
    assert frechet_of_rows(first, second) == pytest.approx(frechet(fit(first), fit(second)), rel=1e-6)


def test_moments_of_shards_merge_into_those_of_the_whole():
    data = rows(1000) + 50
    merged = Moments.of(data[:1])
    for part in data[1:].split([299, 700]):
        shard = Moments.of(part[:37])
        for batch in part[37:].split(37):
            shard.join(Moments.of(batch))
        merged.join(shard)
    assert merged.count == 1000
    torch.testing.assert_close(merged.gaussian().covariance, torch.cov(data.T), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(merged.gaussian().mean, data.mean(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "measure",
    [lambda a, b: frechet(fit(a), fit(b)), lambda a, b: distance(Features.of(a), Features.of(b)), kid_of],
)
def test_distances_refuse_single_images_and_what_is_not_finite(measure):
    with pytest.raises(DataError, match="at least 2 images"):
        measure(rows(1), rows(20))
    spoiled = rows(20)
    spoiled[3, 4] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        measure(spoiled, rows(20))


def clean_fid():
    """clean-fid's module, which fails on its own with SciPy >= 1.18."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cleanfid import fid as module
    return module


def test_frechet_equals_clean_fid():
    scipy = pytest.importorskip("scipy")
    if tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 18):
        pytest.skip("clean-fid's own distance fails on this SciPy")
    first, second = rows(300, size=24), rows(400, size=24, seed=1, shift=0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = clean_fid().fid_from_feats(first.numpy(), second.numpy())
    assert frechet(fit(first), fit(second)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("num_fake", "num_real"), [(40, 60), (300, 400)])
def test_kid_equals_clean_fid_subset_by_subset(num_fake, num_real, monkeypatch):
    monkeypatch.setattr(kid_module, "NUM_SUBSETS", 20)
    monkeypatch.setattr(kid_module, "SUBSET_SIZE", 50)
    fake, real = rows(num_fake), rows(num_real, seed=1, shift=0.2)
    np.random.seed(5)  # clean-fid draws its subsets from NumPy's global generator
    expected = clean_fid().kernel_distance(fake.numpy(), real.numpy(), num_subsets=20, max_subset_size=50)
    assert kid_of(fake, real, seed=5) == pytest.approx(expected, rel=1e-9)


def test_kid_of_two_halves_of_one_set_is_about_zero():
    measured = kid_of(rows(600), rows(600, seed=1))
    assert abs(measured) < 0.05 * kid_of(rows(600), rows(600, seed=1, shift=1.0))


def test_kid_leaves_numpys_generator_as_it_was():
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    kid_of(rows(40), rows(60))
    assert np.random.rand() == expected


# Protocols.


@pytest.fixture(scope="module")
def network(inception_files):
    return load_inception(inception_files[0])


def test_both_file_layouts_give_the_same_network(inception_files, network):
    other = load_inception(inception_files[1]).state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("mode", MODES)
def test_features_equal_clean_fid(mode, inception_files, network, monkeypatch):
    images = torch.from_numpy(pictures.draw(3, seed=0, side=40))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        expected = _clean_fid_features(images, mode, inception_files, monkeypatch)
    got = InceptionExtractor(network, mode)(images)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def _clean_fid_features(images, mode, inception_files, monkeypatch):
    from cleanfid import inception_pytorch, inception_torchscript
    from cleanfid.resize import build_resizer

    resize = build_resizer(mode)
    resized = [resize(image.permute(1, 2, 0).numpy()).astype(np.float32) for image in images]
    batch = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)
    if mode == "legacy_pytorch":
        monkeypatch.setattr(
            inception_pytorch, "load_state_dict_from_url", lambda *_, **__: torch.load(inception_files[0])
        )
        return inception_pytorch.InceptionV3(resize_input=False).eval()(batch / 255)[0][:, :, 0, 0]
    inside = mode == "legacy_tensorflow"
    return inception_torchscript.InceptionV3W(
        str(inception_files[1].parent), download=False, resize_inside=inside
    )(batch)


def test_packed_layers_change_no_feature_and_are_not_needed(inception_files, monkeypatch):
    images = torch.from_numpy(pictures.draw(2, seed=0))
    quick = InceptionExtractor(load_inception(inception_files[0]))(images)
    monkeypatch.setattr(inception, "has_packing", lambda _: False)
    plain = InceptionExtractor(load_inception(inception_files[0]))(images)
    torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))


def test_a_preview_computes_in_bf16_and_answers_in_fp32(inception_files, network):
    images = torch.from_numpy(pictures.draw(2, seed=0))
    quick = InceptionExtractor(load_inception(inception_files[0]), dtype="bf16")(images)
    plain = InceptionExtractor(network)(images)
    assert quick.dtype == torch.float32
    assert float((quick - plain).norm() / plain.norm()) == pytest.approx(0.05, abs=0.05)
    assert not torch.equal(quick, plain)


def test_images_of_several_sizes_are_resized_one_by_one(network):
    small, large = (torch.from_numpy(pictures.draw(1, seed=0, side=side))[0] for side in (24, 40))
    together = InceptionExtractor(network)([small, large])
    apart = torch.cat([InceptionExtractor(network)(image[None]) for image in (small, large)])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


def collect(data, *, keep_rows=False):
    collector = FeatureCollector(keep_rows=keep_rows)
    for batch in data.split(500):
        collector.add(batch)
    return collector.features()


def test_rows_are_kept_while_they_are_fewer_than_dimensions_or_wanted():
    data = torch.randn(2100, 2048)
    assert collect(data[:2000]).rows is not None
    assert collect(data).rows is None
    kept = collect(data, keep_rows=True)
    assert kept.rows is not None
    assert torch.equal(kept.rows, data)
    torch.testing.assert_close(kept.gaussian.covariance, torch.cov(data.T.double()), rtol=1e-8, atol=1e-8)


# Weights.

NAME, DIGEST = next(iter(INCEPTION.files.items()))


def test_without_weights_the_message_says_everything(monkeypatch, tmp_path):
    monkeypatch.delenv(INCEPTION.variable, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    planted = cache_dir() / "weights" / "inception-2015-12-05.pt"
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b"cut short")
    with pytest.raises(NetworkError) as raised:
        weights.find_weights(INCEPTION)
    message = str(raised.value)
    parts = [
        INCEPTION.variable,
        "--weights",
        "--rfd",
        "--swd",
        "/tmp",
        str(tmp_path / "torch"),
        str(planted),
        "offline",
    ]
    assert [part for part in [*parts, *INCEPTION.files] if part not in message] == []
    assert "\n" not in message


def test_a_named_file_must_exist_and_its_digest_names_the_protocol(inception_files, monkeypatch, tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        weights.find_weights(INCEPTION, tmp_path / "none.pth")
    monkeypatch.setenv(INCEPTION.variable, str(inception_files[0]))
    found = weights.find_weights(INCEPTION)
    assert found.path == inception_files[0]
    assert found.label == f"inception-{found.sha256[:8]}"
    assert weights.WeightsFile(INCEPTION, inception_files[0], DIGEST).label == "inception-2015"


def test_a_known_place_is_trusted_only_with_the_published_digest(monkeypatch, tmp_path):
    monkeypatch.delenv(INCEPTION.variable, raising=False)
    path = cache_dir() / "weights" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    monkeypatch.setattr(weights, "digest_of", lambda _: DIGEST)
    assert weights.find_weights(INCEPTION).path == path


@pytest.mark.parametrize("name", ["other.pth", "other.pt"])
def test_a_file_that_is_no_inception_is_refused_in_one_line(name, tmp_path, inception_files):
    path = tmp_path / name
    path.write_bytes(inception_files[0].read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=re.escape(str(path))) as raised:
        load_inception(path)
    assert "\n" not in str(raised.value)


def test_a_layer_of_another_shape_is_named(tmp_path, inception_files):
    tensors = torch.load(inception_files[0])
    tensors["Mixed_6c.branch7x7_2.conv.weight"] = torch.zeros(2, 2)
    torch.save(tensors, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="Mixed_6c"):
        load_inception(tmp_path / "other.pth")


# Cached reference features.


def test_reference_features_are_computed_once_per_key():
    built = []

    def build():
        built.append(1)
        return collect(torch.randn(30, 2048))

    first = reference_features({"source": "a"}, build)
    again = reference_features({"source": "a"}, build)
    reference_features({"source": "b"}, build)
    assert len(built) == 2
    assert torch.equal(first.rows, again.rows)


def test_a_cache_that_cannot_be_written_is_one_line(monkeypatch, tmp_path):
    def full(*_, **__):
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("gtool.io.weights.save_file", full)
    with pytest.raises(DataError, match=r"No space left on device; set \$GTOOL_CACHE"):
        reference_features({"source": "a"}, lambda: collect(torch.randn(3, 2048)))
    assert [path.suffix for path in (cache_dir() / "stats").iterdir()] == [".lock"]
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GTOOL_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cache folder .*; set \$GTOOL_CACHE"):
        reference_features({"source": "a"}, pytest.fail)


def test_a_damaged_or_insufficient_cache_file_is_made_again():
    moments_only = Features(2100, None, Moments.of(torch.randn(2100, 2048)))
    cached = reference_features({"source": "a"}, lambda: moments_only)
    assert reference_features({"source": "a"}, pytest.fail).gaussian.count == cached.count
    complete = reference_features({"source": "a"}, lambda: collect(torch.randn(30, 2048)), need_rows=True)
    assert complete.rows is not None
    (path,) = (cache_dir() / "stats").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    assert reference_features({"source": "a"}, lambda: collect(torch.ones(5, 2048))).count == 5


def test_fid_of_streamed_and_cached_moments_sees_a_shift_exactly():
    real = torch.randn(1100, 1024)  # more rows than dimensions, so that moments are kept
    cached = reference_features({"source": "a"}, lambda: collect(real), size=1024)
    assert fid(collect(real + 0.1), cached)["fid"] == pytest.approx(1024 * 0.1**2, rel=1e-4)
