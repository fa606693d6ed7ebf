"""How long the reference pipeline takes, and how much memory a long file needs.

    python benchmarks/bench_reference.py [--clip FILE] [--out FILE]

Without ``--clip`` a 10 s clip of 854x480 at 30 frames a second is made: a drawn head that moves over a noisy wall.
Analysis is with dlib, as in the nodes: 161 frames at 16 a second, faces searched in every fourth. Each run is a process
of its own, so the time to load dlib's models is in it; the time to start Python and import is not. ``again`` is the
same analysis a second time, as in a ComfyUI that has loaded them.

For the memory, a file of one hour is made (2 frames a second, a key picture every 10 minutes), and 65 frames are read
from its end.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import describe, load_average, run_facts

SECONDS, RATE, WIDTH, HEIGHT = 10, 30, 854, 480
FRAMES, FPS = 161, 16.0
GOAL_TIMES_REAL_TIME, GOAL_MB = 3.0, 1500

MEASURED = """
import json, resource, sys, time
import numpy, torch, av, PIL.Image, dlib
from slotid_core.reference import analyse, choose_backend, crop_along, read_clip
path, start, frames, fps, analysed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
times = {}
begin = time.perf_counter()
clip = read_clip(path, start=start, frames=frames, fps=fps)
times["decode_s"] = time.perf_counter() - begin
if analysed == "yes":
    begin = time.perf_counter()
    analysis = analyse(clip.frames_FHWC, choose_backend("dlib", frames=frames), fps=fps)
    times["analyse_s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    analyse(clip.frames_FHWC, choose_backend("dlib", frames=frames), fps=fps)
    times["analyse_again_s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    crop_along(clip.frames_FHWC[analysis.kept.start : analysis.kept.stop], analysis.path, 512)
    times["crop_512_s"] = time.perf_counter() - begin
    times["faces_found"], times["frames_searched"] = analysis.coverage.faces, len(analysis.people.looked_at)
scale = 1 if sys.platform == "darwin" else 1024
times["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6
print("RESULT" + json.dumps(times))
"""


def write(path: Path, frames, rate: int, **options: str) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        for index, picture_HWC in enumerate(frames):
            if index == 0:
                stream.height, stream.width, stream.pix_fmt = *picture_HWC.shape[:2], "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture_HWC, format="rgb24")))
        container.mux(stream.encode(None))


def moving_head(seed: int):
    """Pictures of a head that turns while it crosses the frame."""
    import numpy as np

    from slotid_core.reference.faces import Pose
    from training.world.render import render
    from training.world.scene import sample_scene
    from training.world.traits import sample_traits

    scenes = [sample_scene(100, pose=Pose(yaw=float(yaw), pitch=0.0, roll=0.0)) for yaw in range(-15, 16, 6)]
    views = (render(sample_traits(seed), scenes, 360, 360).image_BHW3.numpy() * 255).round().astype(np.uint8)
    rng = np.random.default_rng(seed)
    wall = rng.integers(90, 160, (HEIGHT // 8, WIDTH // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:HEIGHT, :WIDTH]
    for i in range(SECONDS * RATE + RATE):  # frame 161 is shown after the ten seconds
        picture = np.clip(wall + rng.integers(-4, 5, wall.shape), 0, 255).astype(np.uint8)
        turn = i // 6 % (2 * len(views) - 2)
        left = round(40 + 380 * i / (SECONDS * RATE + RATE))
        picture[60:420, left : left + 360] = views[min(turn, 2 * len(views) - 2 - turn)]
        yield picture


def an_hour():
    import numpy as np

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (64, 9, 16, 3), dtype=np.uint8)
    for i in range(7200):
        yield coarse[i % 64].repeat(16, 0).repeat(16, 1)


def measure(path: Path, start: float, frames: int, fps: float, analysed: bool) -> dict:
    command = [
        sys.executable,
        "-c",
        MEASURED,
        str(path),
        str(start),
        str(frames),
        str(fps),
        "yes" if analysed else "no",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    return json.loads(line.removeprefix("RESULT"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="a clip of 10 s or more instead of the one that is made")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file; printed where left out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = args.clip
        if clip is None:
            clip = Path(folder) / "ten_seconds.mp4"
            write(clip, moving_head(3), RATE, preset="veryfast")
        runs = []
        for _ in range(args.repeats):
            runs.append(measure(clip, 0.0, FRAMES, FPS, analysed=True) | {"load_average": load_average()})
        hour = Path(folder) / "hour.mp4"
        write(hour, an_hour(), 2, preset="ultrafast", g="1200", keyint_min="1200", sc_threshold="0")
        long_file = measure(hour, 3560.0, 65, FPS, analysed=False)
        long_file["file_mb"] = hour.stat().st_size / 1e6
    decode = statistics.median(run["decode_s"] for run in runs)
    analyse = statistics.median(run["analyse_s"] for run in runs)
    again = statistics.median(run["analyse_again_s"] for run in runs)
    fastest = min(run["decode_s"] + run["analyse_s"] for run in runs)
    result = {
        "machine": describe("cpu"),
        "run": run_facts(__file__, seed=3),
        "clip": f"{SECONDS} s, {WIDTH}x{HEIGHT}, {RATE} fps, made" if args.clip is None else "given",
        "frames": FRAMES,
        "decode_s": decode,
        "analyse_s": analyse,
        "decode_share": decode / (decode + analyse),
        "times_real_time": SECONDS / (decode + analyse),
        "times_real_time_fastest": SECONDS / fastest,
        "analyse_again_s": again,
        "times_real_time_again": SECONDS / (decode + again),
        "goal_times_real_time": GOAL_TIMES_REAL_TIME,
        "peak_mb": max(run["peak_mb"] for run in runs),
        "one_hour_file": long_file,
        "goal_mb": GOAL_MB,
        "runs": runs,
    }
    text = json.dumps(result, indent=2)
    if args.out is None:
        print(text)
    else:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
