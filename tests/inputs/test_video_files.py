"""Video files: which frames come out of them, and what they may cost."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from st_modules import ImageLimits, InputError, MissingExtraError, VideoError
from st_modules.inputs import video_files, videos
from st_modules.inputs.items import parse_items
from st_modules.inputs.videos import VideoSource
from tests.helpers.videos import LOSSLESS, random_frames, write_video

av: Any = pytest.importorskip("av")

FRAMES = random_frames(30)
FILE = write_video(FRAMES)
H264: dict[str, Any] = {"codec": "libx264", "g": "12", "bf": "2"}


@pytest.fixture(scope="module")
def mp4() -> bytes:
    return write_video(random_frames(60), "mp4", **H264)


def arrays(video: VideoSource, numbers: list[int]) -> list[np.ndarray]:
    return [np.asarray(image.convert("RGB")) for image in video.read(numbers)]


def equal(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


def read(data: bytes, **limits: Any) -> list[np.ndarray]:
    video = VideoSource(data, limits=ImageLimits(**limits))
    return arrays(video, [*range(video.frame_count)])


# ------------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("container", LOSSLESS)
@pytest.mark.parametrize("numbers", [[0], [29], [0, 1, 2], [3, 14, 29], [*range(30)]])
def test_frames_of_a_file_are_those_that_were_written(container: str, numbers: list[int]) -> None:
    video = VideoSource(write_video(FRAMES, container))
    assert video.frame_count == 30
    assert video.check_size(numbers) == (60, 40)
    assert equal(arrays(video, numbers), [FRAMES[number] for number in numbers])


@pytest.mark.parametrize(
    ("container", "options"),
    [
        ("mp4", H264),
        ("mpegts", H264),
        ("matroska", H264),
        ("mp4", {"codec": "mpeg4", "bf": "2"}),
        ("webm", {"codec": "libvpx-vp9"}),
        ("flv", {"codec": "flv"}),
    ],
)
@pytest.mark.parametrize("numbers", [[1, 25, 26, 55, 59], [0, 40]])
def test_a_frame_that_is_sought_is_the_one_of_that_number(
    container: str, options: dict[str, Any], numbers: list[int]
) -> None:
    data = write_video(random_frames(60), container, **options)
    with av.open(io.BytesIO(data)) as file:
        every = [np.asarray(frame.to_image()) for frame in file.decode(video=0)]
    video = VideoSource(data)
    assert video.frame_count == len(every) == 60
    assert equal(arrays(video, numbers), [every[number] for number in numbers])


def marked_as_starts(container: str, codec: str) -> bytes:
    """Return a video of 60 frames, each of which the file says that decoding can begin at."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = 60, 40, "yuv420p", {"g": "15"}
        frames = [av.VideoFrame.from_ndarray(frame, format="rgb24") for frame in random_frames(60)]
        for frame in [*frames, None]:
            for packet in stream.encode(frame):
                packet.is_keyframe = True
                file.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: marked_as_starts("mp4", "ffv1"), id="no table of starts"),
        pytest.param(lambda: marked_as_starts("flv", "flv"), id="wrong starts"),
        pytest.param(lambda: write_video(random_frames(60), "mpegts", "mpeg4", bf="2", g="12"), id="sought too far"),
    ],
)
@pytest.mark.parametrize("number", [20, 29, 41, 59])
def test_a_frame_is_not_decoded_from_where_that_cannot_begin(data: Callable[[], bytes], number: int) -> None:
    file = data()
    with av.open(io.BytesIO(file)) as opened:
        every = [np.asarray(frame.to_image()) for frame in opened.decode(video=0)]
    assert equal(arrays(VideoSource(file), [number]), [every[number]])


def test_what_is_far_ahead_is_not_decoded_up_to(mp4: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    video, decoded = VideoSource(mp4), []
    _ = video.frame_count
    decode = video_files._decode
    monkeypatch.setattr(
        video_files, "_decode", lambda *args: (decoded.append(frame) or frame for frame in decode(*args))
    )
    arrays(video, [50])
    assert len(decoded) <= 12


def test_frames_are_counted_where_no_time_leads_to_them(mp4: bytes) -> None:
    video = VideoSource(mp4)
    expected = arrays(video, [0, 20, 59])
    track: Any = video._find_track()
    for times in ((), tuple(time + 1 for time in track.times)):
        video._track = video_files.Track(track.size, track.count, times, track.starts if times else ())
        assert equal(arrays(video, [0, 20, 59]), expected)


@pytest.mark.parametrize("container", LOSSLESS)
def test_how_many_frames_a_file_shows_in_a_second_is_read_from_it(container: str) -> None:
    assert VideoSource(write_video(FRAMES[:10], container)).rate == 25
    assert VideoSource([*FRAMES[:2]]).rate is None


def with_sound(container: str, codec: str, title: str = "") -> bytes:
    """Return a video of the frames and of as much silence, the sound being the first stream."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        file.metadata["title"] = title
        sound = file.add_stream("mp2" if container in ("avi", "mpegts") else "aac", rate=44100)
        video = file.add_stream(codec, rate=25)
        video.height, video.width = FRAMES[0].shape[:2]
        video.pix_fmt = "yuv420p"
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 1152), np.int16), format="s16p", layout="stereo")
        silence.sample_rate = 44100
        for frame in FRAMES:
            packets = video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24"))
            for packet in [*packets, *sound.encode(silence)]:
                file.mux(packet)
        for packet in [*video.encode(None), *sound.encode(None)]:
            file.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("mov", "mpeg4"), ("matroska", "libx264"), ("avi", "mpeg4"), ("mpegts", "libx264")]
    + [("flv", "libx264")],
)
def test_sound_is_not_read(container: str, codec: str) -> None:
    data = with_sound(container, codec)
    with av.open(io.BytesIO(data)) as file:
        assert [stream.type for stream in file.streams].count("audio") == 1
        every = [np.asarray(frame.to_image()) for frame in file.decode(video=0)]
    assert equal(read(data), every)
    assert equal(arrays(VideoSource(data), [29]), every[29:])


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi", "flv"])
def test_a_title_in_any_letters_is_no_matter(container: str) -> None:
    data = with_sound(container, "flv" if container == "flv" else "mpeg4", title="caf?")
    assert b"caf?" in data
    assert equal(read(data.replace(b"caf?", b"caf\xe9")), read(data))


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_are_turned_and_mirrored_as_they_are_shown(rotation: int, mirrored: bool) -> None:
    video = VideoSource(write_video(FRAMES[:2], "mov", rotation=rotation, mirrored=mirrored))
    turned = [np.rot90(frame, rotation // 90 % 4) for frame in FRAMES[:2]]
    shown = [frame[:, ::-1] if mirrored else frame for frame in turned]
    assert video.check_size([0]) == (shown[0].shape[1], shown[0].shape[0])
    assert equal(arrays(video, [0, 1]), shown)


def test_a_frame_that_is_shown_at_an_angle_is_refused() -> None:
    with pytest.raises(VideoError, match="video: .*at an angle that is no multiple of 90 degrees"):
        read(write_video(FRAMES[:2], "mov", rotation=45))


def test_a_matrix_of_zeros_turns_nothing() -> None:
    data = write_video(FRAMES[:1], "mov", rotation=180)
    start = data.index(b"tkhd") + 44
    assert equal(read(data[:start] + bytes(36) + data[start + 36 :]), FRAMES[:1])


def test_the_matrix_of_a_telephone_held_upright_turns_clockwise() -> None:
    data = write_video(FRAMES[:1], "mov", rotation=180)
    start = data.index(b"tkhd") + 44
    upright = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 40 * 65536, 0, 0x40000000)
    changed = data[:start] + upright + data[start + len(upright) :]
    assert equal(arrays(VideoSource(changed), [0]), [np.rot90(FRAMES[0], -1)])


# -------------------------------------------------------------------------------------------------------- forms


def forms(folder: Path) -> list[Any]:
    path = folder / "clip.bin"
    path.write_bytes(FILE)
    encoded = base64.b64encode(FILE).decode()
    part = {"role": "user", "content": [{"type": "video", "base64": encoded}]}
    return [
        {"video": str(path)},
        {"video": path},
        {"video": path.as_uri()},
        {"video": FILE},
        {"video": bytearray(FILE)},
        {"video": memoryview(FILE)},
        {"video": io.BytesIO(FILE)},
        {"video": f"data:video/x-matroska;base64,{encoded}"},
        {"video": {"bytes": FILE, "path": None}},
        {"video": {"bytes": None, "path": str(path)}},
        {"video": VideoSource(FILE)},
        part,
        {"role": "user", "content": [{"type": "video", "path": str(path)}]},
        {"role": "user", "content": [{"type": "video_url", "video_url": {"url": path.as_uri()}}]},
        {"role": "user", "content": [{"type": "video", "url": f"data:video/mp4;base64,{encoded}"}]},
    ]


@pytest.mark.parametrize("number", range(15))
def test_every_form_of_a_file_is_the_same_video(number: int, tmp_path: Path) -> None:
    video = parse_items([forms(tmp_path)[number]])[0].video
    assert video is not None
    assert equal(arrays(video, [0, 7]), [FRAMES[0], FRAMES[7]])
    assert video.digest() == VideoSource(FILE).digest()


def test_an_array_and_a_tensor_are_frames() -> None:
    block = np.stack(FRAMES[:3])
    for value in (block, torch.from_numpy(block).permute(0, 3, 1, 2)):
        video = VideoSource(value)
        assert video.frame_count == 3
        assert equal(arrays(video, [0, 1, 2]), FRAMES[:3])


def test_a_url_is_fetched_once_with_the_limit_of_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[tuple[str, int]] = []

    def fetch(url: str, limits: ImageLimits) -> bytes:
        fetched.append((url, limits.max_bytes))
        return FILE

    monkeypatch.setattr("st_modules.inputs.images.download", fetch)
    video = VideoSource("https://example.org/a.mkv", limits=ImageLimits(max_video_bytes=10**6, max_bytes=10))
    identity = video.identify()
    assert fetched == []
    assert equal(arrays(video, [3]), [FRAMES[3]])
    assert video.frame_count == 30
    assert fetched == [("https://example.org/a.mkv", 10**6)]
    assert identity == VideoSource("https://example.org/a.mkv").identify() != video.digest()


def test_a_pickled_file_is_the_same_video(tmp_path: Path) -> None:
    (tmp_path / "a.mkv").write_bytes(FILE)
    for source in (FILE, tmp_path / "a.mkv"):
        copy = pickle.loads(pickle.dumps(VideoSource(source)))
        assert equal(arrays(copy, [29]), [FRAMES[29]])


def test_files_are_told_apart_by_their_content() -> None:
    other = write_video(FRAMES[::-1])
    assert VideoSource(FILE).digest() != VideoSource(other).digest()
    assert VideoSource(FILE).digest() != VideoSource([FILE]).digest()
    assert VideoSource(FILE).outline == (60, 40, 30, len(FILE))


# ------------------------------------------------------------------------------------------- what cannot be read


def without_video() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as file:
        stream: Any = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    return buffer.getvalue()


def without_frames() -> bytes:
    data = write_video(FRAMES[:1], "avi")
    return data[: data.index(b"movi") + 4]


def begun_with_its_tables(folder: Path) -> bytes:
    path = folder / "fast.mp4"
    with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as file:
        stream: Any = file.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 40, 60, "yuv420p"
        for frame in FRAMES:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode(None):
            file.mux(packet)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "0 bytes: zero bytes; it was not written or downloaded completely"),
        (b"hello " * 99, "not a video that can be read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(300), "not a video that can be read"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not a video that can be read"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "not a video that can be read"),
        (b"<MPD><BaseURL>file:///etc/passwd</BaseURL></MPD>", "not a video that can be read"),
        (FILE[: len(FILE) // 2], r"it ends after \d+ of \d+ bytes"),
        (FILE[:40], "bytes"),
        (b"\x1a\x45\xdf\xa3" + bytes(500), "damaged or not readable|no video in it"),
        (b"\0\0\0\x18ftypisom" + bytes(500), "damaged or not readable|no video in it"),
        (without_video(), "no video in it"),
        (without_frames(), "no frame|it ends after"),
    ],
    ids=range(12),
)
def test_what_is_no_video_is_refused_by_its_item(data: bytes, problem: str) -> None:
    video = parse_items(["a", {"video": data}])[1].video
    assert video is not None
    with pytest.raises(VideoError, match=f"^item 1: .*({problem})"):
        _ = video.frame_count


@pytest.mark.parametrize("make", [lambda folder: write_video(FRAMES, "mov"), begun_with_its_tables])
def test_a_file_that_ends_early_is_refused(make: Callable[[Path], bytes], tmp_path: Path) -> None:
    data = make(tmp_path)
    assert len(read(data)) == 30
    with pytest.raises(VideoError, match=r"ends after|damaged"):
        read(data[: len(data) * 2 // 3])


def test_a_damaged_frame_is_refused(mp4: bytes) -> None:
    start = len(mp4) // 2
    with pytest.raises(VideoError, match=r"frame \d+ (is damaged|cannot be decoded)|damaged or not readable"):
        read(mp4[:start] + b"\xff" * 300 + mp4[start + 300 :])


def test_a_codec_that_is_not_listed_is_refused() -> None:
    with pytest.raises(VideoError, match="coded by ffvhuff, which is not read; convert it to one of .*h264"):
        read(write_video(FRAMES[:2], "avi", "ffvhuff", "yuv420p"))


def test_a_frame_of_another_size_is_refused() -> None:
    first, second = (write_video(random_frames(4, width), "mpegts", "mpeg2video", g="1") for width in (64, 80))
    with pytest.raises(VideoError, match=r"frame \d is of 80x40 pixels, and the first of 64x40"):
        read(first + second)


LIMITS: list[tuple[str, Any, Any, str]] = [
    ("max_video_frames", 30, 29, "its frames are over the limit of 29"),
    ("max_video_seconds", 1.17, 1.15, "1 s are over the limit of 1.15 s"),
    ("max_video_bytes", len(FILE), 999, "bytes are over the limit of 999; shrink the video or raise max_video_bytes"),
    ("max_pixels", 2400, 2399, "frames of 60x40 pixels are over the limit of 2399"),
    ("max_decode_bytes", 96_000, 95_999, "frames of 60x40 pixels are over the limit of 2399"),
    ("max_video_decode_seconds", 50, 1e-9, "not decoded within the limit of 1e-09 s"),
]


@pytest.mark.parametrize(("limit", "enough", "too_little", "problem"), LIMITS)
def test_a_video_over_a_limit_is_refused(limit: str, enough: Any, too_little: Any, problem: str) -> None:
    assert len(read(FILE, **{limit: enough})) == 30
    with pytest.raises(VideoError, match=problem):
        read(FILE, **{limit: too_little})


def test_the_time_counts_while_frames_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    video = VideoSource(FILE, limits=ImageLimits(max_video_decode_seconds=50))
    _ = video.frame_count
    ticks = iter(range(0, 10**6, 10))
    monkeypatch.setattr(video_files.time, "monotonic", lambda: next(ticks))
    with pytest.raises(VideoError, match="not decoded within the limit of 50 s"):
        arrays(video, [29])


def test_the_frames_of_a_list_are_limited() -> None:
    with pytest.raises(VideoError, match="^item 0: 4 frames are over the limit of 3"):
        parse_items([{"video": FRAMES[:4]}], ImageLimits(max_video_frames=3))


def with_samples(data: bytes, table: bytes, samples: int) -> bytes:
    """Let a sample table without entries state a number of samples."""
    start = data.index(table)
    return data[: start + 8] + struct.pack(">II", 1, samples) + data[start + 16 :]


@pytest.mark.parametrize("samples", [900_000, 2**31, 2**32 - 1])
def test_a_table_of_many_samples_is_refused_before_it_is_made(samples: int) -> None:
    data = with_samples(write_video(FRAMES, "mov"), b"stsz", samples)
    with pytest.raises(VideoError, match=rf"tables of {samples} samples are over the limit of 200000 frames"):
        read(data)


def test_compressed_and_endless_headers_are_refused() -> None:
    data = write_video(FRAMES, "mov")
    with pytest.raises(VideoError, match="a compressed header"):
        read(data.replace(b"stsz", b"cmov"))
    with pytest.raises(VideoError, match="over 1000000 boxes"):
        read(b"\0\0\0\x08ftyp" + b"\0\0\0\x08free" * 1_000_001)
    with pytest.raises(VideoError, match="a box of 70000008 bytes beside"):
        read(b"\0\0\0\x08ftyp" + struct.pack(">I", 70_000_008) + b"free" + bytes(70_000_000))


@pytest.mark.parametrize("local_files", [False, "folder"])
def test_files_that_may_not_be_opened_are_refused(local_files: Any, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.mkv").write_bytes(FILE)
    limits = ImageLimits(local_files=local_files and tmp_path / local_files)
    for path in (tmp_path / "a.mkv", tmp_path / "absent.mkv"):
        video = VideoSource(path, limits=limits)
        with pytest.raises(VideoError, match=r"turned off \(local_files=False\)|not within the folder"):
            _ = video.frame_count


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match=r"a\.mp4: not a regular file; pass the path of a video file"):
        _ = VideoSource(tmp_path / "a.mp4").frame_count
    with pytest.raises(VideoError, match="no such file"):
        _ = VideoSource(tmp_path / "b.mp4").frame_count


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://127.0.0.1/a.mp4", "not public; pass the video itself"),
        ("rtmp://example.org/a", "http"),
        ("", "an empty string names no video"),
        ("A" * 5000, "and no path; write base64 as data:video/mp4"),
    ],
)
def test_an_address_that_is_not_fetched_is_refused(url: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        _ = VideoSource(url).frame_count


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "st-modules\[video\]"'):
        _ = VideoSource(FILE).frame_count


def test_frames_of_a_list_need_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert equal(arrays(videos.VideoSource(FRAMES[:2]), [0, 1]), FRAMES[:2])
