"""A folder of videos as a task: its lists, its clips, and a whole run on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from clips import number_of, write_colour, write_frames, write_video

import peftmark
from peftmark.errors import PeftmarkError
from peftmark.registry import TASKS
from peftmark.tasks import Task
from peftmark.tasks.video.sampling import dense_stride, uniform_segments

FRAMES = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos and two folders of images of two classes, one of them with a space in its name."""
    root = tmp_path / "my videos"
    (root / "clips").mkdir(parents=True)
    write_video(root / "clips" / "a b.mp4", FRAMES)
    write_video(root / "clips" / "c.webm", FRAMES, codec="libvpx-vp9", deadline="realtime")
    write_frames(root / "raw d", FRAMES)
    write_frames(root / "raw", 5)
    (root / "train.txt").write_text("clips/a b.mp4 0\n\n./raw d 40 1\n")
    (root / "val.txt").write_text("raw 5 0\n")
    (root / "test.txt").write_text("clips/c.webm 1\n")
    return root


def task(folder: Path, **attributes: object) -> Task:
    cls = TASKS["video_folder/*"]
    return type("Mine", (cls,), {"size": 48, **attributes})(f"video_folder/{folder}")


def numbers(clip: torch.Tensor) -> list[int]:
    """Of the frames of a clip (T, 3, 48, 96)."""
    return [number_of(frame) for frame in clip]


def test_the_task_is_a_namespace_of_the_video_track(folder: Path) -> None:
    made = TASKS[f"video_folder/{folder}"](f"video_folder/{folder}")
    assert (made.track, made.group, made.num_frames) == ("video", "video", 8)


def test_clips_have_the_promised_form(folder: Path) -> None:
    data = task(folder).load()
    assert data.train.inputs.shape == (2, 8, 3, 48, 48)
    assert data.validation.inputs.shape == (1, 8, 3, 48, 48)
    assert data.tests["test"].inputs.shape == (1, 3, 8, 3, 48, 48)
    assert data.train.inputs.dtype == torch.uint8
    assert data.train.targets.tolist() == [0, 1]
    assert data.train.class_names == ("0", "1")
    assert data.tests["test"].multi_view and not data.train.multi_view


def middle_bars(index: int) -> int:
    """What a square crop from the middle shows of a number: bars 2 to 4 of six, bars 1 and 5 by half."""
    return (index >> 2) & 3


def seen(clip: torch.Tensor) -> list[int]:
    """The two bars (bits 2 and 3) that a middle crop (T, 3, 48, 48) shows whole."""
    bars = clip.float().mean((1, 2))[:, [16, 32]]
    return [int(low > 100) + 2 * int(high > 100) for low, high in bars.tolist()]


def test_a_test_takes_the_middle_of_each_segment(folder: Path) -> None:
    data = task(folder).load()
    middle = uniform_segments(FRAMES, 8)
    left, centre, right = data.tests["test"].inputs[0]
    assert seen(centre) == [middle_bars(index) for index in middle]
    assert numbers(torch.cat((left, right), dim=-1)) == middle
    assert seen(data.validation.inputs[0]) == [middle_bars(index) for index in uniform_segments(5, 8)]


def test_training_draws_from_the_seed_and_the_path(folder: Path) -> None:
    made = task(folder)
    clips = {path: made.frames_of(FRAMES, path, 1, training=True)[0] for path in ("clips/a b.mp4", "raw d")}
    assert len({tuple(clip) for clip in clips.values()}) == 2
    data = made.load()
    for clip, drawn in zip(data.train.inputs, clips.values(), strict=True):
        assert seen(clip) == [middle_bars(index) for index in drawn]
    assert task(folder).load().sha256() == data.sha256()
    assert task(folder, seed=1).load().sha256() != data.sha256()
    (folder / "train.txt").write_text("raw d 40 1\nclips/a b.mp4 0\n")
    assert torch.equal(task(folder).load().train.inputs.flip(0), data.train.inputs)


def test_dense_views_are_clips_times_crops(folder: Path) -> None:
    data = task(folder, sampling="dense", stride=3, num_frames=4, test_clips=2).load()
    views = data.tests["test"].inputs[0]
    assert views.shape == (6, 4, 3, 48, 48)
    wanted = dense_stride(FRAMES, 4, 3, clips=2)
    assert [numbers(torch.cat((views[i], views[i + 2]), dim=-1)) for i in (0, 3)] == wanted
    with pytest.raises(PeftmarkError, match="test_clips must be 1"):
        task(folder, test_clips=2)


def test_the_split_hash_follows_what_decides_the_data(folder: Path) -> None:
    hashes = [task(folder).split_sha256(), task(folder, stride=8).split_sha256(), task(folder, seed=1).split_sha256()]
    write_video(folder / "clips" / "a b.mp4", 39)
    hashes.append(task(folder).split_sha256())
    (folder / "classes.txt").write_text("cat\ndog\n")
    hashes.append(task(folder).split_sha256())
    (folder / "val.txt").write_text("raw 5 1\n")
    hashes.append(task(folder).split_sha256())
    assert len(set(hashes)) == len(hashes)
    copy = folder.rename(folder.with_name("elsewhere"))
    assert task(copy).split_sha256() == hashes[-1]


def test_classes_have_names(folder: Path) -> None:
    (folder / "classes.txt").write_text("red apple\nsailboat\nhammer\n")
    assert task(folder).load().train.class_names == ("red apple", "sailboat", "hammer")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("train.txt", "clips/a b.mp4 0\n../other.mp4 1\n", "train.txt, line 2: '../other.mp4' leaves the folder"),
        ("train.txt", "/etc/hosts 0\n", "train.txt, line 1: '/etc/hosts' leaves the folder"),
        ("train.txt", "clips/../../x 5 0\n", "line 1: 'clips/../../x' leaves the folder"),
        ("train.txt", "clips/a b.mp4 0\n\nclips/a b.mp4 1\n", "line 3: 'clips/a b.mp4' stands in .*train.txt, line 1"),
        ("train.txt", "raw d 40 0\n./raw d 40 1\n", "line 2: 'raw d' stands in .*train.txt, line 1"),
        ("test.txt", "clips/a b.mp4 0\n", "test.txt, line 1: 'clips/a b.mp4' stands in .*train.txt, line 1"),
        ("test.txt", "clips/c.webm 2\n", "test.txt, line 1: there is no class 2; the last is 1"),
        ("classes.txt", "only\n", "train.txt, line 3: there is no class 1; the last is 0"),
        ("classes.txt", "a\nb\na\n", "classes.txt, line 3: 'a' stands in .*line 1"),
        ("classes.txt", "\n", "classes.txt is empty"),
        ("train.txt", "clips/a b.mp4 one\n", "line 1: the label is 'one'"),
        ("train.txt", "clips/a b.mp4 -1\n", "line 1: the label is '-1'"),
        ("train.txt", "clips/a b.mp4\n", "line 1: there is no video 'clips/a'"),
        ("train.txt", "clips\n", "line 1: 'clips' is not `path label`"),
        ("train.txt", "absent.mp4 0\n", "line 1: there is no video 'absent.mp4'"),
        ("train.txt", "raw 0\n", "line 1: 'raw' is a folder; of frames, its line is"),
        ("train.txt", "raw 6 0\n", "line 1: there is no frame .*img_00006.jpg"),
        ("train.txt", "raw 0 0\n", "line 1: a video has at least one frame"),
        ("val.txt", "", "val.txt is empty"),
        ("val.txt", None, "val.txt: no such file"),
    ],
)
def test_a_mistake_in_a_list_is_one_clear_line(folder: Path, file: str, text: str | None, message: str) -> None:
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)
    with pytest.raises(PeftmarkError, match=message) as error:
        task(folder).split_sha256()
    assert "\n" not in str(error.value)


def test_a_list_that_is_no_text(folder: Path) -> None:
    (folder / "val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PeftmarkError, match=r"val\.txt cannot be read as text"):
        task(folder).split_sha256()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(PeftmarkError, match="there is no folder"):
        task(tmp_path / "absent").split_sha256()


def test_a_whole_run_reaches_a_record(tmp_path: Path, command: Callable[..., object]) -> None:
    """Red and blue videos of one colour each: a linear probe tells them apart."""
    root = tmp_path / "colours"
    root.mkdir()
    for split, shades in (("train", range(0, 60, 8)), ("val", (20, 44)), ("test", (28, 52))):
        lines = []
        for shade in shades:
            for label, colour in enumerate([(220, shade, shade), (shade, shade, 220)]):
                write_colour(root / f"{split}{shade}_{label}.mp4", colour)
                lines.append(f"{split}{shade}_{label}.mp4 {label}")
        (root / f"{split}.txt").write_text("\n".join(lines))
    arguments = ("--method", "frame_mean", "--backbone", "embedded/vit", "--task", f"video_folder/{root}", "--jobs", 1)
    done = command("run", *arguments)
    assert done.code == 0, done.err
    frame = peftmark.load_results(tmp_path / "runs")
    assert frame["status"].tolist() == ["ok"]
    assert frame["quality.test"].tolist() == [100.0]
    (root / "test.txt").write_text("test28_0.mp4 0\ngone.mp4 1\n")
    failed = command("run", *arguments)
    assert failed.code == 2
    assert "test.txt, line 2" in failed.one_line()
