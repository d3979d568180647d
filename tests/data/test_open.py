"""What a data set's name leads to, and what is found there."""

from __future__ import annotations

import os
import shutil
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from PIL import Image

from gtool.data.names import SHORT_NAMES, find_dataset
from gtool.data.open import open_dataset
from gtool.errors import DataError, NetworkError
from gtool.io import hub
from gtool.io.image import UnreadableImage
from tests.data.helpers import greys, names
from tests.helpers import odd_images as odd

# Names


def test_scenes_are_built_in():
    source = open_dataset("scenes", num_images=5, resolution=24)
    assert (source.kind, len(source)) == ("scenes", 5)
    assert source.read(3).shape == (24, 24, 3)


def test_scenes_are_20000_and_their_test_split_is_drawn_apart():
    train, test = open_dataset("scenes"), open_dataset("scenes", split="test")
    assert (len(train), len(test)) == (20_000, 2_000)
    assert not np.array_equal(train.read(0), test.read(0))
    assert train.fingerprint != test.fingerprint


def test_data_folders_are_searched_first(tmp_path, monkeypatch):
    odd.folder(tmp_path / "other" / "cifar10", 3)
    monkeypatch.setenv("GTOOL_DATA", os.pathsep.join([str(tmp_path / "none"), str(tmp_path / "other")]))
    for name in ("cifar10", "uoft-cs/cifar10"):
        assert greys(open_dataset(name)) == [0, 10, 20]


def test_data_folders_may_hold_a_zip(tmp_path, monkeypatch):
    zip_of(odd.folder(tmp_path / "a", 3), tmp_path / "mine.zip")
    monkeypatch.setenv("GTOOL_DATA", str(tmp_path))
    assert open_dataset("mine").kind == "zip"


@pytest.mark.parametrize("name", ["mine/photos/", "mine/photos", "photos/"])
def test_folder_here_is_not_mistaken_for_one_in_the_data_folders(name, tmp_path, monkeypatch):
    odd.folder(tmp_path / "data" / "photos", 2)
    for where in ("mine/photos", "photos"):
        odd.folder(tmp_path / where, 3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GTOOL_DATA", "data")
    assert len(open_dataset(name)) == 3


def test_short_name_becomes_a_hub_id():
    assert find_dataset("CIFAR10").repository == "uoft-cs/cifar10"
    place = find_dataset("svhn")
    assert (place.repository, place.config) == ("ufldl-stanford/svhn", "cropped_digits")
    assert find_dataset("owner/name:part").config == "part"
    assert all("/" in target for target in SHORT_NAMES.values())


WRONG = {
    "./nothing": "./nothing: no such folder",
    "~/no-such-photos-here": "no-such-photos-here: no such folder",
    "a/b/c": "data set `a/b/c`: no such folder, file or known name",
    "photos.zip": "data set `photos.zip`: no such folder",
    "owner/photos.zip": "owner/photos.zip: no such file",
    "./photos.zip": "./photos.zip: no such file",
    "cifra10": "did you mean `cifar10`?",
    "scene": "did you mean `scenes`?",
    "./*.parquet": "no such file",
    "": "the data set has no name",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_name_is_one_line_and_asks_no_network(name, monkeypatch):
    monkeypatch.setattr(hub, "is_reachable", None)
    monkeypatch.setenv("GTOOL_DATA", ".")
    with pytest.raises(DataError) as caught:
        open_dataset(name)
    assert WRONG[name] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_misspelt_path_names_the_nearest(tmp_path):
    odd.folder(tmp_path / "flowers")
    with pytest.raises(DataError, match="did you mean `flowers`"):
        open_dataset("./flower")


@pytest.mark.parametrize("name", ["./photo.png", "./table.csv"])
def test_file_that_is_no_set_is_refused(name, tmp_path):
    odd.plain(tmp_path / "photo.png")
    (tmp_path / "table.csv").write_text("a,b")
    with pytest.raises(DataError, match=r"give a folder of images, a \.zip of them or a \.parquet file"):
        open_dataset(name)


# Folders


def test_folder_is_searched_deeply_and_in_order(tmp_path):
    for name in (
        "b.PNG",
        "a/c.Jpeg",
        "a/deep/x.webp",
        ".hidden/d.png",
        "a/.e.png",
        "__MACOSX/f.png",
        "notes.txt",
    ):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {".jpeg": "JPEG", ".webp": "WEBP"}.get(path.suffix.lower(), "PNG")
        Image.new("RGB", (4, 4)).save(path, kind)
    assert names(open_dataset("./set")) == ["a/c.Jpeg", "a/deep/x.webp", "b.PNG"]


SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "avif", "jp2", "tga", "pcx")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_promised_format_is_read(suffix, tmp_path):
    for index in range(2):
        odd.plain(tmp_path / "set" / f"{index}.{suffix}")
    red, green, blue = open_dataset("./set").read(1)[5, 5]
    assert red > 200
    assert max(green, blue) < 60


def test_links_are_followed_once(tmp_path):
    odd.folder(tmp_path / "set", 2)
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set")
    odd.folder(tmp_path / "elsewhere", 1)
    (tmp_path / "set" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "broken.png").symlink_to(tmp_path / "gone.png")
    source = open_dataset("./set")
    assert names(source) == ["00.png", "01.png", "broken.png", "more/00.png"]
    with pytest.raises(UnreadableImage, match=r"broken\.png: .*No such file"):
        source.read(2)


def test_class_folders_are_labels(tmp_path):
    for name in ("dog/1", "cat/2", "dog/3"):
        odd.plain(tmp_path / "set" / f"{name}.png")
    source = open_dataset("./set")
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [0, 1, 1]


def test_empty_folder_says_what_was_looked_for(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match=r"no images found \(looked for avif bmp gif"):
        open_dataset("./set")


def test_single_image_is_not_enough(tmp_path):
    odd.folder(tmp_path / "set", 1)
    with pytest.raises(DataError, match="1 image found; at least 2 are needed"):
        open_dataset("./set")


def test_folder_has_no_columns(tmp_path):
    odd.folder(tmp_path / "set")
    with pytest.raises(DataError, match="has no columns, so none named `photo`"):
        open_dataset("./set", columns={"image": "photo"})


def test_folder_has_no_configurations(tmp_path):
    odd.folder(tmp_path / "set")
    with pytest.raises(DataError, match="has no configurations, so none named `large`"):
        open_dataset("./set:large")


def test_num_images_is_a_seeded_choice(tmp_path):
    odd.folder(tmp_path / "set", 9)
    first, again, other = (open_dataset("./set", num_images=4, seed=seed) for seed in (0, 0, 1))
    assert greys(first) == greys(again) == sorted(greys(first))
    assert greys(first) != greys(other)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert "9 images, not 20; all are used" in open_dataset("./set", num_images=20).describe()


# Zips


def zip_of(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder.parent).as_posix())
    return path


def test_zip_is_read_like_its_folder(tmp_path):
    for name, grey in (("cat/1", 10), ("dog/2", 20), ("dog/3", 30)):
        odd.plain(tmp_path / "set" / f"{name}.png", (grey,) * 3)
    source = open_dataset(str(zip_of(tmp_path / "set", tmp_path / "set.zip")))
    assert greys(source) == [10, 20, 30]
    assert source.labels.tolist() == [0, 1, 1]


def test_zip_with_damage_names_the_file(tmp_path):
    path = zip_of(odd.folder(tmp_path / "set", 3), tmp_path / "set.zip")
    content = bytearray(path.read_bytes())
    content[60] ^= 255  # inside the first file
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=r"set/00\.png: damaged"):
        open_dataset("./set.zip").read(0)


def test_file_that_is_no_zip_is_one_line(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"text")
    with pytest.raises(DataError, match=r"set\.zip: not a readable zip"):
        open_dataset("./set.zip")


# The hub


@pytest.fixture
def online(monkeypatch):
    """The network is allowed; every test says where it leads."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_unreachable_hub_is_one_line_within_three_seconds(online, monkeypatch):
    import datasets  # noqa: F401 - the clock is of the network, not of the library's start

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(NetworkError) as caught:
        open_dataset("uoft-cs/cifar10")
    assert time.monotonic() - started < 3
    for word in (
        "`uoft-cs/cifar10`",
        "http://127.0.0.1:9 cannot be reached",
        "GTOOL_DATA",
        "--dataset scenes",
    ):
        assert word in str(caught.value)


def test_offline_asks_nothing(online, monkeypatch):
    monkeypatch.setattr(hub, "is_reachable", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NetworkError, match="not in the local cache, and offline"):
        open_dataset("uoft-cs/cifar10")


class Hub(BaseHTTPRequestHandler):
    """Answers every request with `status`, or not at all."""

    status, code = 404, "RepoNotFound"

    def do_GET(self):
        if self.status == 0:
            return time.sleep(1)
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        """Tests are quiet."""


@pytest.fixture
def answering(online, monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield monkeypatch
    server.shutdown()
    server.server_close()
    thread.join()


def test_misspelt_hub_id_is_one_line(answering):
    with pytest.raises(
        DataError, match="none of this name on the hub; did you mean `uoft-cs/cifar10`"
    ) as caught:
        open_dataset("uoft-cs/cifra10")
    assert "\n" not in str(caught.value)


def test_gated_set_says_how_to_get_it(answering):
    answering.setattr(Hub, "status", 403)
    answering.setattr(Hub, "code", "GatedRepo")
    with pytest.raises(DataError, match="hf auth login"):
        open_dataset("owner/name")


@pytest.mark.parametrize("status", [0, 500])
def test_hub_that_does_not_answer_is_one_line(answering, status):
    answering.setattr(Hub, "status", status)
    answering.setattr(Hub, "code", "")
    answering.setattr("gtool.data.read_tables.HUB_SECONDS", 0.3)
    with pytest.raises(NetworkError, match="does not answer") as caught:
        open_dataset("owner/name")
    assert "\n" not in str(caught.value)


# The same data on several machines


def test_copies_have_the_same_digest_and_other_pictures_another(tmp_path):
    """Those of a folder are told apart by their sizes, however many there are, those of a zip by a sample."""
    first = odd.folder(tmp_path / "first", 100)
    second = tmp_path / "elsewhere" / "second"
    shutil.copytree(first, second, copy_function=shutil.copyfile)  # with times of its own
    zip_of(first, tmp_path / "first.zip")
    expected = open_dataset(str(first)).sampled_digest()
    assert open_dataset(str(second)).fingerprint != open_dataset(str(first)).fingerprint
    assert open_dataset(str(second)).sampled_digest() == expected
    picture = sorted(second.rglob("*.png"))[1]
    Image.new("RGB", (40, 30)).save(picture)
    assert open_dataset(str(second)).sampled_digest() != expected
    zipped = open_dataset(str(tmp_path / "first.zip")).sampled_digest()
    zip_of(second, tmp_path / "second.zip")
    assert open_dataset(str(tmp_path / "first.zip")).sampled_digest() == zipped
    Image.new("RGB", (41, 30)).save(sorted(second.rglob("*.png"))[0])
    zip_of(second, tmp_path / "third.zip")
    assert open_dataset(str(tmp_path / "third.zip")).sampled_digest() != zipped
    assert open_dataset("scenes").sampled_digest() == open_dataset("scenes").sampled_digest()
    assert open_dataset("scenes").sampled_digest() != open_dataset("scenes", split="test").sampled_digest()
