"""The built-in matte: what of a portrait is the person.

Shape letters: H W height and width of the picture, C channels (RGB), h w of the working copy.

GrabCut (Rother, Kolmogorov, Blake 2004; OpenCV's) on a picture that is known to hold one head: the face is person for
sure, the upper corners are background for sure, hair and shoulders are guessed from the face box. It is no rival to a
trained matting network; connect one's mask where the edge of the hair matters.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SlotIDError
from .faces.face import Face
from .track import centre_and_size

_WORK_SIDE = 384
_ROUNDS = 5
_FEATHER = 1.5


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
    height, width = picture_HWC.shape[:2]
    scale = min(1.0, _WORK_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    work_hwC = cv2.resize(picture_HWC.numpy(), size, interpolation=cv2.INTER_AREA)
    seeds_hw = _seeds(cv2, work_hwC.shape[:2], face, scale)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # GrabCut starts from a k-means of its own
    cv2.grabCut(work_hwC, seeds_hw, None, background, foreground, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    person_hw = np.isin(seeds_hw, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    person_hw = _one_piece(cv2, person_hw, face, scale)
    if not 0.02 < person_hw.mean() < 0.98:
        raise SlotIDError(
            f"The built-in matte took {person_hw.mean():.0%} of the picture for the person, so it can't tell it from "
            "the background. Connect a mask from a matting node, or choose to keep the background."
        )
    soft_hw = cv2.GaussianBlur(person_hw.astype(np.float32), (0, 0), _FEATHER)
    soft_11hw = torch.from_numpy(soft_hw)[None, None]
    return F.interpolate(soft_11hw, (height, width), mode="bilinear", align_corners=False)[0, 0].clamp(0, 1)


def _seeds(cv2, shape: tuple[int, int], face: Face, scale: float) -> np.ndarray:
    """GrabCut's four kinds of pixel, from where the face is."""
    height, width = shape
    (x, y), size = centre_and_size(face)
    x, y, size = x * scale, y * scale, size * scale
    seeds_hw = np.full(shape, cv2.GC_PR_BGD, np.uint8)

    def ellipse(centre: tuple[float, float], axes: tuple[float, float], kind: int) -> None:
        cv2.ellipse(
            seeds_hw, (round(centre[0]), round(centre[1])), (round(axes[0]), round(axes[1])), 0, 0, 360, kind, -1
        )

    # Beyond a generous head, and above the shoulders, nothing is person.
    beyond_hw = np.ones(shape, np.uint8)
    cv2.ellipse(
        beyond_hw, (round(x), round(y - 0.1 * size)), (round(1.05 * size), round(1.25 * size)), 0, 0, 360, 0, -1
    )
    beyond_hw[min(height, max(0, round(y + 0.55 * size))) :] = 0
    seeds_hw[beyond_hw == 1] = cv2.GC_BGD
    ellipse((x, y - 0.18 * size), (0.66 * size, 0.86 * size), cv2.GC_PR_FGD)  # head and hair
    shoulders = np.array(
        [
            [x - 0.35 * size, y + 0.45 * size],
            [x + 0.35 * size, y + 0.45 * size],
            [x + 1.2 * size, y + 1.15 * size],
            [x + 1.2 * size, height],
            [x - 1.2 * size, height],
            [x - 1.2 * size, y + 1.15 * size],
        ]
    )
    cv2.fillPoly(seeds_hw, [shoulders.round().astype(np.int32)], cv2.GC_PR_FGD)
    ellipse((x, y), (0.36 * size, 0.46 * size), cv2.GC_FGD)
    cv2.line(
        seeds_hw, (round(x), round(y + 0.4 * size)), (round(x), height), cv2.GC_FGD, max(1, round(0.25 * size))
    )  # neck and chest
    return seeds_hw


def _one_piece(cv2, person_hw: np.ndarray, face: Face, scale: float) -> np.ndarray:
    """Only what hangs together with the face, without holes."""
    (x, y), _ = centre_and_size(face)
    _, labels_hw = cv2.connectedComponents(person_hw)
    row, column = (min(max(0, round(v * scale)), n - 1) for v, n in zip((y, x), person_hw.shape, strict=True))
    piece_hw = (labels_hw == labels_hw[row, column]).astype(np.uint8)
    outlines, _ = cv2.findContours(piece_hw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled_hw = np.zeros_like(piece_hw)
    cv2.drawContours(filled_hw, outlines, -1, 1, cv2.FILLED)
    return filled_hw
