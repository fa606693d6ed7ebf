"""Upright, in the right colours, at the right size."""

import itertools

import av
import numpy as np
import pytest
import torch

from slotid_core.errors import SlotIDError
from slotid_core.reference import read_clip

# Luma weights of red and blue (ITU-R BT.601, BT.709, BT.2020) and the matrix numbers of ITU-T H.273.
WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
TAGS = {"bt601": 6, "bt709": 1, "bt2020": 9, "untagged": 2}
PATCHES = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 120, 90)]
PATCH = 32


def to_yuv(rgb, matrix, full, bits):
    """One colour as integer Y, U and V, straight from the standards' definitions."""
    kr, kb = WEIGHTS[matrix]
    red, green, blue = (value / 255 for value in rgb)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    u, v = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    step, top = 2 ** (bits - 8), 2**bits - 1
    if full:
        values = luma * top, u * top + 128 * step, v * top + 128 * step
    else:
        values = (16 + 219 * luma) * step, (128 + 224 * u) * step, (128 + 224 * v) * step
    return [min(top, round(value)) for value in values]


def patches_frame(matrix, full, pix_fmt, tag, height):
    """The patches side by side, written into the planes as numbers: no converter takes part."""
    bits = 10 if "10" in pix_fmt else 8
    frame = av.VideoFrame(PATCH * len(PATCHES), height, pix_fmt)
    colours = [to_yuv(rgb, matrix, full, bits) for rgb in PATCHES]
    for index, plane in enumerate(frame.planes):
        dtype = np.uint8 if bits == 8 else np.uint16
        values = np.array([colour[index] for colour in colours], dtype)
        line = np.zeros(plane.line_size // dtype().itemsize, dtype)
        line[: plane.width] = values.repeat(plane.width // len(PATCHES))
        plane.update(np.tile(line, plane.height).tobytes())
    frame.colorspace, frame.color_range = tag, 2 if full else 1
    return frame


def patch_colours(clip):
    middle = clip.frames_FHWC[0, clip.frames_FHWC.shape[1] // 2, PATCH // 2 :: PATCH]
    return middle.to(int)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("matrix, full", list(itertools.product(WEIGHTS, (False, True))))
def test_colours_of_known_patches(studio, matrix, full, pix_fmt):
    frame = patches_frame(matrix, full, pix_fmt, TAGS[matrix], 48)
    clip = read_clip(studio.write("clip.mkv", [frame] * 20, codec="ffv1", pix_fmt=pix_fmt), frames=5)
    assert (patch_colours(clip) - torch.tensor(PATCHES)).abs().max() <= 2
    assert clip.source.colour == f"{matrix} {'full' if full else 'limited'}"
    assert clip.source.bit_depth == (10 if "10" in pix_fmt else 8)
    assert ("10 bits reduced to 8" in clip.describe()) == ("10" in pix_fmt)


def test_motion_jpeg_has_full_range(studio):
    frame = patches_frame("bt601", True, "yuvj420p", TAGS["bt601"], 48)
    clip = read_clip(studio.write("clip.mov", [frame] * 12, codec="mjpeg", qmin="1", qmax="1"), frames=5)
    assert (patch_colours(clip) - torch.tensor(PATCHES)).abs().max() <= 4
    assert clip.source.colour == "bt601 full"


@pytest.mark.parametrize("height, matrix", [(480, "bt601"), (720, "bt709")])
def test_untagged_colours_go_by_height(studio, height, matrix):
    frame = patches_frame(matrix, False, "yuv420p", TAGS["untagged"], height)
    clip = read_clip(studio.write("clip.mkv", [frame] * 12, codec="ffv1"), frames=5)
    assert (patch_colours(clip) - torch.tensor(PATCHES)).abs().max() <= 2
    assert clip.source.colour == f"{matrix} limited"


@pytest.mark.parametrize(
    "name, codec, pix_fmt", [("c.mkv", "ffv1", "bgr0"), ("c.mov", "qtrle", "rgb24"), ("c.mkv", "ffv1", "gbrp10le")]
)
def test_files_that_hold_rgb(studio, name, codec, pix_fmt):
    row = np.array(PATCHES, np.uint8).repeat(PATCH, 0)
    picture = np.broadcast_to(row, (48, *row.shape))
    clip = read_clip(studio.write(name, [picture] * 12, codec=codec, pix_fmt=pix_fmt), frames=5, max_side=112)
    small = clip.frames_FHWC[0, 12, PATCH // 4 :: PATCH // 2].to(int)
    assert (small - torch.tensor(PATCHES)).abs().max() <= 1


def test_unknown_colour_space_is_refused(studio):
    frame = patches_frame("bt709", False, "yuv420p", 8, 48)  # YCgCo
    with pytest.raises(SlotIDError, match="clip.mkv has colours in a space that is not supported .matrix 8"):
        read_clip(studio.write("clip.mkv", [frame] * 12, codec="ffv1"), frames=5)


def corners_picture(height=48, width=80):
    """Red, green, blue and white corners on grey: every turn and mirroring of it is different."""
    picture_HWC = np.full((height, width, 3), 128, np.uint8)
    for y, x, colour in [(0, 0, (255, 0, 0)), (0, 1, (0, 255, 0)), (1, 0, (0, 0, 255)), (1, 1, (255, 255, 255))]:
        picture_HWC[y * (height - 16) :, x * (width - 16) :][:16, :16] = colour
    return picture_HWC


MATRICES = {
    0: (1, 0, 0, 1),
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


@pytest.mark.parametrize("degrees", MATRICES)
def test_rotation_flag_makes_the_picture_upright(studio, degrees):
    upright_HWC = corners_picture()
    stored_HWC = np.rot90(upright_HWC, degrees // 90)  # counter-clockwise: the flag turns it back
    path = studio.turn(studio.write("phone.mp4", [stored_HWC] * 20), *MATRICES[degrees])
    clip = read_clip(path, frames=5)
    assert clip.frames_FHWC.shape[1:] == upright_HWC.shape
    assert np.abs(clip.frames_FHWC[0].numpy().astype(int) - upright_HWC).mean() < 6
    assert (clip.source.width, clip.source.height, clip.source.rotation_deg) == (80, 48, degrees)
    assert (f"turned {degrees} degrees clockwise" in clip.describe()) == (degrees != 0)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        # PyAV's own reading of the flag, where this version has one.
        turned_HWC = np.rot90(frame.to_ndarray(format="rgb24"), getattr(frame, "rotation", -degrees) // 90)
    assert np.abs(turned_HWC.astype(int) - upright_HWC).mean() < 6


@pytest.mark.parametrize("degrees", MATRICES)
def test_mirroring_flag(studio, degrees):
    upright_HWC = corners_picture()
    stored_HWC = np.rot90(upright_HWC, degrees // 90)[:, ::-1]
    a, b, c, d = MATRICES[degrees]
    path = studio.turn(studio.write("selfie.mp4", [stored_HWC] * 20), -a, -b, c, d)  # mirror first, then turn
    clip = read_clip(path, frames=5)
    assert np.abs(clip.frames_FHWC[0].numpy().astype(int) - upright_HWC).mean() < 6
    assert clip.source.mirrored
    assert clip.source.rotation_deg == degrees


def test_crooked_rotation_is_refused(studio):
    path = studio.turn(studio.write("tilted.mp4", [corners_picture()] * 20), 1, 1, -1, 1)
    with pytest.raises(SlotIDError, match="tilted.mp4 is marked as turned by 45 degrees"):
        read_clip(path, frames=5)


@pytest.mark.parametrize("height, width", [(47, 61), (33, 80), (48, 35)])
def test_odd_sizes(studio, height, width):
    # A brown of rising brightness. The planes are written as numbers: PyAV 14 converts odd sizes wrongly.
    y, u, v = to_yuv((120, 90, 60), "bt601", full=False, bits=8)
    rise_HW = np.arange(height)[:, None] + np.arange(width)
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, values in zip(frame.planes, (y + rise_HW, u, v), strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : plane.width] = values
        plane.update(padded.tobytes())
    frame.colorspace, frame.color_range = TAGS["bt601"], 1
    clip = read_clip(studio.write("odd.mkv", [frame] * 12, codec="ffv1"), frames=5)
    expected_HWC = np.array([120, 90, 60]) + rise_HW[..., None] * 255 / 219
    assert np.abs(clip.frames_FHWC[4].numpy() - expected_HWC).max() <= 2


def test_pixels_that_are_not_square(studio):
    path = studio.write("dv.mp4", [corners_picture(48, 80)] * 12, **{"x264-params": "sar=3/2"})
    clip = read_clip(path, frames=5)
    assert (clip.source.width, clip.source.height) == (120, 48)
    assert clip.frames_FHWC.shape == (5, 48, 120, 3)


@pytest.mark.parametrize("turned", [False, True])
def test_max_side_shrinks_without_aliasing_and_never_enlarges(studio, turned):
    stripes_HWC = np.zeros((96, 160, 3), np.uint8)
    stripes_HWC[:, ::2] = 255
    path = studio.write("wide.mp4", [stripes_HWC] * 12)
    if turned:
        path = studio.turn(path, *MATRICES[90])
    clip = read_clip(path, frames=5, max_side=40)
    assert clip.frames_FHWC.shape == ((5, 40, 24, 3) if turned else (5, 24, 40, 3))
    assert (clip.frames_FHWC[:, 4:-4, 4:-4].to(int) - 127).abs().max() < 12
    assert max(read_clip(path, frames=5, max_side=4096).frames_FHWC.shape[1:3]) == 160


def test_max_side_of_a_tall_file(studio):
    path = studio.write("tall.mp4", [corners_picture(160, 96)] * 12)
    assert read_clip(path, frames=5, max_side=40).frames_FHWC.shape == (5, 40, 24, 3)


def alpha_frame(pix_fmt):
    """Left half opaque red, right half transparent green."""
    rgba_HWC = np.zeros((48, 80, 4), np.uint8)
    rgba_HWC[:, :40] = (255, 0, 0, 255)
    rgba_HWC[:, 40:] = (0, 255, 0, 0)
    return av.VideoFrame.from_ndarray(rgba_HWC, format="rgba").reformat(format=pix_fmt)


@pytest.mark.parametrize(
    "name, codec, pix_fmt",
    [
        ("a.mov", "qtrle", "argb"),
        ("a.mov", "png", "rgba"),
        ("a.webm", "libvpx-vp9", "yuva420p"),
        ("a.webm", "libvpx", "yuva420p"),
    ],
)
def test_transparency_is_laid_over_white(studio, name, codec, pix_fmt):
    options = {"auto-alt-ref": "0"} if "vpx" in codec else {}
    path = studio.write(name, [alpha_frame(pix_fmt)] * 20, codec=codec, **options)
    clip = read_clip(path, frames=5)
    assert (clip.frames_FHWC[2, 24, 20].to(int) - torch.tensor([255, 0, 0])).abs().max() < 8
    assert clip.frames_FHWC[2, 24, 60].min() > 247
    assert clip.source.has_alpha
    assert "transparency laid over white" in clip.describe()


def test_half_transparency(studio):
    rgba_HWC = np.full((32, 32, 4), (200, 100, 0, 102), np.uint8)
    frame = av.VideoFrame.from_ndarray(rgba_HWC, format="rgba")
    clip = read_clip(studio.write("half.mov", [frame] * 20, codec="png", pix_fmt="rgba"), frames=5)
    expected = [round(value * 0.4 + 255 * 0.6) for value in (200, 100, 0)]
    assert (clip.frames_FHWC[0, 8, 8].to(int) - torch.tensor(expected)).abs().max() <= 1


def test_metadata_that_is_not_utf8(studio):
    path = studio.numbered("strange.mp4", 20, metadata={"title": "XXXXCAFE"})
    path.write_bytes(path.read_bytes().replace(b"XXXXCAFE", b"\xff\xfe\xe9\xe8CAFE"))
    with pytest.raises(UnicodeDecodeError), av.open(str(path)):
        pass
    assert read_clip(path, frames=5).frames_FHWC.shape[0] == 5


@pytest.mark.parametrize("curve, name", [(16, "PQ"), (18, "HLG")])
def test_hdr_is_named(studio, curve, name):
    frame = patches_frame("bt2020", False, "yuv420p10le", 9, 48)
    path = studio.write(
        "hdr.mp4", [frame] * 12, **{"x264-params": f"transfer={ {16: 'smpte2084', 18: 'arib-std-b67'}[curve] }"}
    )
    clip = read_clip(path, frames=5)
    assert clip.source.hdr == name
    assert f"HDR ({name})" in clip.describe()


def test_size_that_changes_on_the_way_is_refused(studio):
    # Two raw streams one after the other, as a phone call's recording or a joined file has it.
    first = studio.numbered("first.h264", 12, bf="0")
    second = studio.write("second.h264", [corners_picture(64, 64)] * 12, bf="0")
    joined = studio.folder / "joined.h264"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(SlotIDError, match="joined.h264 changes from 224x32 yuv420p to 64x64 yuv420p"):
        read_clip(joined, frames=9)


def test_float_frames(studio):
    clip = read_clip(studio.numbered("clip.mp4", 20), frames=5)
    frames_FHWC = clip.as_float()
    assert frames_FHWC.dtype == torch.float32
    assert torch.equal((frames_FHWC * 255).round().to(torch.uint8), clip.frames_FHWC)
