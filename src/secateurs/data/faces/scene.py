"""One rendered face: who it is, what it expresses, how it is photographed; all pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from secateurs.data.faces.backdrop import SIDE, SKINS, Draws, clutter, occlusion, room

# Names of python-avatars' parts. Of the 61 tops, those that leave the eyebrows and the mouth free.
TOPS = (
    *("NONE", "BIG_HAIR", "BOB", "BUN", "CAESAR_SIDE_PART", "CAESAR", "CURLY", "CURVY", "DREADS"),
    *("FRIZZLE", "FRO_BAND", "FRO", "SHAGGY_MULLET", "SHAVED_SIDES", "SHORT_CURLY"),
    *("SHORT_DREADS_1", "SHORT_DREADS_2", "SHORT_FLAT", "SHORT_ROUND", "SHORT_WAVED", "SIDES"),
    *("STRAIGHT_1", "STRAIGHT_2", "BRAIDS", "BUZZCUT", "CORNROWS", "DREADLOCKS", "EINSTEIN_HAIR"),
    *("ELVIS", "MOHAWK", "POMPADOUR", "QUIFF", "TWIST_LONG_HAIR", "PIXIE"),
)
HATS = ("HAT", "HIJAB", "TURBAN", "WINTER_HAT_2", "WINTER_HAT_3", "WINTER_HAT_4")
CLOTHES = (
    *("BLAZER_SHIRT", "BLAZER_SWEATER", "COLLAR_SWEATER", "HOODIE", "OVERALL", "SHIRT_CREW_NECK"),
    *("SHIRT_SCOOP_NECK", "SHIRT_V_NECK", "BOND_SUIT", "CHEF", "SHIRT_WICK"),
)
GLASSES = ("PRESCRIPTION_1", "PRESCRIPTION_2", "ROUND")
BEARDS = ("BEARD_LIGHT", "BEARD_MEDIUM", "BEARD_MAGESTIC", "MOUSTACHE_FANCY", "WICK_BEARD")
HAIR_COLORS = (
    *("#A55728", "#2C1B18", "#B58143", "#D6B370", "#724133", "#4A312C", "#F59797", "#ECDCBF"),
    *("#C93305", "#E8E1E1"),
)


@dataclass(frozen=True)
class Look:
    """An expression's parts, by python-avatars' names; `_NATURAL` brows are chosen per identity."""

    eyes: str
    eyebrows: str
    mouth: str


# Parts are shared between expressions, so that no single one gives the answer: wide eyes are fear
# or surprise by the brows, bared teeth anger or fear, a downturned mouth anger or sadness.
LOOKS: dict[str, tuple[Look, ...]] = {
    "Angry": (
        Look("SQUINT", "ANGRY", "SERIOUS"),
        Look("SQUINT", "ANGRY", "GRIMACE"),
        Look("DEFAULT", "ANGRY", "SAD"),
        Look("DEFAULT", "ANGRY", "GRIMACE"),
    ),
    "Disgust": (
        Look("SQUINT", "SAD_CONCERNED", "VOMIT"),
        Look("CLOSED", "ANGRY", "VOMIT"),
        Look("X_DIZZY", "SAD_CONCERNED", "TONGUE"),
        Look("SQUINT", "SAD_CONCERNED", "TONGUE"),
    ),
    "Fear": (
        Look("SURPRISED", "SAD_CONCERNED", "SCREAM_OPEN"),
        Look("SURPRISED", "SAD_CONCERNED", "GRIMACE"),
        Look("SURPRISED", "SAD_CONCERNED", "CONCERNED"),
    ),
    "Happy": (
        Look("HAPPY", "DEFAULT", "SMILE"),
        Look("DEFAULT", "RAISED_EXCITED", "SMILE"),
        Look("HAPPY", "RAISED_EXCITED", "BIG_SMILE"),
        Look("DEFAULT", "DEFAULT", "BIG_SMILE"),
    ),
    "Neutral": (
        Look("DEFAULT", "DEFAULT", "SERIOUS"),
        Look("SIDE", "DEFAULT", "SERIOUS"),
    ),
    "Sad": (
        Look("CRY", "SAD_CONCERNED", "SAD"),
        Look("CLOSED", "SAD_CONCERNED", "SAD"),
        Look("DEFAULT", "SAD_CONCERNED", "SAD"),
        Look("CRY", "SAD_CONCERNED", "CONCERNED"),
    ),
    "Surprise": (
        Look("SURPRISED", "RAISED_EXCITED", "DISBELIEF"),
        Look("SURPRISED", "RAISED_EXCITED", "SCREAM_OPEN"),
        Look("SURPRISED", "DEFAULT", "DISBELIEF"),
    ),
}


@dataclass(frozen=True)
class Identity:
    """What stays the same in every picture of one person: the parts' names and #rrggbb colours.

    `head_width` and `head_height` are factors of the whole head, `feature_scale` of the eyes,
    nose and mouth within it.
    """

    number: int
    skin: str
    top: str
    hat: bool
    top_color: str
    facial_hair: str
    hair_color: str
    glasses: str
    clothing: str
    clothing_color: str
    nose: str
    natural_brows: bool
    head_width: float
    head_height: float
    feature_scale: float


@dataclass(frozen=True)
class Pose:
    """How the head lies in the frame: degrees, pixels of the picture, and factors."""

    angle_deg: float
    shear_deg: float
    shift_x: float
    shift_y: float
    scale: float
    mirrored: bool


@dataclass(frozen=True)
class Light:
    """Illumination: `gain` over all, `slope` across the picture towards `angle_deg`.

    `warmth` multiplies red and divides blue; `shade` in 0..1 darkens one side of an edge through
    the picture; `noise` is the sensor's standard deviation in grey levels of 255.
    """

    gain: float
    slope: float
    angle_deg: float
    warmth: float
    shade: float
    noise: float


@dataclass(frozen=True)
class Scene:
    """Everything about one picture but the person: drawn by `draw_scene`."""

    look: Look
    mouth_scale: tuple[float, float]
    eye_scale: float
    brow_scale: float
    brow_lift: float
    pose: Pose
    light: Light
    background: str
    occlusion: str


def draw_identity(seed: int, number: int) -> Identity:
    """The person with this number (0 or more); a pure function of (seed, number).

    Tops come from a shuffled list, so that at most two people of 75 have the same one.
    """
    deck = Draws(seed, "tops").shuffled(
        [(name, False) for name in TOPS] + [(h, True) for h in HATS]
    )
    top, hat = deck[number % len(deck)]
    draws = Draws(seed, "identity", number)
    hair = draws.pick(HAIR_COLORS)
    bearded = draws.chance(0.16) and top != "HIJAB"
    return Identity(
        number=number,
        skin=draws.pick(SKINS),
        top=top,
        hat=hat,
        top_color=draws.color() if hat else hair,
        facial_hair=draws.pick(BEARDS) if bearded else "NONE",
        hair_color=hair,
        glasses=draws.pick(GLASSES) if draws.chance(0.25) else "NONE",
        clothing=draws.pick(CLOTHES),
        clothing_color=draws.color(),
        nose=draws.pick(("DEFAULT", "SMALL", "WIDE")),
        natural_brows=draws.chance(0.6),
        head_width=draws.uniform(0.93, 1.07),
        head_height=draws.uniform(0.94, 1.05),
        feature_scale=draws.uniform(1.04, 1.16),
    )


def draw_scene(seed: int, identity: int, expression: str, index: int) -> Scene:
    """How picture `index` of this person with this expression is taken; pure in its arguments.

    Pictures of one person with one expression are one shot: the look, the light's direction and
    the pose are drawn once and vary a little from frame to frame, as the frames of a film do.
    """
    shot, frame = Draws(seed, "shot", identity, expression), Draws(seed, "frame", identity, index)
    look = shot.pick(LOOKS[expression])
    wide = shot.uniform(1.1, 1.35)
    pose = Pose(
        angle_deg=shot.uniform(-12, 12) + frame.uniform(-4, 4),
        shear_deg=shot.uniform(-5, 5),
        shift_x=shot.uniform(-16, 16) + frame.uniform(-5, 5),
        shift_y=shot.uniform(-12, 12) + frame.uniform(-5, 5),
        scale=shot.uniform(0.88, 1.14) * frame.uniform(0.97, 1.03),
        mirrored=shot.chance(0.5),
    )
    light = Light(
        gain=shot.uniform(0.72, 1.12) * frame.uniform(0.95, 1.05),
        slope=shot.uniform(0, 0.45),
        angle_deg=shot.uniform(0, 360),
        warmth=math.exp(shot.uniform(-0.16, 0.16)),
        shade=shot.uniform(0.15, 0.5) if shot.chance(0.35) else 0.0,
        noise=frame.uniform(2, 7),
    )
    half = SIDE / 2
    pan_x, pan_y = half + shot.uniform(-40, 40), half + shot.uniform(-25, 25)
    camera = (
        f"translate({pan_x:.1f} {pan_y:.1f}) rotate({shot.uniform(-8, 8):.1f})"
        f" scale({shot.uniform(0.95, 1.35):.3f}) translate({-half} {-half})"
    )
    behind = f'<g transform="{camera}">{room(Draws(seed, "room", identity))}</g>'
    return Scene(
        look=look,
        mouth_scale=(wide * frame.uniform(0.95, 1.05), wide * shot.uniform(0.9, 1.1)),
        eye_scale=shot.uniform(1.0, 1.15),
        brow_scale=shot.uniform(1.1, 1.3),
        brow_lift=frame.uniform(-1.5, 1.5),
        pose=pose,
        light=light,
        background=behind + clutter(shot, 5) + clutter(frame, 1),
        occlusion=occlusion(frame) if frame.chance(0.25) else "",
    )
