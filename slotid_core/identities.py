"""What can be done with identities: say what one holds, check its weights, merge clips of one person, blend two people.

Merging and blending happen in token space, token by token. Slots are read by learned queries that every clip shares, so
slot k of one clip and slot k of another answer the same query; nothing else makes them correspond.

Shape letters: N identities, H W height and width of a thumbnail, C colour channels, D width of a face embedding.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from .checkpoint import SlotIDWeights
from .errors import SlotIDError
from .identity_file import THUMBNAIL_SIDE, check_notes
from .reference.coverage import Coverage, join
from .reference.crop import resize
from .reference.faces.choose import same_person_of
from .safe_file import content_hash
from .types import FaceEmbedding, Identity, IdentityEmbedding

MOST_PARTS = 8
"""How many identities can be merged at once."""
# More views of a face than these, and more pixels, count no more: the encoder's clip is 256 pixels wide, of which the
# face takes 1 / 1.8.
_VIEWS, _PIXELS = 16, 256 / 1.8
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Merged:
    """An identity of several clips, and how it came about."""

    identity: Identity
    weights: tuple[float, ...]
    """Each part's share; they sum to 1."""
    person: str
    """In words, whether the parts are one person."""


def describe(identity: Identity) -> str:
    """What an identity holds, a fact a line."""
    slots, anchors = (x.shape[1] for x in (identity.embedding.clip_tokens_BSE, identity.embedding.portrait_tokens_BKE))
    lines = [
        f"{slots} clip tokens and {anchors} portrait tokens, for Slot-ID weights {identity.weights_hash[:12]}"
        + (f" ({identity.backbone})." if identity.backbone else "."),
        f"Clip {identity.clip_hash[:12]}, portrait {identity.portrait_hash[:12]}; "
        + (f"{identity.frames} frames read." if identity.frames is not None else "number of frames not kept."),
    ]
    if identity.origin:
        lines.append(f"{identity.origin}.")
    if identity.coverage is None:
        lines.append("No coverage: it was encoded without a reference.")
    else:
        lines.append(f"Faces measured in {identity.coverage.faces} frames by {identity.coverage.backend}.")
        lines += [f"Missing: {sentence}." for sentence in identity.coverage.missing]
    if identity.face is not None:
        lines.append(f"With a face embedding by {identity.face.backend}.")
    lines += [f"Note: {note}" for note in identity.notes]
    return "\n".join(lines)


def add_note(identity: Identity, note: str) -> Identity:
    """The identity with one more note; as it is where the note is blank or there already.

    Raises:
        SlotIDError: the note is too long, holds control characters, or is one too many.
    """
    note = note.strip()
    if not note or note in identity.notes:
        return identity
    return replace(identity, notes=check_notes((*identity.notes, note)))


def check_weights(identity: Identity, weights: SlotIDWeights) -> None:
    """Raises a SlotIDError unless these weights encoded the identity."""
    wanted = weights.model.config
    label = f"The identity {identity.name}" if identity.name else "The identity"
    if identity.weights_hash != weights.sha256:
        theirs = f", for {identity.backbone}" if identity.backbone else ""
        raise SlotIDError(
            f"{label} was encoded with other Slot-ID weights: got {identity.weights_hash[:12]}{theirs}; this model is "
            f"{weights.sha256[:12]}, for {wanted.backbone}. Load the weights that encoded it, or encode the clip again."
        )
    embedding, width, vector = identity.embedding, wanted.backbone.text_dim, wanted.film.global_dim
    expected = {
        "clip_tokens_BSE": (1, wanted.reader.slots, width),
        "portrait_tokens_BKE": (1, wanted.portrait.tokens, width),
        "clip_global_BG": (1, vector),
        "portrait_global_BG": (1, vector),
    }
    for name, shape in expected.items():
        got = tuple(getattr(embedding, name).shape)
        if got != shape:
            raise SlotIDError(
                f"{label} names these weights, and its {name} is {list(got)} where they give {list(shape)}: its file "
                "was made by something else. Encode the clip again."
            )


def merge(
    identities: Sequence[Identity],
    *,
    weighting: Literal["quality", "equal", "given"] = "quality",
    weights: Sequence[float] = (),
    allow_different_people: bool = False,
) -> Merged:
    """One identity of several clips of one person: the weighted mean of each token and each global vector.

    Args:
        identities: 2 to 8.
        weighting: by the ``quality`` of each clip (:func:`quality`), ``equal``, or as ``given``.
        weights: with ``given``, a number from 0 for each; only their ratios count.
        allow_different_people: merge also those whose face embeddings say that they are different people.

    Raises:
        SlotIDError: another number of identities, identities of different weights, different people, weights that
            are no weights, or an identity without coverage where quality was asked for.
    """
    if not 2 <= len(identities) <= MOST_PARTS:
        raise SlotIDError(f"Got {len(identities)} identities to merge, expected 2 to {MOST_PARTS}.")
    _check_together(identities)
    is_one, person = _compare_people(identities, allow_different_people)
    shares = _shares(identities, weighting, weights)
    parts = ", ".join(f"{_label(i)} ({share:.2f})" for i, share in zip(identities, shares, strict=True))
    covered = [i.coverage for i in identities if i.coverage is not None]
    best = max(range(len(identities)), key=lambda n: shares[n])
    merged = replace(
        _mix(identities, shares, "merge"),
        thumbnail_HWC=identities[best].thumbnail_HWC,
        coverage=join(covered) if covered else None,
        face=_mean_face(identities, shares) if is_one else None,
        origin=f"Merged from {parts}",
    )
    return Merged(merged, shares, person)


def blend(a: Identity, b: Identity, share: float) -> Identity:
    """Somebody between two people: ``1 - share`` of ``a`` and ``share`` of ``b``, linear in every token and vector.

    Returns:
        Exactly ``a`` at 0 and ``b`` at 1. In between it has neither coverage nor face embedding, for it is nobody's;
        the thumbnail shows both, side by side in their shares.

    Raises:
        SlotIDError: a share outside 0 to 1, or identities of different weights.
    """
    if not 0.0 <= share <= 1.0:
        raise SlotIDError(f"The blend is {share}, expected a number from 0 (the first person) to 1 (the second).")
    _check_together((a, b))
    if share in (0.0, 1.0):
        return b if share else a
    return replace(
        _mix((a, b), (1 - share, share), "blend"),
        thumbnail_HWC=_side_by_side(a.thumbnail_HWC, b.thumbnail_HWC, share),
        coverage=None,
        face=None,
        origin=f"Blended from {_label(a)} ({1 - share:.2f}), {_label(b)} ({share:.2f})",
    )


def quality(coverage: Coverage) -> float:
    """How much a clip tells of a face, above 0: the geometric mean of views, sharpness and size.

    It compares clips of one person; the number alone says nothing.
    """
    views = min(_VIEWS, coverage.faces) / _VIEWS
    pixels = min(_PIXELS, sum(coverage.size_px) / 2) / _PIXELS
    return math.prod((views, pixels, sum(coverage.sharpness) / 2)) ** (1 / 3)


def parse_weights(text: str) -> tuple[float, ...]:
    """``"2, 1, 1"`` as numbers; nothing for a blank text.

    Raises:
        SlotIDError: a part is no number.
    """
    try:
        return tuple(float(part) for part in text.split(",") if text.strip())
    except ValueError as error:
        raise SlotIDError(f"The weights are {text[:100]!r}, expected numbers with commas, such as '2, 1'.") from error


def _check_together(identities: Sequence[Identity]) -> None:
    first = identities[0]
    for number, other in enumerate(identities[1:], start=2):
        if other.weights_hash != first.weights_hash:
            raise SlotIDError(
                f"Identity 1 ({_label(first)}) was encoded with Slot-ID weights {first.weights_hash[:12]}, identity "
                f"{number} ({_label(other)}) with {other.weights_hash[:12]}. Tokens of different weights have nothing "
                "in common: encode both clips with the same weights."
            )
        if _shapes(other) != _shapes(first):
            raise SlotIDError(
                f"Identity {number} ({_label(other)}) names the weights of identity 1 ({_label(first)}), and its "
                f"tokens have other shapes: {_shapes(other)} and {_shapes(first)}. Encode the clips again."
            )


def _shapes(identity: Identity) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in _tensors(identity).items()}


def _tensors(identity: Identity) -> dict[str, Tensor]:
    return {f.name: getattr(identity.embedding, f.name) for f in fields(IdentityEmbedding)}


def _label(identity: Identity) -> str:
    name = identity.name
    return name if name and name.isprintable() and len(name) <= _LONGEST_NAME else f"clip {identity.clip_hash[:12]}"


def _compare_people(identities: Sequence[Identity], allow: bool) -> tuple[bool, str]:
    """Whether every pair was compared and is one person; and what is known of that, in words."""
    likest: list[tuple[float, float, str]] = []
    unknown: list[str] = []
    for (m, a), (n, b) in itertools.combinations(enumerate(identities, start=1), 2):
        comparable = a.face is not None and b.face is not None and a.face.backend == b.face.backend
        threshold = same_person_of(a.face.backend) if comparable else None
        if threshold is None or a.face.vector_D.shape != b.face.vector_D.shape:
            unknown.append(f"{m} and {n}")
            continue
        likeness = float(a.face.vector_D.double() @ b.face.vector_D.double())
        said = f"{m} ({_label(a)}) and {n} ({_label(b)}) have a likeness of {likeness:.3f} by {a.face.backend}"
        likest.append((likeness - threshold, threshold, said))
    lines = []
    least, threshold, said = min(likest, default=(0.0, 0.0, ""))
    if least < 0:
        found = f"Identities {said}, and one person has {threshold:g} or more"
        if not allow:
            raise SlotIDError(
                f"{found}: these are different people. Merge clips of one person, or use Blend Identities for two. If "
                "it is one person all the same, set allow_different_people."
            )
        lines.append(f"Different people, merged as asked. {found}.")
    elif likest:
        lines.append(f"One person: of the pairs that can be compared the least alike, {said}; {threshold:g} is enough.")
    if unknown:
        lines.append(
            f"NOT CHECKED whether these are one person: identities {', '.join(unknown)}. Only identities that were "
            "encoded with a reference, by dlib or InsightFace and both by the same, can be compared."
        )
    return not unknown and least >= 0, "\n".join(lines)


def _shares(identities: Sequence[Identity], weighting: str, given: Sequence[float]) -> tuple[float, ...]:
    if weighting == "given":
        if len(given) != len(identities):
            raise SlotIDError(f"Got {len(given)} weights for {len(identities)} identities, expected one for each.")
        values = list(given)
    elif weighting == "quality":
        for number, identity in enumerate(identities, start=1):
            if identity.coverage is None:
                raise SlotIDError(
                    f"Identity {number} ({_label(identity)}) has no coverage, so its quality is not known. Encode it "
                    "with the reference of Load Reference Clip, or choose the weighting 'equal' or 'given'."
                )
        values = [quality(identity.coverage) for identity in identities]
    else:
        values = [1.0] * len(identities)
    total = sum(values)
    if not (all(value >= 0 for value in values) and 0 < total < math.inf):  # NaN is in no order
        raise SlotIDError(
            f"The weights are {', '.join(f'{value:g}' for value in values)}, expected numbers from 0, not all 0."
        )
    return tuple(value / total for value in values)


def _mix(identities: Sequence[Identity], shares: Sequence[float], how: str) -> Identity:
    """Every number's weighted mean, in float64: the mean of equal numbers is then that number, bit for bit."""
    tensors = [_tensors(identity) for identity in identities]
    mixed = {
        name: sum(share * part[name].double() for share, part in zip(shares, tensors, strict=True)).float()
        for name in tensors[0]
    }

    def parts_hash(kind: str) -> str:
        return content_hash({}, {how: [[getattr(i, kind), s] for i, s in zip(identities, shares, strict=True)]})

    frames = [identity.frames for identity in identities]
    return Identity(
        IdentityEmbedding(**mixed),
        weights_hash=identities[0].weights_hash,
        clip_hash=parts_hash("clip_hash"),
        portrait_hash=parts_hash("portrait_hash"),
        thumbnail_HWC=identities[0].thumbnail_HWC,
        frames=None if None in frames else sum(frames),
        backbone=identities[0].backbone,
        notes=check_notes(tuple(dict.fromkeys(note for identity in identities for note in identity.notes))),
    )


def _mean_face(identities: Sequence[Identity], shares: Sequence[float]) -> FaceEmbedding:
    mean_D = sum(share * i.face.vector_D.double() for share, i in zip(shares, identities, strict=True))
    return FaceEmbedding(identities[0].face.backend, (mean_D / mean_D.norm()).float())


def _side_by_side(a_HWC: Tensor, b_HWC: Tensor, share: float) -> Tensor:
    a_HWC, b_HWC = (resize(x[None].float() / 255, THUMBNAIL_SIDE)[0] for x in (a_HWC, b_HWC))
    of_a = round((1 - share) * THUMBNAIL_SIDE)
    both_HWC = torch.cat([a_HWC[:, :of_a], b_HWC[:, of_a:]], dim=1)
    return (both_HWC * 255).round().to(torch.uint8)
