"""Frames out of files: the right ones, and one clear line where there are none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import av
import pytest
import torch
from clips import HEIGHT, WIDTH, number_of, numbered, stacked, write_frames, write_video
from torch import Tensor

from peftmark.errors import PeftmarkError
from peftmark.tasks.video.cropping import square_crops
from peftmark.tasks.video.reading import RawFrames, Video, VideoFile

FRAMES = 40
JUMPS = [0, 1, 2, 50, 51, 120, 121, 122, 123, 300]


def same(frame: Tensor) -> Tensor:
    return frame


def mp4(folder: Path) -> Video:
    """Three B-frames between references, so that frames are stored in another order than they are shown."""
    path = write_video(folder / "b.mp4", FRAMES, bf="3", g="12", **{"b-pyramid": "normal", "x264-params": "scenecut=0"})
    with av.open(str(path)) as container:
        stored = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert stored != sorted(stored)
    return VideoFile(path)


def webm(folder: Path) -> Video:
    """Without a frame count in the container."""
    path = write_video(folder / "a.webm", FRAMES, codec="libvpx-vp9", deadline="realtime", **{"cpu-used": "8"})
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 0
    return VideoFile(path)


def variable_rate(folder: Path) -> Video:
    times = [JUMPS[index % 10] + 400 * (index // 10) for index in range(FRAMES)]
    return VideoFile(write_video(folder / "vfr.mp4", FRAMES, times=times))


def transport_stream(folder: Path) -> Video:
    return VideoFile(write_video(folder / "a.ts", FRAMES))


def raw_frames(folder: Path) -> Video:
    return RawFrames(write_frames(folder / "raw", FRAMES), FRAMES)


@pytest.mark.parametrize("make", [mp4, webm, variable_rate, transport_stream, raw_frames])
def test_frames_are_the_ones_that_were_asked_for(make: Callable[[Path], Video], tmp_path: Path) -> None:
    video = make(tmp_path)
    assert video.count() == FRAMES
    everything = range(FRAMES)
    assert stacked(video.read(everything, same)) == list(everything)
    for wanted in ([0], [FRAMES - 1], [31, 5, 5, 17]):
        frames = video.read(wanted, same)
        assert {index: number_of(frame) for index, frame in frames.items()} == {index: index for index in wanted}
    frame = frames[17]
    assert frame.dtype == torch.uint8 and frame.shape == (3, HEIGHT, WIDTH)
    torch.testing.assert_close(frame.float(), torch.from_numpy(numbered(17)).movedim(-1, 0).float(), rtol=0, atol=30)


def test_only_what_is_kept_is_kept(tmp_path: Path) -> None:
    kept = raw_frames(tmp_path).read([3, 4], lambda frame: frame[0, 0])
    assert {index: tuple(row.shape) for index, row in kept.items()} == {3: (WIDTH,), 4: (WIDTH,)}


def broken(video: Video) -> str:
    with pytest.raises(PeftmarkError) as error:
        video.count()
    with pytest.raises(PeftmarkError):
        video.read([0], same)
    message = str(error.value)
    assert str(video.path) in message and "\n" not in message
    return message


def test_what_cannot_be_read_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such file" in broken(VideoFile(tmp_path / "absent.mp4"))
    (tmp_path / "text.mp4").write_text("not a video")
    assert "cannot be decoded" in broken(VideoFile(tmp_path / "text.mp4"))
    whole = write_video(tmp_path / "whole.mp4", 5)
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:600])
    assert "cannot be decoded" in broken(VideoFile(tmp_path / "cut.mp4"))
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame(format="s16", layout="mono", samples=800)
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert "no video stream" in broken(VideoFile(tmp_path / "sound.wav"))
    monkeypatch.setitem(sys.modules, "av", None)
    assert "peftmark[video]" in broken(VideoFile(whole))


def test_raw_frames_that_cannot_be_read(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "raw", 3)
    with pytest.raises(PeftmarkError, match=r"img_00004\.jpg: no such frame"):
        RawFrames(folder, 4).read([3], same)
    (folder / "img_00002.jpg").write_bytes(b"not a picture")
    with pytest.raises(PeftmarkError, match=r"img_00002\.jpg cannot be decoded"):
        RawFrames(folder, 3).read([1], same)


def test_crops_are_the_start_the_middle_and_the_end_of_the_longer_side() -> None:
    ramp = torch.arange(100, dtype=torch.uint8)
    wide = ramp.expand(3, 40, 100)
    crops = square_crops(wide, 40, 3)
    assert [crop[0, 0].tolist() for crop in crops] == [list(range(a, a + 40)) for a in (0, 30, 60)]
    assert torch.equal(square_crops(wide, 40, 1)[0], crops[1])
    tall = wide.transpose(1, 2)
    assert torch.equal(square_crops(tall, 40, 3), crops.transpose(2, 3))
    assert torch.equal(square_crops(wide[..., :40], 40, 3), wide[None, ..., :40].expand(3, 3, 40, 40))
    with pytest.raises(ValueError, match="1 or 3"):
        square_crops(wide, 40, 2)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (321, 200), (20, 31)])
def test_the_shorter_side_is_resized(height: int, width: int) -> None:
    """A left half that is dark: the middle crop has the edge in its middle."""
    frame = torch.zeros(3, height, width, dtype=torch.uint8)
    frame[..., width // 2 :] = 200
    [crop] = square_crops(frame, 56, 1)
    assert crop.shape == (3, 56, 56)
    assert crop[:, :, :24].max() == 0 and crop[:, :, 32:].min() == 200
