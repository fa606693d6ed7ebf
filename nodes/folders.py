"""Where the pack's files lie in ComfyUI."""

from pathlib import Path, PurePath

import folder_paths

from ..slotid_core.errors import SlotIDError
from ..slotid_core.safe_file import SUFFIX

_KEY = "slotid"
_IDENTITIES = "identities"
# Windows lets no file have these names, whatever follows a dot.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
_LONGEST_PART, _MOST_BYTES, _MOST_PARTS = 100, 200, 8
"""Of a name: letters and bytes in a part of it, of which file systems take 255 with all endings; and parts."""


def register_model_folder() -> None:
    """Make ``models/slotid`` known, for ``.safetensors`` files only; identities lie in ``identities`` within it."""
    folder_paths.add_model_folder_path(_KEY, str(Path(folder_paths.models_dir) / _KEY))
    # A key made by add_model_folder_path has an empty extension set, which would list every file.
    folder_paths.folder_names_and_paths[_KEY][1].add(SUFFIX)


def weight_files() -> list[str]:
    """Names of the Slot-ID weights in ``models/slotid``."""
    return [name for name in folder_paths.get_filename_list(_KEY) if PurePath(name).parts[0] != _IDENTITIES]


def weight_path(name: str) -> Path:
    """Full path of a listed weights file."""
    return Path(folder_paths.get_full_path_or_raise(_KEY, name))


def identity_files() -> list[str]:
    """Names of the saved identities, with their sub-folders."""
    # Not by a key of their own: ComfyUI's list of files fails when a key's folder is deleted while it runs.
    paths = map(PurePath, folder_paths.get_filename_list(_KEY))
    return [str(path.relative_to(_IDENTITIES)) for path in paths if path.parts[0] == _IDENTITIES]


def identity_path(name: str) -> Path:
    """Full path of a listed identity.

    Raises:
        SlotIDError: it is not in the list, which holds files of these folders alone.
    """
    if name not in identity_files():
        raise SlotIDError(f"There is no identity {name!r} in models/slotid/identities. Make one with Save Identity.")
    return Path(folder_paths.get_full_path_or_raise(_KEY, str(PurePath(_IDENTITIES, name))))


def new_identity_path(name: str) -> Path:
    """Where an identity of that name is saved.

    Args:
        name: with or without ``.safetensors``; ``/`` and ``\\`` divide sub-folders.

    Raises:
        SlotIDError: the name leads out of the folder, or no file can have it on every system.
    """
    # Not the first of the folders: that may be a shared one, from extra_model_paths.yaml.
    root = Path(folder_paths.models_dir) / _KEY / _IDENTITIES
    parts = name.strip().removesuffix(SUFFIX).replace("\\", "/").split("/")
    if len(parts) > _MOST_PARTS or not all(map(_is_file_name, parts)):
        raise SlotIDError(
            f"Got the name {name[:200]!r}, expected one such as 'ann' or 'family/ann': a file in "
            f'models/slotid/identities, without :*?"<>| and dots at the ends, at most {_LONGEST_PART} letters and '
            f"{_MOST_BYTES} bytes a part (of Chinese 66 letters)."
        )
    path = root.joinpath(*parts[:-1], parts[-1] + SUFFIX)
    if not path.parent.resolve().is_relative_to(root.resolve()):
        raise SlotIDError(f"{name!r} leads out of models/slotid/identities by a link. Choose another sub-folder.")
    return path


def _is_file_name(part: str) -> bool:
    fits = 0 < len(part) <= _LONGEST_PART and part.isprintable() and part == part.strip(" .")
    fits = fits and len(part.encode()) <= _MOST_BYTES
    return fits and not set(part) & set(':*?"<>|') and part.split(".")[0].strip().lower() not in _RESERVED


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
