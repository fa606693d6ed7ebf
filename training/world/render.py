"""Pictures of heads, with everything that was true when they were drawn.

Letters: B pictures, H W height and width, P visible pixels of the enlarged pictures, V vertices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from slotid_core.errors import SlotIDError

from .background import draw_background
from .colour import exposed, on_screen
from .columns import AtPixels, columns, trait_columns
from .landmarks import face_landmarks
from .loft import dot, normalised
from .mesh import EAR, HAIR, SHIRT, SKIN, Mesh, build_mesh, pose_points, rotation, topology
from .paint import Paint, paint_ear, paint_hair, paint_shirt, paint_skin, plain
from .plan import face_plan
from .raster import Fragments, interpolate, rasterize
from .scene import Background, Scene
from .shade import light_directions, lit_share, shade, shadow_maps
from .traits import PROFILE, HeadTraits

CAMERA_DISTANCE = 95.0
"""Centimetres from the camera to the head."""
VIEW_HEIGHT = 38.0
"""Centimetres at the head that fill the picture's height at zoom 1."""
VIEW_CENTRE_Y = -3.0
"""Height on the head that lies in the middle of the picture."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """Pictures and the truth about them. Pixels run to the right and down; the first one's centre is 0.5, 0.5."""

    image_BHW3: Tensor
    """Screen numbers from 0 to 1."""
    mask_BHW: Tensor
    """Share of each pixel that the person (with hair and shirt) covers; the rest shows the background."""
    landmarks_B682: Tensor
    """iBUG's 68 points as pixels; those of the jaw stay on the jaw when the head turns."""
    visible_B68: Tensor
    """Whether the point is inside of the picture and nothing hides it."""
    face_box_B4: Tensor
    """Left, top, right, bottom of the landmarks: brow to chin, ear to ear."""


def render(
    traits: HeadTraits | Sequence[HeadTraits],
    scenes: Scene | Sequence[Scene],
    height: int,
    width: int,
    *,
    behind_BHW3: Tensor | None = None,
    supersample: int = 2,
    together: int | None = None,
    device: torch.device | str = "cpu",
) -> Rendered:
    """Draw heads.

    Args:
        traits: one head for all pictures, or one for each.
        scenes: one scene for all pictures, or one for each.
        behind_BHW3: pictures (screen numbers from 0 to 1) to stand in front of, instead of the scenes' backgrounds.
        supersample: points drawn along each side of a pixel.
        together: pictures drawn in one go; left out 1 on the CPU, where more gains nothing, else 16. Pictures drawn by
            themselves or among others are the same to the last bit; another ``together`` may round otherwise.

    Raises:
        SlotIDError: not as many heads as scenes nor one of either, sides below 16, or ``behind`` of another size.
    """
    heads = [traits] if isinstance(traits, HeadTraits) else list(traits)
    views = [scenes] if isinstance(scenes, Scene) else list(scenes)
    count = max(len(heads), len(views))
    if len(heads) not in (1, count) or len(views) not in (1, count) or not heads or not views:
        raise SlotIDError(
            f"Got {len(heads)} heads and {len(views)} scenes, expected as many of both, or one of either."
        )
    if min(height, width) < 16:
        raise SlotIDError(f"Got pictures of {height}x{width}, expected at least 16x16.")
    if behind_BHW3 is not None and behind_BHW3.shape != (count, height, width, 3):
        raise SlotIDError(
            f"Got pictures of {list(behind_BHW3.shape)} to stand in front of, expected {[count, height, width, 3]}."
        )
    heads = heads * count if len(heads) == 1 else heads
    views = views * count if len(views) == 1 else views
    device = torch.device(device)
    # Torch's CPU kernels round the last few numbers of a tensor otherwise than the rest. Drawn one by one, a picture's
    # last numbers are always the same ones.
    together = together or (1 if device.type == "cpu" else 16)
    parts = []
    for start in range(0, count, together):
        now = slice(start, start + together)
        if behind_BHW3 is None:
            behind = torch.stack([draw_background(view.background, height, width, device) for view in views[now]])
        else:
            behind = behind_BHW3[now].to(device)
        parts.append(_render(heads[now], views[now], behind, supersample))
    return Rendered(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})


@dataclass(frozen=True, kw_only=True)
class _Detail:
    """How finely a picture is drawn."""

    step: int
    """Of the mesh's rows and columns."""
    shadow_map: int
    """Side of the shadow map."""


_FINE, _COARSE = _Detail(step=1, shadow_map=224), _Detail(step=2, shadow_map=112)


def draw_frames(
    traits: HeadTraits | Sequence[HeadTraits],
    scenes: Sequence[Scene],
    height: int,
    width: int,
    *,
    together: int | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Pictures alone, ``[B, H, W, 3]`` screen numbers from 0 to 1, on a coarser mesh than ``render``'s.

    For pictures up to some 128 pixels, which do not show the difference, in half the time or less.

    Args:
        traits: one head for all pictures, or one for each.
        together: pictures drawn in one go; left out 4 on the CPU, else 32.
    """
    device = torch.device(device)
    heads = [traits] * len(scenes) if isinstance(traits, HeadTraits) else list(traits)
    together = together or (4 if device.type == "cpu" else 32)
    known: dict[Background, Tensor] = {}
    parts = []
    for start in range(0, len(scenes), together):
        views = list(scenes[start : start + together])
        for view in views:
            if view.background not in known:
                known[view.background] = draw_background(view.background, height, width, device)
        behind = torch.stack([known[view.background] for view in views])
        parts.append(_draw(heads[start : start + together], views, behind, 2, _COARSE).image_BHW3)
    return torch.cat(parts)


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """Pictures, and what is needed to say more about them."""

    image_BHW3: Tensor
    mask_BHW: Tensor
    depth_BHW: Tensor
    """Of the enlarged picture."""
    mesh: Mesh
    plan: SimpleNamespace
    turned_B33: Tensor
    camera: SimpleNamespace


@torch.no_grad()
def _render(heads: list[HeadTraits], views: list[Scene], behind_BHW3: Tensor, factor: int) -> Rendered:
    drawn = _draw(heads, views, behind_BHW3, factor, _FINE)
    batch, height, width, _ = behind_BHW3.shape
    rows, count = topology(behind_BHW3.device).skin_grid
    skin = drawn.mesh.head_BV3[:, : rows * count].view(batch, rows, count, 3)
    marks = pose_points(drawn.turned_B33, face_landmarks(skin, drawn.plan))
    marks = project(marks, drawn.camera, height, width)
    low, high = marks[..., :2].amin(1), marks[..., :2].amax(1)
    return Rendered(
        image_BHW3=drawn.image_BHW3,
        mask_BHW=drawn.mask_BHW,
        landmarks_B682=marks[..., :2],
        visible_B68=_visible(marks, drawn.depth_BHW, factor),
        face_box_B4=torch.cat([low, high], -1),
    )


@torch.no_grad()
def _draw(heads: list[HeadTraits], views: list[Scene], behind_BHW3: Tensor, factor: int, detail: _Detail) -> _Drawn:
    device, (batch, height, width, _) = behind_BHW3.device, behind_BHW3.shape
    front = trait_columns([head.front for head in heads], [head.front_relief for head in heads], device)
    side = trait_columns([head.side for head in heads], [head.side_relief for head in heads], device)
    lit_side = side
    if any(head.even_light for head in heads):
        own = torch.tensor([[float(not head.even_light)] for head in heads], device=device)
        lit_side = SimpleNamespace(
            **{name: value * own if name in PROFILE else value for name, value in vars(side).items()}
        )
    expression = columns([view.expression for view in views], device)
    light, camera = columns([view.light for view in views], device), columns([view.camera for view in views], device)
    clothing = torch.tensor([view.clothing for view in views], dtype=torch.float32, device=device)
    size = torch.tensor([[head.feature_size] for head in heads], device=device)
    flush = torch.tensor([[head.flush] for head in heads], device=device)
    plan = face_plan(front, expression, size, flush)
    pose = columns([view.pose for view in views], device)
    turned = rotation(pose)
    shapes = topology(device, detail.step)
    mesh = build_mesh(front, side, lit_side, plan, pose, detail.step)

    points = project(mesh.world_BV3, camera, height, width)
    enlarged = points * torch.tensor([factor, factor, 1.0], device=device)
    fragments = rasterize(enlarged, shapes.triangles_F3, shapes.two_sided_F, height * factor, width * factor)
    towards = light_directions(light)
    shadow_depth, in_map = shadow_maps(mesh, shapes, towards, detail.shadow_map)
    values = torch.cat(
        [mesh.world_BV3, mesh.head_BV3, mesh.normal_BV3, in_map, mesh.hollow_BV[..., None], mesh.strand_BV5], -1
    )
    seen = interpolate(values, shapes.triangles_F3, fragments)
    world, head, normal, in_map, hollow, strand, hair_uv = seen.split([3, 3, 3, 3, 1, 3, 2], -1)
    picture = fragments.picture_P
    normal = normalised(normal)
    eye = torch.tensor([0.0, VIEW_CENTRE_Y, CAMERA_DISTANCE], device=device)
    view = normalised(eye - world)
    # Of sheets that are seen from both sides, the side that is seen.
    normal = torch.where(dot(normal, view)[:, None] < 0, -normal, normal)
    paint, is_hair = _paint(
        fragments, shapes.part_F, front, side, plan, clothing, head, hollow[:, 0], strand[:, 0], hair_uv
    )
    ball = dot(turned[picture], paint.normal_P3[:, None, :])
    normal = normalised(normal + (ball - normal) * paint.ball_P[:, None])
    facing = dot(normal, towards[picture])
    lit = lit_share(shadow_depth, picture, in_map, facing)
    # Lids and lips shade eyes and teeth softly; the shadow map is too coarse for that.
    lit = torch.maximum(lit, 0.8 * paint.ball_P)
    at = AtPixels(light, picture)
    colour = shade(paint, at, towards[picture], normal, view, lit, normalised(strand), is_hair)
    colour = on_screen(exposed(colour))

    canvas = torch.zeros(batch * height * width * factor * factor, 4, device=device)
    canvas[fragments.pixel_P] = torch.cat([colour, torch.ones_like(colour[:, :1])], -1)
    canvas = canvas.view(batch, height, factor, width, factor, 4)
    person = _pixel_means(canvas)
    mask = person[..., 3]
    image = (person[..., :3] + behind_BHW3 * (1 - mask[..., None])).clamp(0, 1)
    return _Drawn(
        image_BHW3=image,
        mask_BHW=mask,
        depth_BHW=fragments.depth_BHW,
        mesh=mesh,
        plan=plan,
        turned_B33=turned,
        camera=camera,
    )


def _pixel_means(canvas: Tensor) -> Tensor:
    """Averages over the points of each pixel, added in a fixed order: ``[B, H, f, W, f, 4]`` to ``[B, H, W, 4]``."""
    factor = canvas.shape[2]
    total = torch.zeros_like(canvas[:, :, 0, :, 0])
    for row in range(factor):
        for column in range(factor):
            total = total + canvas[:, :, row, :, column]
    return total / factor**2


def project(world_BN3: Tensor, camera, height: int, width: int) -> Tensor:
    """Pixels and distance from the camera plane. The offset slides the picture, so the view stays frontal."""
    x, y, z = world_BN3.unbind(-1)
    depth = CAMERA_DISTANCE - z
    scale = height / VIEW_HEIGHT * CAMERA_DISTANCE * camera.zoom / depth
    column = width / 2 + camera.offset_x * height + x * scale
    row = height / 2 + camera.offset_y * height - (y - VIEW_CENTRE_Y) * scale
    return torch.stack([column, row, depth], -1)


def _visible(marks_BN3: Tensor, depth_BHW: Tensor, factor: int) -> Tensor:
    batch, height, width = depth_BHW.shape
    column, row = (marks_BN3[..., 0] * factor).floor().long(), (marks_BN3[..., 1] * factor).floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    picture = torch.arange(batch, device=depth_BHW.device)[:, None]
    surface = depth_BHW[picture, row.clamp(0, height - 1), column.clamp(0, width - 1)]
    # Points at the outline fall on either side of it.
    return inside & (marks_BN3[..., 2] < surface + 0.6)


def _paint(
    fragments: Fragments, part_F, front, side, plan, clothing, head, hollow, scalp, hair_uv
) -> tuple[Paint, Tensor]:
    """The paint of every pixel, part by part."""
    part_P, picture_P = part_F[fragments.triangle_P], fragments.picture_P
    whole = plain(torch.zeros_like(head), gloss=0, sharpness=1, skin=0)
    for part in (SKIN, EAR, HAIR, SHIRT):
        where = (part_P == part).nonzero(as_tuple=True)[0]
        picture = picture_P[where]
        at_front = AtPixels(front, picture)
        if part == SKIN:
            local = paint_skin(at_front, AtPixels(side, picture), AtPixels(plan, picture), head[where], scalp[where])
        elif part == EAR:
            local = paint_ear(at_front)
        elif part == HAIR:
            at_side = AtPixels(side, picture)
            local = paint_hair(at_front, at_side, hair_uv[where, 0], hair_uv[where, 1], head[where])
        else:
            local = paint_shirt(clothing[picture], head[where])
        for name, value in vars(local).items():
            getattr(whole, name)[where] = value
    crease = torch.exp(-1.3 * hollow.clamp(min=0) * (1 - whole.ball_P))
    whole.shade_P = whole.shade_P * crease
    whole.colour_P3 = whole.colour_P3 * (1 - 0.35 * (1 - crease))[:, None]
    return whole, part_P == HAIR
