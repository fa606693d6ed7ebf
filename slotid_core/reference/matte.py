"""The built-in matte: what of a portrait is the person.

Shape letters: H W height and width of the picture, C channels (RGB), h w of the working copy.

GrabCut (Rother, Kolmogorov, Blake 2004; OpenCV's) on a picture that is known to hold one head: the face box says what
is person for sure (face, skull, chest), what may be (hair, shoulders) and what is background. It is no rival to a
trained matting network, least of all with hair and background of one colour; connect a network's mask where that
matters.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SlotIDError
from .faces.face import Face
from .track import centre_and_size

_WORK_SIDE = 320
_ROUNDS = 2
# Blur of the mask's edge, in pixels of the working copy.
_FEATHER = 1.5
# Levels up to which a row or column along the picture's sides is a black bar.
_BLACK = 24

# Where people are, in face sizes (brow to chin) from the face's centre. Ellipses: centre above the face's, half width,
# half height. Bodies: right half of the outline, across and down.
_FACE = (0.0, 0.36, 0.46)
_SKULL = (0.45, 0.46, 0.53)
_HAIR = (0.42, 0.58, 0.68)
_ANY_HAIR = (0.3, 0.88, 1.1)
_SURE_BODY = ((0.15, 0.3), (0.22, 0.5), (0.36, 0.65), (0.6, 0.85), (0.75, 1.1), (0.75, 99.0))
_ANY_BODY = ((0.3, 0.35), (0.65, 0.4), (1.3, 0.62), (2.5, 1.0), (2.5, 99.0))


def person_matte(picture_HWC: Tensor, face: Face) -> Tensor:
    """A soft mask of the person with that face.

    Args:
        picture_HWC: uint8; head and shoulders, or more.
        face: where the face is in it.

    Returns:
        ``[H, W]`` float32 in [0, 1], 1 on the person.

    Raises:
        SlotIDError: OpenCV is not installed, or it tells no person from the background.
    """
    try:
        import cv2
    except ImportError as error:
        raise SlotIDError(
            "The built-in matte needs OpenCV: pip install opencv-python-headless. Or connect a mask, or choose to keep "
            "the background."
        ) from error
    top, bottom, left, right = _without_bars(picture_HWC)
    inner_HWC = picture_HWC[top:bottom, left:right].numpy()
    scale = min(1.0, _WORK_SIDE / max(inner_HWC.shape))
    size = max(1, round(inner_HWC.shape[1] * scale)), max(1, round(inner_HWC.shape[0] * scale))
    work_hwC = cv2.resize(inner_HWC, size, interpolation=cv2.INTER_AREA)
    centre, face_size = centre_and_size(face)
    where = ((centre[0] - left) * scale, (centre[1] - top) * scale, face_size * scale)
    person_hw = _cut_out(cv2, work_hwC, *where)
    person_hw = _one_piece(cv2, person_hw, *where[:2])
    if not 0.02 < person_hw.mean() < 0.98:
        raise SlotIDError(
            f"The built-in matte took {person_hw.mean():.0%} of the picture for the person, so it can't tell it from "
            "the background. Connect a mask from a matting node, or choose to keep the background."
        )
    soft_hw = cv2.GaussianBlur(person_hw.astype(np.float32), (0, 0), _FEATHER)
    soft_11hw = torch.from_numpy(soft_hw)[None, None]
    inner_11HW = F.interpolate(soft_11hw, inner_HWC.shape[:2], mode="bilinear", align_corners=False).clamp(0, 1)
    mask_HW = torch.zeros(picture_HWC.shape[:2])
    mask_HW[top:bottom, left:right] = inner_11HW[0, 0]
    return mask_HW


def _without_bars(picture_HWC: Tensor) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what is inside black bars, which would pass for dark hair's background."""
    brightest_HW = picture_HWC.amax(-1).numpy()
    limits: list[int] = []
    for axis in (1, 0):
        lit = np.percentile(brightest_HW, 98, axis=axis) > _BLACK
        lines = np.flatnonzero(lit)
        limits += [int(lines[0]), int(lines[-1]) + 1] if len(lines) else [0, len(lit)]
    return tuple(limits)


def _cut_out(cv2, work_hwC: np.ndarray, x: float, y: float, size: float) -> np.ndarray:
    """GrabCut by where people are around a face of that centre and size; 1 on the person."""
    shape = work_hwC.shape[:2]

    def ellipse(target_hw, kind: int, up: float, half_width: float, half_height: float) -> None:
        centre, axes = (round(x), round(y - up * size)), (round(half_width * size), round(half_height * size))
        cv2.ellipse(target_hw, centre, axes, 0, 0, 360, kind, -1)

    def body(target_hw, kind: int, *outline: tuple[float, float]) -> None:
        right = [(x + across * size, y + down * size) for across, down in outline]
        left = [(2 * x - across, down) for across, down in reversed(right)]
        cv2.fillPoly(target_hw, [np.array(right + left).round().astype(np.int32)], kind)

    seeds_hw = np.full(shape, cv2.GC_BGD, np.uint8)
    ellipse(seeds_hw, cv2.GC_PR_FGD, *_ANY_HAIR)
    body(seeds_hw, cv2.GC_PR_FGD, *_ANY_BODY)
    learnt_hw = (seeds_hw == cv2.GC_BGD).astype(np.uint8)
    for target_hw, kind in ((seeds_hw, cv2.GC_FGD), (learnt_hw, 1)):
        ellipse(target_hw, kind, *_FACE)
        ellipse(target_hw, kind, *_SKULL)
        body(target_hw, kind, *_SURE_BODY)
    ellipse(learnt_hw, 1, *_HAIR)

    # Colours are learnt from where it is clear what is what, and only then is the border drawn: learnt from all of
    # the picture, hair would be in the background's colours from the start.
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # GrabCut starts from a k-means of its own
    known_hw = learnt_hw == 1
    if not 0.02 < (seeds_hw[known_hw] == cv2.GC_BGD).mean() < 0.98:
        raise SlotIDError(
            "The built-in matte can't learn what is person and what background: the face fills the picture, or is "
            "hardly in it. Connect a mask from a matting node, or choose to keep the background."
        )
    known_n1C, kinds_n1 = work_hwC[known_hw][:, None], seeds_hw[known_hw][:, None].copy()
    cv2.grabCut(known_n1C, kinds_n1, None, background, foreground, 0, cv2.GC_INIT_WITH_MASK)
    cv2.grabCut(work_hwC, seeds_hw, None, background, foreground, 1, cv2.GC_EVAL_FREEZE_MODEL)
    cv2.grabCut(work_hwC, seeds_hw, None, background, foreground, _ROUNDS, cv2.GC_EVAL)
    return np.isin(seeds_hw, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)


def _one_piece(cv2, person_hw: np.ndarray, x: float, y: float) -> np.ndarray:
    """Only what hangs together with the face, without holes."""
    _, labels_hw = cv2.connectedComponents(person_hw)
    row, column = (min(max(0, round(v)), n - 1) for v, n in zip((y, x), person_hw.shape, strict=True))
    piece_hw = person_hw * (labels_hw == labels_hw[row, column])
    outlines, _ = cv2.findContours(piece_hw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled_hw = np.zeros_like(piece_hw)
    cv2.drawContours(filled_hw, outlines, -1, 1, cv2.FILLED)
    return filled_hw
