"""Reads mutated video files in a process of its own, so that a crash of native code or a hang is seen from outside.

    python fuzz_worker.py FOLDER FIRST COUNT

FOLDER holds the good files. Before and after each case a line goes out: ``start N`` and ``read N``, ``refused N`` or
``bad N WHAT``.
"""

import random
import sys
import tempfile
from pathlib import Path

from slotid_core.errors import SlotIDError
from slotid_core.reference import read_clip

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to four damages: cut short, bits, blocks, numbers, or a piece of another file."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not damaged:
            break
        at, length = rng.randrange(len(damaged)), rng.choice([1, 4, 16, 64, 500])
        kind = rng.choice(["cut", "bits", "bytes", "zero", "remove", "repeat", "number", "splice", "header"])
        if kind == "cut":
            del damaged[at:]
        elif kind == "bits":
            for _ in range(rng.choice([1, 3, 20])):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        elif kind == "bytes":
            damaged[at : at + length] = rng.randbytes(length)
        elif kind == "zero":
            damaged[at : at + length] = bytes(length)
        elif kind == "remove":
            del damaged[at : at + length]
        elif kind == "repeat":
            damaged[at:at] = damaged[at : at + length] * rng.choice([1, 2, 20])
        elif kind == "number":
            width = rng.choice([1, 2, 4])
            number = rng.choice(EXTREMES) & (1 << 8 * width) - 1
            damaged[at : at + width] = number.to_bytes(width, rng.choice(["little", "big"]))
        elif kind == "splice":
            start = rng.randrange(len(other))
            damaged[at : at + length] = other[start : start + length]
        else:
            damaged[rng.randrange(min(200, len(damaged)))] = rng.randrange(256)
    return bytes(damaged)


def main(folder: Path, first: int, count: int) -> None:
    good = sorted(folder.iterdir())
    with tempfile.TemporaryDirectory() as scratch:
        for case in range(first, first + count):
            rng = random.Random(case)
            path, other = rng.choice(good), rng.choice(good)
            broken = Path(scratch) / f"case{case}{path.suffix}"
            broken.write_bytes(mutate(path.read_bytes(), other.read_bytes(), rng))
            start = rng.choice([0.0, 0.0, 0.3, 0.8])
            print("start", case, flush=True)
            try:
                clip = read_clip(broken, start=start, frames=5)
            except SlotIDError as error:
                named = broken.name in str(error)
                print(f"refused {case}" if named else f"bad {case} does not name the file: {error}", flush=True)
            except BaseException as error:
                print(f"bad {case} {type(error).__name__}: {error}", flush=True)
            else:
                whole = len(clip.frames_FHWC) == len(clip.timestamps_s) == 5
                print(f"read {case}" if whole else f"bad {case} has {len(clip.frames_FHWC)} frames", flush=True)
            broken.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
