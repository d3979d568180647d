"""`gtool paint clip.mp4`: a video beside it, the sound copied, and what is refused."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from gtool.io import outputs as video_formats
from gtool.paint.video import FramePainter
from tests.helpers import odd_images as odd
from tests.helpers.clips import moving, write_video_file
from tests.helpers.painted import draw_photo, files, paint, refusal


def small(number: int, size=(48, 36)) -> np.ndarray:
    return np.asarray(Image.fromarray(moving(number)).resize(size, 4))


def video_file(name="clip.mp4", count=4, size=(48, 36), **options) -> Path:
    write_video_file(Path(name), [small(number, size) for number in range(count)], **options)
    return Path(name)


def read_video(name) -> tuple[list[np.ndarray], list[float], Fraction]:
    """Frames, their times, frames a second."""
    with av.open(str(name)) as container:
        frames = list(container.decode(video=0))
        rate = container.streams.video[0].average_rate
    return [frame.to_ndarray(format="rgb24") for frame in frames], [frame.time for frame in frames], rate


def sound(name) -> list[tuple[bytes, float]]:
    with av.open(str(name)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
        return [(bytes(packet), float(packet.pts * packet.time_base)) for packet in packets]


def test_a_video_becomes_a_video_beside_it(capsys):
    source = video_file(count=6, rate=24, sound="aac")
    assert paint(source) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["clip-painted.mp4"]
    assert "clip.mp4: 6 frames of " in said.err
    frames, times, rate = read_video("clip-painted.mp4")
    wanted, wanted_times, wanted_rate = read_video(source)
    assert [frame.shape for frame in frames] == [frame.shape for frame in wanted]
    assert times == pytest.approx(wanted_times, abs=1e-4)
    assert float(rate) == pytest.approx(float(wanted_rate), rel=1e-3)
    assert np.abs(frames[5].astype(int) - wanted[5]).mean() < 25
    assert files() == ["clip-painted.mp4", "clip.mp4"]


def test_the_sound_is_copied():
    source = video_file(count=8, sound="aac")
    assert paint(source) == 0
    one, other = sound(source), sound("clip-painted.mp4")
    assert [data for data, _ in one] == [data for data, _ in other]
    assert [time for _, time in one] == pytest.approx([time for _, time in other], abs=1e-3)


def test_sound_that_the_container_cannot_hold_is_left_out_and_told(capsys):
    source = video_file("clip.mkv", codec="mpeg4", sound="pcm_f32le")
    assert paint(source, "-o", "a.webm") == 0
    assert "clip.mkv: .webm holds no pcm_f32le sound, which is left out" in capsys.readouterr().err
    frames, _, _ = read_video("a.webm")
    assert len(frames) == 4


def test_videos_of_every_container_are_told_by_their_first_bytes():
    for suffix, codec in (
        (".mov", "libx264"),
        (".mkv", "libx264"),
        (".avi", "mpeg4"),
        (".webm", "libvpx-vp9"),
    ):
        source = video_file(f"a{suffix}", count=1, codec=codec).rename(f"film{suffix[1:]}.jpg")
        assert video_formats.is_video(source)
    photo = draw_photo("photo.png").rename("photo.mp4")
    assert not video_formats.is_video(photo)
    assert video_formats.is_video(Path("nothing-there.mkv"))
    assert not video_formats.is_video(Path("nothing-there.jpg"))
    assert paint("filmwebm.jpg") == 0
    assert len(read_video("filmwebm-painted.mp4")[0]) == 1


def test_flags_of_pictures_shape_a_video(capsys):
    source = video_file(size=(64, 48))
    flags = (
        "--max-side",
        32,
        "--max-strokes",
        50,
        "--opacity",
        0.9,
        "--brush",
        "dry",
        "--canvas-color",
        "white",
    )
    assert paint(source, "--detail", 1, "--seed", 4, "--json", *flags) == 0
    (made,) = json.loads(capsys.readouterr().out)["pictures"]
    assert (made["width"], made["height"], made["frames"], made["shots"]) == (32, 24, 4, 1)
    assert made["strokes"] <= 50
    assert 0 < made["l1"] < 0.2
    assert read_video("clip-painted.mp4")[0][0].shape == (24, 32, 3)


@pytest.mark.parametrize(("fps", "frames"), [(6, 4), (12, 8), (24, 16)])
def test_frames_a_second_can_be_chosen(fps, frames):
    source = video_file(count=8)
    assert paint(source, "--fps", fps) == 0
    pictures, times, rate = read_video("clip-painted.mp4")
    assert len(pictures) == frames
    assert times == pytest.approx([number / fps for number in range(len(times))], abs=1e-3)
    assert float(rate) == pytest.approx(fps, rel=0.01)


def test_odd_sides_are_kept_or_made_even():
    source = video_file("clip.mkv", size=(33, 25), codec="ffv1", pix_fmt="bgr0")
    assert paint(source, "-o", "a.mp4") == 0
    assert paint(source, "-o", "a.webm") == 0
    assert read_video("a.mp4")[0][0].shape == (26, 34, 3)
    assert read_video("a.webm")[0][0].shape == (25, 33, 3)


def test_a_camera_that_was_turned_is_turned_back():
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:, :24] = (250, 20, 20)
    write_video_file(Path("clip.mp4"), [frame] * 2)
    data = bytearray(Path("clip.mp4").read_bytes())
    # The matrix of the track header, turned by a quarter: what was left is at the top.
    place = data.index(b"tkhd") + 4 + 40
    matrix = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    Path("clip.mp4").write_bytes(data)
    assert paint("clip.mp4") == 0
    (picture, _), _, _ = read_video("clip-painted.mp4")
    assert picture.shape == (48, 32, 3)
    assert picture[:20, :, 0].mean() > 180
    assert picture[28:, :, 0].mean() < 60


def test_colours_are_those_of_the_video():
    for color in ((200, 40, 40), (40, 180, 60), (50, 60, 220)):
        write_video_file(Path("clip.mp4"), [np.full((32, 32, 3), color, np.uint8)] * 2)
        assert paint("clip.mp4", "--force") == 0
        wanted, made = read_video("clip.mp4")[0][0], read_video("clip-painted.mp4")[0][0]
        assert made.mean((0, 1)) == pytest.approx(wanted.mean((0, 1)), abs=12)


def test_an_animation_becomes_a_video_where_one_is_named():
    Path("photo.gif").write_bytes(odd.animation())
    assert paint("photo.gif", "-o", "a.mp4") == 0
    with Image.open("photo.gif") as image:
        assert len(read_video("a.mp4")[0]) == image.n_frames
    assert read_video("a.mp4")[0][0].mean((0, 1)) == pytest.approx(odd.RED, abs=25)


def test_folders_take_pictures_alone(capsys):
    draw_photo("all/a.png")
    video_file("all/b.mp4", count=1)
    assert paint("all") == 0
    assert capsys.readouterr().out.splitlines() == ["all/a-painted.png"]
    assert paint("all/*.mp4", "all/a.png", "-o", "made/") == 0
    assert [name for name in files() if name.startswith("made")] == [
        "made/a-painted.png",
        "made/b-painted.mp4",
    ]


# Refused.


def broken(name: str) -> Path:
    """Files that are called as clips and are none."""
    path = Path("clip.mp4")
    if name == "text":
        path.write_text("no clip " * 100)
    elif name == "empty":
        path.touch()
    elif name == "cut short":
        data = video_file(count=12).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif name == "cut short, index first":
        data = video_file(count=12, options={"g": "1"}, header={"movflags": "faststart"}).read_bytes()
        path.write_bytes(data[: len(data) * 2 // 3])
    elif name == "sound alone":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=48000, layout="mono")
            piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            piece.sample_rate = 48000
            container.mux([*stream.encode(piece), *stream.encode(None)])
    elif name == "playlist":
        video_file("other.mp4")
        path.write_text(f"#EXTM3U\n#EXTINF:1,\n{Path('other.mp4').absolute()}\n#EXT-X-ENDLIST\n")
    return path


REASONS = {
    "text": "clip.mp4: no video that can be read: ",
    "empty": "clip.mp4: empty",
    "cut short": "clip.mp4: no video that can be read: ",
    "cut short, index first": "clip.mp4: cut short: ",
    "sound alone": "clip.mp4: holds no pictures, only sound",
    "playlist": "clip.mp4: no video that can be read: ",
    "missing": "clip.mp4: no such file",
}


@pytest.mark.parametrize("name", REASONS)
def test_what_is_no_video_is_refused_in_one_line(name, capsys):
    broken(name)
    before = files()
    assert paint("clip.mp4") == 1
    assert refusal(capsys).startswith(f"error: {REASONS[name]}")
    assert files() == before


def test_damage_in_the_middle_is_found_before_anything_is_painted(capsys):
    data = bytearray(
        video_file("clip.mkv", count=12, size=(128, 96), codec="ffv1", pix_fmt="bgr0").read_bytes()
    )
    data[len(data) // 2 : len(data) * 3 // 4] = bytes(len(data) * 3 // 4 - len(data) // 2)
    Path("clip.mkv").write_bytes(data)
    assert paint("clip.mkv") == 1
    assert refusal(capsys).startswith("error: clip.mkv: ")
    assert files() == ["clip.mkv"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--svg", "a.svg"), "--svg is for pictures"),
        (("--strokes", "a.json"), "--strokes is for pictures"),
        (("--animate", "a.webp"), "--animate is for pictures"),
        (("-o", "a.png"), "-o a.png: clip.mp4 is a video, which becomes .mp4 or .webm"),
        (("-o", "a.avi"), "-o a.avi: ends in "),
        (("--frames", 4), "--frames is for --animate FILE"),
    ],
)
def test_what_a_video_cannot_become_is_refused(flags, said, capsys):
    video_file(count=1)
    assert paint("clip.mp4", *flags) == 2
    assert refusal(capsys).startswith(f"error: {said}")


def test_a_picture_is_no_video(capsys):
    draw_photo("photo.png")
    assert paint("photo.png", "-o", "a.mp4") == 1
    assert "photo.png: a single picture" in refusal(capsys)
    assert paint("photo.png", "--fps", 12) == 2
    assert "--fps is for --animate FILE, or for a video" in refusal(capsys)
    assert paint("-o", "a.mp4") == 2
    assert "a video is made of a video" in refusal(capsys)
    assert files() == ["photo.png"]


def test_outputs_that_exist_and_the_video_itself_are_kept(capsys):
    source = video_file(count=1)
    Path("clip-painted.mp4").write_text("mine")
    assert paint(source) == 1
    assert "exists; add --force" in refusal(capsys)
    assert paint(source, "-o", source, "--force") == 1
    assert "is what is to be painted" in refusal(capsys)
    assert Path("clip-painted.mp4").read_text() == "mine"


def test_one_bad_video_does_not_stop_the_others(capsys):
    video_file("a.mp4", count=1)
    Path("b.mp4").write_text("no clip")
    assert paint("a.mp4", "b.mp4") == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == ["a-painted.mp4"]
    assert "warning: b.mp4: no video that can be read" in said.err


def test_without_pyav_one_line_says_what_to_install(monkeypatch, capsys):
    source = video_file(count=1)
    monkeypatch.setattr(video_formats, "find_spec", lambda name: None)
    assert paint(source) == 1
    assert refusal(capsys) == 'error: clip.mp4: videos need PyAV; run `pip install "gtool[video]"`'


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt, 130), (SystemExit(143), 143)])
def test_a_signal_leaves_nothing_half_written(stop, status, monkeypatch):
    source, real = video_file(count=4), FramePainter.paint

    def stopped(self, frame):
        if self.new_strokes:
            raise stop
        return real(self, frame)

    monkeypatch.setattr(FramePainter, "paint", stopped)
    assert paint(source) == status
    assert files() == ["clip.mp4"]
