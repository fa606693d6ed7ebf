"""A Face out of iBUG's 68 points, the same way for every backend that has them. Shape letters: P points (68)."""

import numpy as np

from .expression import expression_of
from .face import Face
from .geometry import box_of, fit_head


def face_from_landmarks(points_P2: np.ndarray, score: float) -> Face:
    """Box, pose and expression of a face.

    Args:
        points_P2: ``[68, 2]`` pixels of the frame; they may lie outside of it, and the box then does so too.
        score: the detection's.
    """
    fit = fit_head(points_P2)
    return Face(
        box_xyxy=box_of(points_P2),
        score=score,
        landmarks_68x2=points_P2,
        pose=fit.pose,
        expression=expression_of(points_P2, fit),
    )
