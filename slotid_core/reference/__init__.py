"""From a video file to what the encoder reads: a square clip and a portrait.

Video files are opened in ``decode.py`` alone, and PyAV is imported when the first one is opened.
"""

from .crop import Box, largest_square, square_around, square_crop
from .portrait import Portrait, extract_portrait
from .video import Clip, ClipInfo, read_clip

__all__ = [
    "Box",
    "Clip",
    "ClipInfo",
    "Portrait",
    "extract_portrait",
    "largest_square",
    "read_clip",
    "square_around",
    "square_crop",
]
