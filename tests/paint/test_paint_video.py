"""`gtool paint clip.mp4`: what is still keeps its strokes, the sound is copied, and what is refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from gtool.io import outputs as video_formats
from gtool.models.paint_transformer.network import Proposals
from gtool.paint.motion import displacement, optical_flow, warp
from gtool.paint.video import FramePainter
from gtool.strokes.brush import load_brush
from gtool.strokes.canvas import cells_of, overlaps, sample_under, visible_ink
from gtool.strokes.painting import paint as paint_photo
from gtool.strokes.settings import PaintSettings
from tests.helpers import odd_images as odd
from tests.helpers.painted import draw_photo, files, paint, refusal
from tests.helpers.pictures import draw

BRUSH = load_brush("flat")
HEIGHT, WIDTH, DISC = 96, 128, 10
PLAN = PaintSettings(levels=2, method="greedy", strokes_per_patch=4)


# The engine: what is still stays.


def ground(height=HEIGHT, width=WIDTH) -> np.ndarray:
    """A textured picture, uint8 (H, W, 3)."""
    picture = Image.fromarray(draw(1, 5, 64)[0].transpose(1, 2, 0)).resize((width, height), 3)
    grain = np.random.default_rng(0).normal(0, 25, (height // 4, width // 4))
    grain = np.asarray(Image.fromarray(grain.astype(np.float32)).resize((width, height), 3))
    return (np.asarray(picture) + grain[..., None]).clip(0, 255).astype(np.uint8)


def moving(number: int, noise: float = 0.0) -> np.ndarray:
    """A disc on its way over still ground, in the upper half, with noise of its own in each frame."""
    frame = ground().astype(float)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disc = (y - 20) ** 2 + (x - 20 - 8 * number) ** 2 < DISC**2
    frame[disc] = (250, 240, 20)
    frame += noise * np.random.default_rng(number).normal(size=frame.shape)
    return frame.clip(0, 255).astype(np.uint8)


def as_tensor(frame: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frame.transpose(2, 0, 1).copy()).float() / 255


def through_a_codec(frames: list[np.ndarray], crf: int = 28) -> list[np.ndarray]:
    file = io.BytesIO()
    write_video_file(file, frames, options={"crf": str(crf), "g": "4"})
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


FRAMES = {
    "clean": lambda: [moving(number) for number in range(6)],
    "noise of a sensor": lambda: [moving(number, 8.0) for number in range(6)],
    "noise of a codec": lambda: through_a_codec([moving(number, 3.0) for number in range(6)]),
}


def rows(painting, choose) -> list[tuple[float, ...]]:
    """Strokes as numbers, in their order."""
    table = torch.cat([painting.shape_params, painting.colors, painting.levels[:, None].float()], 1)
    return [tuple(row) for row in table[choose].tolist()]


@pytest.mark.parametrize("kind", FRAMES)
def test_strokes_of_still_places_are_the_same_in_every_frame(kind):
    painter, found, pictures = FramePainter(PLAN, BRUSH, None), [], []
    for frame in FRAMES[kind]():
        painting = painter.paint(as_tensor(frame))
        # The disc ends at 30; a stroke of the finest passes reaches no further than 20 pixels beyond it.
        still = painting.shape_params[:, 1] * WIDTH > 56
        found.append(rows(painting, still))
        pictures.append(painting.render(HEIGHT, WIDTH))
    assert len(found[0]) > 60
    assert all(strokes == found[0] for strokes in found[1:])
    assert all(torch.equal(picture[70:], pictures[0][70:]) for picture in pictures[1:])
    assert painter.shots == 1


def test_what_moves_is_painted_where_it_is():
    painter = FramePainter(PLAN, BRUSH, None)
    for number in range(6):
        painting = painter.paint(as_tensor(moving(number)))
        pixels = painting.render(HEIGHT, WIDTH).float()
        red, green, blue = pixels[17:24, 17 + 8 * number : 24 + 8 * number].mean(dim=(0, 1)).tolist()
        assert min(red, green) > blue + 80
    still = paint_photo(as_tensor(moving(5)), PLAN, BRUSH, None)
    target = as_tensor(moving(5)).permute(1, 2, 0) * 255
    errors = [(made.render(HEIGHT, WIDTH) - target).abs().mean() for made in (painting, still)]
    assert errors[0] < 1.1 * errors[1]
    assert len(painting) < 1.4 * len(still)


def test_the_first_frame_is_painted_as_a_picture_is():
    frame = as_tensor(moving(0))
    first, still = FramePainter(PLAN, BRUSH, None).paint(frame), paint_photo(frame, PLAN, BRUSH, None)
    assert torch.equal(first.shape_params, still.shape_params)
    assert torch.equal(first.colors, still.colors)


@pytest.mark.parametrize("method", ["greedy", "random"])
def test_frames_are_a_function_of_the_seed(method):
    def strokes(seed):
        painter = FramePainter(replace(PLAN, method=method, seed=seed), BRUSH, None)
        return [painter.paint(as_tensor(moving(number))).shape_params for number in range(3)]

    one, same, other = strokes(1), strokes(1), strokes(2)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert one[2].shape != other[2].shape or not torch.equal(one[2], other[2])


def test_a_frame_like_the_last_one_is_not_painted_again():
    painter = FramePainter(PLAN, BRUSH, None)
    first = painter.paint(as_tensor(moving(0)))
    assert painter.paint(as_tensor(moving(0, 3.0))) is first
    assert painter.new_strokes == 0


def test_a_cut_begins_a_new_painting():
    painter = FramePainter(PLAN, BRUSH, None)
    painter.paint(as_tensor(moving(0)))
    other = torch.flip(1 - as_tensor(moving(0)), [2])
    after = painter.paint(other)
    assert painter.shots == 2
    assert torch.equal(after.colors, paint_photo(other, PLAN, BRUSH, None).colors)


def pan(number: int, right: float = 2.0, down: float = 0.0) -> torch.Tensor:
    """A frame of a camera that moves over a still picture."""
    picture = Image.fromarray(ground(HEIGHT + 40, WIDTH + 40))
    box = (right * number, down * number, right * number + WIDTH, down * number + HEIGHT)
    return as_tensor(np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=box)))


@pytest.mark.parametrize(("right", "down"), [(2.0, 0.0), (1.3, 0.7)])
def test_strokes_follow_a_camera_that_moves(right, down):
    painter, before, changes = FramePainter(PLAN, BRUSH, None), None, []
    for number in range(7):
        painting = painter.paint(pan(number, right, down))
        pixels = painting.render(HEIGHT, WIDTH).permute(2, 0, 1).float() / 255
        if before is not None:
            flow = torch.tensor([right, down])[:, None, None].expand(2, HEIGHT, WIDTH)
            difference = (pixels - warp(before, flow)).abs()[:, 4:-4, 4:-4]
            changes.append(float(difference.mean()))
            assert painter.new_strokes < 0.4 * len(painting)
        before = pixels
    assert painter.shots == 1
    once = [paint_photo(pan(number, right, down), PLAN, BRUSH, None) for number in (5, 6)]
    pictures = [made.render(HEIGHT, WIDTH).permute(2, 0, 1).float() / 255 for made in once]
    anew = float((pictures[1] - warp(pictures[0], flow)).abs()[:, 4:-4, 4:-4].mean())
    assert max(changes) < 0.5 * anew
    errors = [(made - pan(6, right, down)).abs() for made in (pixels, pictures[1])]
    assert errors[0].mean() < 1.15 * errors[1].mean()
    # What came into view is painted too.
    assert errors[0][:, :, -12:].mean() < 1.3 * errors[1][:, :, -12:].mean()


def test_strokes_follow_what_moves_before_still_ground():
    painter, found = FramePainter(PLAN, BRUSH, None), []
    picture = ground()
    for number in range(4):
        frame = ground().copy() // 2
        left = 30 + 2 * number
        frame[24:72, left : left + 48] = picture[:48, :48]
        painting = painter.paint(as_tensor(frame))
        found.append((painting, painter.new_strokes))
    colors = [{tuple(color) for color in painting.colors.tolist()} for painting, _ in found]
    inside = [
        tuple(color)
        for color, (x, y) in zip(
            found[0][0].colors.tolist(), found[0][0].shape_params[:, :2].tolist(), strict=True
        )
        if 40 < x * WIDTH < 68 and 34 < y * WIDTH < 62
    ]
    assert sum(color in colors[-1] for color in inside) > 0.7 * len(inside)


@pytest.mark.parametrize("motion", [(0.0, 0.0), (3.0, 0.0), (-1.3, 2.6), (14.0, 5.0)])
def test_the_flow_of_a_picture_is_found(motion):
    picture = as_tensor(ground(HEIGHT, WIDTH))
    flow = torch.tensor(motion)[:, None, None].expand(2, HEIGHT, WIDTH)
    found = optical_flow(picture, warp(picture, flow))
    inside = (found - flow)[:, 16:-16, 16:-16]
    assert inside.norm(dim=0).median() < 0.1
    points = torch.tensor([[60.0, 50.0], [80.0, 40.0]])
    assert torch.allclose(displacement(found, points), -torch.tensor(motion).expand(2, 2), atol=0.3)


def test_slow_drift_is_followed():
    """Compared with the frame before alone, 1/255 a frame would never be seen."""
    painter, frame = FramePainter(PLAN, BRUSH, None), ground() // 2
    for step in range(0, 60, 2):
        brighter = frame.astype(int)
        brighter[:, : WIDTH // 2] += step
        painting = painter.paint(as_tensor(brighter.astype(np.uint8)))
    pixels = painting.render(HEIGHT, WIDTH).float().numpy()
    assert painter.shots == 1
    assert abs((pixels - brighter)[:, : WIDTH // 2 - 8].mean()) < 12


def test_a_stroke_budget_is_kept_in_every_frame():
    painter = FramePainter(replace(PLAN, max_strokes=120), BRUSH, None)
    assert all(len(painter.paint(as_tensor(moving(number)))) <= 120 for number in range(5))


def test_the_network_looks_at_what_changed_alone():
    looked = []

    def predict(target, _canvas):
        looked.append(len(target))
        shape = torch.tensor([0.5, 0.5, 0.4, 0.4, 0.25]).expand(len(target), 8, 5)
        return Proposals(shape, torch.ones(len(target), 8))

    painter = FramePainter(replace(PLAN, method="predictor"), BRUSH, predict)
    painter.paint(as_tensor(moving(0)))
    first = sum(looked)
    looked.clear()
    painter.paint(as_tensor(moving(1)))
    assert 0 < sum(looked) < 0.6 * first


def test_what_lies_where_is_found():
    strokes = torch.tensor([[20.0, 20.0, 10.0, 10.0, 0.3], [60.0, 20.0, 10.0, 30.0, 0.5]])
    image = torch.zeros(1, 40, 80)
    image[:, :, :20] = 1
    assert sample_under(strokes, image)[0].mean(-1).tolist() == pytest.approx([0.5, 0.0], abs=0.15)
    cells = cells_of(strokes[:1], 10, 20, 4)
    assert cells[5, 5]
    assert not cells[:, 10:].any()
    assert overlaps(strokes, cells, 4).tolist() == [True, False]


def test_hidden_ink_is_told_from_what_is_seen():
    strokes = torch.tensor(
        [[20.0, 20.0, 10.0, 10.0, 0.0], [60.0, 20.0, 10.0, 10.0, 0.0], [20.0, 20.0, 24.0, 24.0, 0.0]]
    )
    share, place, stroke = visible_ink(BRUSH, strokes, 1.0, (40, 80))
    assert share[0] < 0.1
    assert share[1:].tolist() == pytest.approx([1, 1])
    assert set(stroke[place == 20 * 80 + 20].tolist()) == {2}
    assert set(stroke[place == 20 * 80 + 60].tolist()) == {1}


# The command line.


def write_video_file(
    place, frames, *, codec="libx264", rate=12, sound=None, options=None, header=None, pix_fmt="yuv420p"
) -> None:
    """Write frames, and a tone as long as they are, to a path or an open file."""
    named = isinstance(place, Path)
    with av.open(
        str(place) if named else place, "w", format=None if named else "mp4", options=header or {}
    ) as container:
        video = container.add_stream(codec, rate=rate, options=options or {})
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = pix_fmt
        audio = container.add_stream(sound, rate=48000, layout="mono") if sound else None
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
        container.mux(video.encode(None))
        if audio is not None:
            tone = 0.2 * np.sin(np.arange(48000 * len(frames) // rate) / 20).astype(np.float32)
            for start in range(0, len(tone), 960):
                piece = av.AudioFrame.from_ndarray(tone[None, start : start + 960], "flt", "mono")
                piece.sample_rate, piece.pts = 48000, start
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))


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
