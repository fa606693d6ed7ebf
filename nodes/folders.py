"""Where the pack's files lie in ComfyUI."""

from pathlib import Path

import folder_paths

from ..slotid_core.errors import SlotIDError
from ..slotid_core.safe_file import SUFFIX

_KEY = "slotid"


def register_model_folder() -> None:
    """Make ``models/slotid`` known, for ``.safetensors`` files only."""
    folder_paths.add_model_folder_path(_KEY, str(Path(folder_paths.models_dir) / _KEY))
    # A key made by add_model_folder_path has an empty extension set, which would list every file.
    folder_paths.folder_names_and_paths[_KEY][1].add(SUFFIX)


def weight_files() -> list[str]:
    """Names of the Slot-ID weights in ``models/slotid``."""
    return folder_paths.get_filename_list(_KEY)


def weight_path(name: str) -> Path:
    """Full path of a listed weights file."""
    return Path(folder_paths.get_full_path_or_raise(_KEY, name))


def input_videos() -> list[str]:
    """Names of the videos in the input folder."""
    folder = Path(folder_paths.get_input_directory())
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return sorted(folder_paths.filter_files_content_types(names, ["video"]))


def input_video_path(name: str) -> Path:
    """Full path of a video that a widget names, which may carry ``[input]``, ``[output]`` or ``[temp]``.

    Raises:
        SlotIDError: the name leads out of those folders.
    """
    path = Path(folder_paths.get_annotated_filepath(name)).resolve()
    allowed = [
        Path(folder).resolve()
        for folder in (
            folder_paths.get_input_directory(),
            folder_paths.get_output_directory(),
            folder_paths.get_temp_directory(),
        )
    ]
    if not any(path.is_relative_to(folder) for folder in allowed):
        raise SlotIDError(f"{name!r} is outside ComfyUI's input, output and temp folders. Upload the clip instead.")
    return path
