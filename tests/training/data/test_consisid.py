"""ConsisID-preview's tree: which clips come out, who is meant in them, and what is left out and why."""

import io
import json
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slotid_core.errors import SlotIDError
from training.data.cache import open_cache
from training.data.masks import mask_at
from training.data.shards import thumbnails
from training.data.sources import UnusableError, open_source
from training.settings_file import from_dict

WIDTH, HEIGHT, FPS = 320, 180, 30.0


def settings(root, **data):
    return from_dict(
        {
            "run": {"folder": "out"},
            "model": {"preset": "tiny", "transformer": "tiny", "vae": "tiny", "text_encoder": "hashed"},
            "data": {"layout": "consisid", "source": str(root), "cache": "out/cache", **data},
            "optim": {"steps": 1, "batch": 1},
        },
        "test",
    )


def found(box, **ids):
    """One detection as ConsisID's JSON has it."""
    x1, y1, x2, y2 = box
    return {"name": "FACE", "class": 0, "confidence": 0.9, "box": {"x1": x1, "y1": y1, "x2": x2, "y2": y2}, **ids}


class Tree:
    """A dataset that grows clip by clip. Listing decodes nothing, so its videos are empty."""

    def __init__(self, root, part="part"):
        self.root, self.part = root, root / part
        for folder in ("videos", "captions", "refine_bbox_jsons", "track_masks_data"):
            (self.part / folder).mkdir(parents=True)
        self.captions = []
        self.write_list(f"{part}/videos,{part}_captions.json,{part}\n")

    def write_list(self, text):
        (self.root / "total_train_data.txt").write_text(text, encoding="utf-8")

    def caption(self, path, cap="A person smiles.", **changes):
        entry = {
            "path": path,
            "cap": cap,
            "size": 1,
            "resolution": {"height": HEIGHT, "width": WIDTH},
            "fps": FPS,
            "duration": 49 / FPS,
        }
        self.captions.append({k: v for k, v in {**entry, **changes}.items() if v is not ...})

    def video(self, clip):
        path = self.part / "videos" / f"{clip}.mp4"
        path.touch()
        return path

    def boxes(self, clip, pictures):
        """``pictures``: by picture, its faces."""
        record = {str(i): {"face": faces, "head": [], "person": []} for i, faces in pictures.items()}
        (self.part / "refine_bbox_jsons" / f"{clip}.json").write_text(json.dumps(record, indent=4))

    def masks(self, clip, objects, masks):
        """``objects``: as corresponding_data has them; ``masks``: of objects, by object and picture."""
        folder = self.part / "track_masks_data" / clip
        folder.mkdir()
        valid = {
            track: {kind: sorted(masks.get(number, {})) for kind, number in kinds.items()}
            for track, kinds in objects.items()
        }
        for name, content in (
            ("corresponding_data", objects),
            ("valid_frame", valid),
            ("control_sam2_frame", {track: dict.fromkeys(kinds, 0) for track, kinds in objects.items()}),
        ):
            (folder / f"{name}.json").write_text(json.dumps(content))
        for number, pictures in masks.items():
            place = folder / "tracking_mask_results" / str(number)
            place.mkdir(parents=True)
            for index, mask_HW in pictures.items():
                picture = Image.fromarray(mask_HW.astype(np.uint16) * number)
                assert picture.mode == "I;16"
                picture.save(place / f"annotated_frame_{index:05d}.png")

    def listed(self, **data):
        (self.root / "captions").mkdir(exist_ok=True)
        (self.root / "captions" / "part_captions.json").write_text(json.dumps(self.captions), encoding="utf-8")
        return open_source(settings(self.root, **data)).videos()


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "dataset")


def reasons(rejects):
    return [(reject.id, reject.reason) for reject in rejects]


def test_captions_find_their_videos_with_and_without_suffix_and_folders(tree):
    paths = [tree.video(clip) for clip in ("a", "b", "c.5_x")]
    tree.caption("b.mp4", " Second. ")
    tree.caption("step1/videos/c.5_x", "Third.")
    tree.caption("a", "First.")
    videos, rejects = tree.listed()
    assert [(video.id, video.caption, video.path) for video in videos] == [
        ("part/videos/a", "First.", paths[0]),
        ("part/videos/b", "Second.", paths[1]),
        ("part/videos/c.5_x", "Third.", paths[2]),
    ]
    assert [video.person for video in videos] == [video.id for video in videos]
    assert all(video.person_hint is None for video in videos) and rejects == []
    videos, _ = tree.listed(person=r"videos/(.)")
    assert [video.person for video in videos] == ["a", "b", "c"]


def test_clips_of_one_film_can_be_kept_together(tree):
    """As docs/data.md says, or a person who is held out is trained on in another clip of the same film."""
    for clip in ("5Nv-446_segment_0_243", "5Nv-446_segment_9_99_noFacePose_0_90", "wUF7__a_segment_0_49"):
        tree.video(clip)
        tree.caption(clip)
    videos, rejects = tree.listed(person="([^/]+?)_segment_")
    assert [video.person for video in videos] == ["5Nv-446", "5Nv-446", "wUF7__a"] and rejects == []


def test_what_can_not_be_used_is_said_by_reason(tree):
    for clip in ("good", "twice", "blank", "null", "no_fps", "uncaptioned"):
        tree.video(clip)
    tree.caption("good")
    tree.caption("twice", "The first one.")
    tree.caption("elsewhere/twice.mp4", "The second one.")
    tree.caption("blank", "  ")
    tree.caption("null", None)
    tree.caption("lost.mp4")
    tree.caption("no_fps", fps=...)
    tree.caption(None)
    tree.captions.append("no record")
    videos, rejects = tree.listed()
    assert [(video.id, video.caption) for video in videos] == [
        ("part/videos/good", "A person smiles."),
        ("part/videos/twice", "The first one."),
    ]
    assert reasons(rejects) == [
        ("captions/part_captions.json#8", "malformed caption"),
        ("captions/part_captions.json#9", "malformed caption"),
        ("part/videos/blank", "no caption"),
        ("part/videos/lost", "caption without a video"),
        ("part/videos/no_fps", "malformed caption"),
        ("part/videos/null", "no caption"),
        ("part/videos/twice", "captioned twice"),
        ("part/videos/uncaptioned", "no caption"),
    ]
    assert {r.id: r.detail for r in rejects}["part/videos/no_fps"] == "fps: Field required."


@pytest.mark.parametrize("place", ["as named", "captions", "part/captions"])
def test_the_captions_may_lie_in_three_places(tree, place):
    tree.video("a")
    tree.caption("a")
    folder = tree.root / ("." if place == "as named" else place)
    folder.mkdir(exist_ok=True)
    (folder / "part_captions.json").write_text(json.dumps(tree.captions))
    videos, _ = open_source(settings(tree.root)).videos()
    assert [video.id for video in videos] == ["part/videos/a"]


def test_paths_may_be_absolute_and_lead_outside(tree, tmp_path):
    other = Tree(tmp_path / "other", "more")
    for one, clip in ((tree, "a"), (other, "b")):
        one.video(clip)
        one.caption(clip)
        (one.part / "captions" / "part_captions.json").write_text(json.dumps(one.captions))
    tree.write_list(
        f"# videos,captions,annotation\n{tree.part / 'videos'},part_captions.json,part\n\n"
        f"../other/more/videos , part_captions.json , {other.part}\n"
    )
    videos, rejects = open_source(settings(tree.root)).videos()
    outside = (other.part / "videos" / "b").relative_to(tmp_path.anchor).as_posix()
    assert [video.id for video in videos] == sorted(["part/videos/a", outside]) and rejects == []
    assert all(video.path.is_file() for video in videos)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("part/videos,part_captions.json", "line 3: got 'part/videos,part_captions.json', expected three paths"),
        ("part/videos,,part", "line 3: got"),
        ("a,b,c,d", "line 3: got"),
        ("nowhere/videos,part_captions.json,part", "line 3: there is no folder .*nowhere"),
        ("part/videos,nowhere.json,part", "line 3: there is no file .*nowhere.json"),
        ("part/videos,part_captions.json,nowhere", "line 3: there is no folder .*nowhere"),
    ],
)
def test_a_bad_line_of_the_list_is_one_error_with_its_number(tree, line, said):
    tree.video("a")
    tree.caption("a")
    tree.write_list(f"part/videos,part_captions.json,part\n\n{line}\n")
    with pytest.raises(SlotIDError, match=said):
        tree.listed()


def test_a_dataset_that_is_none_is_one_error(tree):
    with pytest.raises(SlotIDError, match="leads to no videos"):
        tree.listed()
    (tree.root / "captions" / "part_captions.json").write_text("[{")
    with pytest.raises(SlotIDError, match="part_captions.json can't be read"):
        open_source(settings(tree.root)).videos()
    (tree.root / "captions" / "part_captions.json").write_text("{}")
    with pytest.raises(SlotIDError, match="expected a list of captions"):
        open_source(settings(tree.root)).videos()
    (tree.root / "total_train_data.txt").unlink()
    with pytest.raises(SlotIDError, match="total_train_data.txt can't be read"):
        open_source(settings(tree.root)).videos()


LEFT, RIGHT = (40, 30, 100, 110), (200, 40, 250, 100)


def hint_of(tree, pictures, clip="a", **caption):
    tree.video(clip)
    tree.caption(clip, **caption)
    tree.boxes(clip, pictures)
    ((video,), _) = tree.listed()
    return pickle.loads(pickle.dumps(video)).person_hint.read()


def test_the_person_is_where_the_boxes_say_in_seconds_and_shares(tree):
    hint = hint_of(tree, {i: [found(LEFT, track_id=1, new_track_id=1)] for i in (0, 10, 9, 48)}, fps=25.0)
    assert [box.second for box in hint.boxes] == pytest.approx([0, 9 / 25, 10 / 25, 48 / 25])
    assert {box.box_xyxy for box in hint.boxes} == {(40 / WIDTH, 30 / HEIGHT, 100 / WIDTH, 110 / HEIGHT)}
    assert hint.step_s == 1 / 25 and hint.masks == ()


def is_left(hint):
    return {box.box_xyxy[0] == LEFT[0] / WIDTH for box in hint.boxes} == {True}


SMALL = (300, 10, 312, 26)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"track_id": 2, "new_track_id": 1}, {"track_id": 1, "new_track_id": 2}),
        ({"track_id": 1}, {"track_id": 2}),
        ({}, {}),
        ({"new_track_id": 7}, {}),
        ({"track_id": None}, {"track_id": 1}),
    ],
)
def test_the_dominant_person_is_meant_whatever_ids_there_are(tree, left, right):
    hint = hint_of(tree, {i: [found(SMALL, **right), found(LEFT, **left)] for i in range(5)})
    assert is_left(hint) and len(hint.boxes) == 5


def test_a_missing_id_is_that_of_the_same_track_in_another_picture(tree):
    ids = [{"track_id": 4}, {"track_id": 4, "new_track_id": 1}, {"track_id": 4}]
    hint = hint_of(tree, {i: [found(LEFT, **each)] for i, each in enumerate(ids)})
    assert len(hint.boxes) == 3


def test_nobody_is_guessed_where_two_people_dominate(tree):
    for ids in (({"new_track_id": 1}, {"new_track_id": 2}), ({}, {})):
        tree.captions.clear()
        with pytest.raises(UnusableError, match="follows 2 people") as error:
            hint_of(tree, {i: [found(LEFT, **ids[0]), found(RIGHT, **ids[1])] for i in range(5)})
        assert error.value.reason == "several people"


def test_tracks_one_after_the_other_are_no_rivals(tree):
    pictures = {i: [found(LEFT, new_track_id=1 if i < 6 else 2)] for i in range(10)}
    assert len(hint_of(tree, pictures).boxes) == 6


def test_long_counts_as_well_as_large(tree):
    """The smaller face is there first and in seven pictures, the larger one in one."""
    large, left = (80, 10, 200, 170), found(LEFT, new_track_id=2)
    hint = hint_of(tree, {0: [left], 1: [left], 2: [found(large, new_track_id=1)], **{i: [left] for i in range(3, 8)}})
    assert is_left(hint) and len(hint.boxes) == 7
    tree.captions.clear()
    hint = hint_of(tree, {0: [left], 1: [found(large, new_track_id=1)]})
    assert hint.boxes[0].box_xyxy[0] == 80 / WIDTH and len(hint.boxes) == 1


def test_a_track_that_is_twice_in_a_picture_is_the_larger_face(tree):
    for ids in ({"new_track_id": 1}, {}):
        tree.captions.clear()
        hint = hint_of(tree, {0: [found(SMALL, **ids), found(LEFT, **ids)], 1: [found(LEFT, **ids)]})
        assert is_left(hint) and len(hint.boxes) == 2


@pytest.mark.parametrize("pictures", [{}, {0: [], 1: []}])
def test_annotation_without_a_face_says_nothing(tree, pictures):
    assert hint_of(tree, pictures) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "a.json: Invalid JSON"),
        ("[]", "a.json: Input should be an object"),
        ('{"x": {}}', "a.json: x"),
        ('{"-1": {}}', "greater than or equal to 0"),
        ('{"0": {"face": [{}]}}', "0.face.0.box: Field required"),
        ('{"0": {"face": [{"box": {"x1": 1, "y1": 1, "x2": NaN, "y2": 9}}]}}', "finite"),
        ('{"0": {"face": [{"box": {"x1": 9, "y1": 1, "x2": 1, "y2": 9}}]}}', "picture 0"),
        ('{"0": {"face": [{"box": {"x1": 900, "y1": 1, "x2": 990, "y2": 9}}]}}', "inside of 320x180"),
    ],
)
def test_broken_annotation_costs_one_clip_and_is_found_when_it_is_read(tree, content, said):
    for clip in ("a", "b"):
        tree.video(clip)
        tree.caption(clip)
        tree.boxes(clip, {0: [found(LEFT, new_track_id=1)]})
    (tree.part / "refine_bbox_jsons" / "a.json").write_text(content)
    (broken, whole), rejects = tree.listed()
    assert rejects == [] and is_left(whole.person_hint.read())
    with pytest.raises(UnusableError, match=said) as error:
        broken.person_hint.read()
    assert error.value.reason == "broken annotation"


def person_mask(box=LEFT):
    mask_HW = np.zeros((HEIGHT, WIDTH), bool)
    mask_HW[box[1] - 20 :, box[0] - 20 : box[2] + 20] = True
    return mask_HW


def masked(tree, objects=None, masks=None, spoil=lambda folder: None):
    tree.masks("a", objects or {"1": {"face": 1, "head": 2, "person": 3}}, masks or {3: {0: person_mask()}})
    spoil(tree.part / "track_masks_data" / "a")
    return hint_of(tree, {i: [found(LEFT, track_id=5, new_track_id=1)] for i in range(3)})


def test_the_mask_of_that_very_picture_and_person_is_the_matte(tree):
    other = person_mask(RIGHT)
    two = {"2": {"face": 4, "person": 5}, "1": {"face": 1, "person": 3}}
    hint = masked(tree, two, {3: {0: person_mask(), 2: ~other}, 5: {0: other, 1: other}})
    mask_HW = mask_at(hint, 0.0, LEFT, HEIGHT, WIDTH)
    assert mask_HW.shape == (HEIGHT, WIDTH) and np.array_equal(mask_HW.numpy(), person_mask())
    assert np.array_equal(mask_at(hint, 2 / FPS, LEFT, HEIGHT, WIDTH).numpy(), ~other)
    assert mask_at(hint, 1 / FPS, LEFT, HEIGHT, WIDTH) is None, "not the one of the picture before or after"
    assert mask_at(hint, 0.0, RIGHT, HEIGHT, WIDTH) is None, "it leaves out this face"
    half_HW = mask_at(hint, 0.0, [side / 2 for side in LEFT], HEIGHT // 2, WIDTH // 2)
    assert half_HW.shape == (HEIGHT // 2, WIDTH // 2)
    assert abs(half_HW.mean().item() - person_mask().mean()) < 0.01 and 0 <= half_HW.min() < half_HW.max() == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "valid_frame.json").unlink(),
        lambda folder: (folder / "corresponding_data.json").unlink(),
        lambda folder: (folder / "tracking_mask_results").rename(folder / "gone"),
        lambda folder: (folder / "tracking_mask_results" / "3").rename(folder / "gone"),
        lambda folder: (folder / "tracking_mask_results" / "3" / "annotated_frame_00000.png").unlink(),
        lambda folder: (folder / "corresponding_data.json").write_text('{"1": {"face": 1}}'),
    ],
)
def test_missing_masks_cost_nothing(tree, spoil):
    hint = masked(tree, spoil=spoil)
    assert is_left(hint) and hint.masks == () and mask_at(hint, 0.0, LEFT, HEIGHT, WIDTH) is None


@pytest.mark.parametrize("name", ["valid_frame.json", "corresponding_data.json"])
def test_a_broken_record_of_masks_is_broken_annotation(tree, name):
    with pytest.raises(UnusableError, match=f"a/{name}"):
        masked(tree, spoil=lambda folder: (folder / name).write_text("{"))


def test_a_mask_that_is_no_picture_is_broken_annotation(tree):
    png = "tracking_mask_results/3/annotated_frame_00000.png"
    hint = masked(tree, spoil=lambda folder: (folder / png).write_bytes(b"\x89PNG\r\n\x1a\n1234"))
    with pytest.raises(UnusableError, match="annotated_frame_00000.png") as error:
        mask_at(hint, 0.0, LEFT, HEIGHT, WIDTH)
    assert error.value.reason == "broken annotation"


def test_a_mask_of_far_too_many_pixels_is_broken_annotation(tree):
    """20000 x 20000 in a few bytes: PIL won't unpack it, with an error that is no other's kin."""

    def part(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = part(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + part(b"IDAT", zlib.compress(b"\0" * 100)) + part(b"IEND", b"")
    png = "tracking_mask_results/3/annotated_frame_00000.png"
    hint = masked(tree, spoil=lambda folder: (folder / png).write_bytes(bomb))
    with pytest.raises(UnusableError, match="annotated_frame_00000.png can't be read: .*400000000 pixels") as error:
        mask_at(hint, 0.0, LEFT, HEIGHT, WIDTH)
    assert error.value.reason == "broken annotation"


def test_two_thousand_clips_are_listed_without_opening_their_annotation(tree):
    for index in range(2000):
        tree.video(f"clip{index:04d}")
        tree.caption(f"clip{index:04d}")
        # Neither is readable: what is opened while listing would fail.
        (tree.part / "refine_bbox_jsons" / f"clip{index:04d}.json").mkdir()
        (tree.part / "track_masks_data" / f"clip{index:04d}").mkdir()
    videos, rejects = tree.listed()
    assert len(videos) == 2000 and rejects == [] and all(video.person_hint is not None for video in videos)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small ConsisID-preview of rendered people, and what ``prepare.py`` made of it."""
    from training import prepare, settings_file
    from training.media import write_mp4
    from training.world.clips import Motion, head_clip, move
    from training.world.scene import Scene
    from training.world.traits import sample_traits

    tree = Tree(tmp_path_factory.mktemp("consisid") / "dataset")
    heads, boxes = [], []
    for seed in (1, 102):
        scenes = move(Scene(), Motion(swing=8.0), frames=7, fps=4.0, seed=seed)
        head = head_clip(sample_traits(seed), scenes, height=160, width=160)
        heads.append(head.frames_FHWC.repeat(7, axis=0))
        boxes.append(head.people[0].face_box_F4.repeat(7, axis=0))
    both = np.concatenate(heads, axis=2)
    right = boxes[1] + np.array([160, 0, 160, 0])

    def add(clip, frames_FHWC, *faces, fps=30.0, captioned=None, numbered=True):
        write_mp4(tree.video(clip), frames_FHWC, fps)
        height, width = frames_FHWC.shape[1:3]
        tree.caption(captioned or clip, f"Caption of {clip}.", fps=fps, resolution={"height": height, "width": width})
        if faces:
            ids = [{"track_id": n, "new_track_id": n} if numbered else {"track_id": n} for n in range(len(faces))]
            tree.boxes(clip, {i: [found(faces[n][i].tolist(), **ids[n]) for n in range(len(faces))] for i in range(49)})

    add("plain", heads[0], captioned="plain.mp4")
    add("masked", heads[0], boxes[0], captioned="clips/masked.mp4")
    everything = {i: np.ones((160, 160), bool) for i in range(49)}
    tree.masks("masked", {"0": {"face": 1, "head": 2, "person": 3}}, {3: everything})
    add("numberless", heads[1], boxes[1], numbered=False)
    add("right", both, right)
    add("both", both, boxes[0], right)
    add("short", heads[0], fps=60.0)
    add("broken", heads[0], boxes[0])
    (tree.part / "refine_bbox_jsons" / "broken.json").write_text('{"0": {"face"')
    add("corrupt", heads[0])
    (tree.part / "videos" / "corrupt.mp4").write_bytes(b"no video")
    tree.caption("lost")
    tree.video("silent")
    tree.listed()
    config = Path(settings_file.__file__).parent / "configs" / "tiny.yaml"
    cache = tree.root.parent / "cache"
    changes = ["data.layout=consisid", f"data.source={tree.root}", f"data.cache={cache}", "data.faces=dlib"]
    changes += ["data.lengths=[17]", "data.reference_frames=17", "data.augment.variants=1"]
    changes += ["data.reference_side=64", "data.portrait_side=64"]
    assert prepare.main([str(config), *changes]) == 0
    return settings_file.load(config, changes)


def test_the_right_clips_come_out_and_the_rest_is_reported(prepared):
    entries = open_cache(prepared).entries
    assert [(e.id, e.caption, e.video) for e in entries] == [
        (f"part/videos/{clip}", f"Caption of {clip}.", f"part/videos/{clip}.mp4")
        for clip in ("masked", "numberless", "plain", "right")
    ]
    rejects = json.loads((prepared.data.cache / "rejects.json").read_text(encoding="utf-8"))
    assert [(reject["id"], reject["reason"]) for reject in rejects] == [
        ("part/videos/both", "several people"),
        ("part/videos/broken", "broken annotation"),
        ("part/videos/corrupt", "unreadable"),
        ("part/videos/lost", "caption without a video"),
        ("part/videos/short", "too short"),
        ("part/videos/silent", "no caption"),
    ]


def picture(prepared, clip, name):
    (entry,) = (e for e in open_cache(prepared).entries if e.id == f"part/videos/{clip}")
    jpeg = thumbnails(prepared.data.cache, entry.shard, entry.index)[name]
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(float)


def test_the_annotated_person_of_two_is_the_reference(prepared):
    """As in the clip that shows that person alone, and not the other one."""
    right, alone, other = (picture(prepared, clip, "reference") for clip in ("right", "numberless", "plain"))
    assert abs(right - alone).mean() < 0.3 * abs(right - other).mean()


def test_a_mask_of_the_dataset_is_the_portraits_matte(prepared):
    """The one of "masked" covers everything, so its background stays; that of "plain" is white by the built-in one."""
    masked, plain = (picture(prepared, clip, "portrait")[:8, :8].mean() for clip in ("masked", "plain"))
    assert plain > 250 and masked < 240
