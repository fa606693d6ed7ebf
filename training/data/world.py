"""Slot-ID World's drawn people as a dataset: no face is searched, since every picture is of one person and known.

A reference is shown with the target of the person's other clip, which shares neither action, background, clothing nor
light with it. Letters: F frames, H W height and width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slotid_core.errors import SlotIDError
from training.data.sources import Reject, SourceVideo
from training.settings import Settings
from training.world.pictures import clip_of_name, drawn_files, read_pictures

if TYPE_CHECKING:
    from torch import Tensor


class WorldSource:
    """The files that ``python -m training.world.pictures`` drew into ``data.source``."""

    def __init__(self, settings: Settings):
        self._folder = settings.data.source

    def videos(self) -> tuple[list[SourceVideo], list[Reject]]:
        """See :class:`training.data.sources.Source`.

        Raises:
            SlotIDError: a file that names no clip of the world.
        """
        videos = []
        for path in drawn_files(self._folder):
            clip = clip_of_name(path.stem)
            videos.append(SourceVideo(id=path.stem, path=path, caption=clip.caption, person=clip.person))
        return videos, []


def drawn_pictures(video: SourceVideo, settings: Settings) -> tuple[Tensor, Tensor]:
    """The clip ``[F, H, W, 3]`` and the portrait ``[H, W, 3]``, float in [0, 1].

    Raises:
        SlotIDError: a damaged file, or pictures of another size than the settings ask for.
    """
    pictures, data = read_pictures(video.path), settings.data
    clip_FHWC, portrait_HWC = (pictures[name].float() / 255 for name in ("clip", "portrait"))
    frames, height, width, _ = clip_FHWC.shape
    asked = (data.lengths, data.reference_frames, data.sizes, data.reference_side, data.portrait_side)
    drawn = ([frames], frames, [(height, width)], height, height)
    if asked != drawn:
        raise SlotIDError(
            f"{video.path.name} holds {frames} frames of {height}x{width}. Set data.lengths to [{frames}], "
            f"data.reference_frames to {frames}, data.sizes to [[{height}, {width}]], data.reference_side and "
            f"data.portrait_side to {height}."
        )
    return clip_FHWC, portrait_HWC
