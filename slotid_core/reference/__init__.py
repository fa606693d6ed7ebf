"""From a video file to what the encoder reads: a square clip that follows the face, and a portrait.

Video files are opened in ``decode.py`` alone. PyAV, OpenCV, matplotlib and the face libraries are imported when first
used.
"""

from .analyse import Analysis, FrameReport, Reference, SeveralPeopleError, UnusableClipError, analyse
from .crop import Box, largest_square, square_around, square_crop
from .faces import BACKENDS, FaceBackend, choose_backend
from .head_portrait import HeadPortrait, describe_portraits, head_portraits
from .plot import coverage_plot
from .portrait import Portrait, extract_portrait
from .score import IdentityScore, score_identity
from .score_view import score_plot, score_sheet
from .sheet import contact_sheet, people_sheet
from .stabilise import crop_along
from .video import Clip, ClipInfo, read_clip

__all__ = [
    "BACKENDS",
    "Analysis",
    "Box",
    "Clip",
    "ClipInfo",
    "FaceBackend",
    "FrameReport",
    "HeadPortrait",
    "IdentityScore",
    "Portrait",
    "Reference",
    "SeveralPeopleError",
    "UnusableClipError",
    "analyse",
    "choose_backend",
    "contact_sheet",
    "coverage_plot",
    "crop_along",
    "describe_portraits",
    "extract_portrait",
    "head_portraits",
    "largest_square",
    "people_sheet",
    "read_clip",
    "score_identity",
    "score_plot",
    "score_sheet",
    "square_around",
    "square_crop",
]
