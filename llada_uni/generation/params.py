"""Every setting of a generation, once: name, type, default, bounds, a line of help, and where the name says little, a title.

All else is derived: the engine's `Settings`, the directory's defaults (`generation_config.json`), the requests of
`llada_uni.requests`, and from these the command line, HTTP, the studio and the adapters. A field added to a class here
appears at every one of these doors. Defaults are the released model's typical values (arXiv:2604.20796 and the released
configuration); `GenerateSettings` and the like say what one task has and where its defaults differ.

How the names of a request come about. A task has up to two samplings: `codes` (an image as codes) and `text`. A plain name
(`temperature`, `threshold`, ...) is that of what the task mainly gives: codes when it draws, edits and inpaints, text when
it answers and tells stories. What the task gives besides has a prefix: `image_temperature` in a story, `reasoning_temperature`
for the reasoning text before an image. `steps` never stands alone: `image_steps`, `text_steps`, `reasoning_steps`.
`requests.accepts` derives them. Nothing here imports torch: the command line shows its help without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from llada_uni.checked import Checked
from llada_uni.generation.unmasking import PRESETS, RULES
from llada_uni.generation.values import Choices, JsonSchema, OneOf, Question, Stops
from llada_uni.image.geometry import FITS

CONFIDENCES = ("probability", "margin", "entropy", "neg_entropy", "random")  # measures of certainty, see generation/sampling.py
DECODERS = ("turbo", "base")  # of codes to pixels, see decoder/decode.py
CODES_ONLY = "none"  # in place of a decoder: the image stays codes
# What a model was made for: the published code, or this one (models trained here). "published" prompts and draws as that code
# does: reasoning goes into the second prompt token for token and its unconditional prompt keeps the reasoning system text,
# the branch of editing without images has a bare image token, and the last block of an image is denoised whole.
PROFILES = ("published", "plain")
OTHER_SIZES = ("scale", "refuse", "draw")  # what becomes of a size that the model was not trained for, see tasks/sizes.py
LARGEST_SEED = 2**63 - 1

Scale = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=1, le=2**14)]
Steps = Annotated[int, Field(ge=1, le=4096)]
Multiplier = Annotated[int, Field(ge=1, le=4)]
DecoderSteps = Annotated[int, Field(ge=1, le=1000)]
Rule = Annotated[str, OneOf(tuple(RULES))]
Preset = Annotated[str, OneOf(tuple(PRESETS))]
Confidence = Annotated[str, OneOf(tuple(CONFIDENCES))]
Decoder = Annotated[str, OneOf(tuple(DECODERS))]
DecoderOrNone = Annotated[str, OneOf((*DECODERS, CODES_ONLY))]
Profile = Annotated[str, OneOf(PROFILES)]
Fit = Annotated[str, OneOf(FITS)]
OtherSize = Annotated[str, OneOf(OTHER_SIZES)]


class Params(Checked):
    """Settings that belong together. `panel`: the heading under which people find them."""

    panel: ClassVar[str] = "Drawing"


# --- how masks are filled ---


class Sprint(Params):
    """How SPRINT prunes the prefix (generation/sprint.py): how much of it is kept, and by what, in one of two forms.

    The report's: r is the share of all positions where neither r_text nor r_img is given; else they are the shares of the
    positions that hold text and image codes (one of them alone: r is the other). Its settings are (r_text, r_img) = (1.0, 0.8)
    or (1.0, 1.0), alpha 0.5, with the rule "adaptive" and thresholds of 0.93 and 0.95.
    The published code's, where keep_ratio is given (0.7 there). Pinned positions are kept whatever the ratio: text unless
    text_keep_ratio is below 1, image codes if image_keep_ratio is 1; these two do nothing else. It is left out while editing
    guidance is on. Its rule is "sprint", which "threshold" then stands for.
    """

    r: Share | None = Field(
        default=None, title="Share kept", description="Report: share of the prefix that is kept; without it 0.5."
    )
    r_text: Share | None = Field(
        default=None, title="Share of text kept", description="Report: share of the prefix's text that is kept."
    )
    r_img: Share | None = Field(
        default=None, title="Share of images kept", description="Report: share of the prefix's image codes that is kept."
    )
    alpha: Share = Field(
        default=0.5, title="Weight of the key norm", description="Weight of the key norm against the confidence."
    )
    keep_ratio: Share | None = Field(default=None, description="As published (0.7): share of the prefix that is kept.")
    warmup: Steps | None = Field(default=None, description="As published: steps of a block that see everything; without it 2.")
    image_keep_ratio: Share | None = Field(
        default=None, description="As published: 1 keeps all image codes, nothing else does."
    )
    text_keep_ratio: Share | None = Field(default=None, description="As published: below 1, text may be pruned too.")

    @model_validator(mode="after")
    def _one_form(self) -> Sprint:
        others = ("r", "r_text", "r_img") if self.published else ("warmup", "image_keep_ratio", "text_keep_ratio")
        given = [name for name in others if getattr(self, name) is not None]
        if given:
            form = "the report's form: leave keep_ratio out" if self.published else "the published form: give keep_ratio too"
            raise ValueError(f"{given[0]} belongs to {form}")
        return self

    @property
    def published(self) -> bool:
        """Whether this is the published code's form."""
        return self.keep_ratio is not None

    @property
    def full_steps(self) -> int:
        """Steps of a block that see everything, from 1 on; the prefix is pruned in the last one."""
        return (self.warmup or 2) if self.published else 1

    @property
    def by_modality(self) -> bool:
        """Report's form: whether text and image positions are chosen separately."""
        return self.r_text is not None or self.r_img is not None

    @property
    def text_share(self) -> float:
        return self._share if self.r_text is None else self.r_text

    @property
    def image_share(self) -> float:
        return self._share if self.r_img is None else self.r_img

    @property
    def _share(self) -> float:
        return 0.5 if self.r is None else self.r

    @property
    def keeps_text(self) -> bool:
        """Whether all text is kept."""
        return self.text_keep_ratio in (None, 1) if self.published else self.text_share == 1

    @property
    def keeps_images(self) -> bool:
        """Whether all image codes are kept."""
        return self.image_keep_ratio == 1 if self.published else self.image_share == 1

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever pruned."""
        return self.keep_ratio == 1 or (self.keeps_text and self.keeps_images)


def _sprint(value: Any) -> Any:
    return Sprint.from_text(value) if isinstance(value, str) else value


def _of_preset(name: Any) -> dict[str, Any]:
    """The settings that a preset stands for; none where there is no such preset, which its own check says."""
    if not isinstance(name, str) or name not in PRESETS:
        return {}
    threshold, edit_threshold = PRESETS[name]
    return {"rule": "t2t", "threshold": threshold, "edit_threshold": edit_threshold}


class Sampling(Params):
    """How masks are filled (block diffusion, arXiv:2604.20796). Rules: generation/unmasking.py; measures: sampling.py."""

    panel = "Sampling"

    steps: Steps = Field(default=32, description="Most unmasking steps of a block; fewer are quicker.")
    threshold: Share = Field(
        default=0.95, description="Proposals surer than this are accepted at once; other rules: their bound."
    )
    temperature: Annotated[float, Field(ge=0, le=100)] = Field(default=0.0, description="Higher varies more; 0 is greedy.")
    top_k: Annotated[int, Field(ge=0, le=2**24)] = Field(default=0, description="Sample among so many best tokens; 0 is off.")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Sample among the best tokens that together have this probability; 1 is off."
    )
    rule: Rule = Field(default="threshold", title="Acceptance rule", description="Which proposals a step accepts.")
    confidence: Confidence | None = Field(
        default=None,
        title="Certainty measure",
        description="How the certainty of a proposal is measured; default: the rule's own.",
    )
    sprint: Annotated[Sprint | None, BeforeValidator(_sprint)] = Field(
        default=None, title="Pruning", description="Prune the prefix for the later steps of a block."
    )
    preset: Preset | None = Field(default=None, description="The rule t2t with two thresholds by name.")
    edit_threshold: Share | None = Field(
        default=None,
        title="Threshold of edits",
        description="t2t: a likelier token surer than this takes the place of one that stands; "
        "t2m: a token less probable than this becomes a mask again; default: the rule's own.",
    )
    edit_rounds: Annotated[int, Field(ge=0, le=4096)] = Field(
        default=16, title="Rounds of edits", description="t2t, t2m: most steps of a block that find no mask and only edit."
    )
    edit_budget: Annotated[int, Field(ge=0, le=2**20)] = Field(
        default=8, title="Budget of edits", description="t2m: most tokens of a block that become masks again."
    )
    block_experts: Annotated[int, Field(ge=1, le=2**16)] | None = Field(
        default=None,
        title="Experts of a block",
        description="At most so many experts of a layer for all tokens of a block (approximate, reads less); default: all.",
    )

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        return {**_of_preset(values.get("preset")), **values} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _measure_fits(self) -> Sampling:
        own = RULES[self.rule]
        if own.own_measure_only and self.confidence not in (None, own.measure):
            raise ValueError(f"confidence is {self.confidence!r}; allowed with the rule {self.rule!r}: {own.measure}")
        if self.preset is not None and self.rule != "t2t":
            raise ValueError(f"preset is {self.preset!r}, of the rule 't2t'; allowed with the rule {self.rule!r}: none")
        return self

    @property
    def edit_bound(self) -> float:
        """The threshold of edits: as asked for, else the rule's own."""
        return RULES[self.rule].edit_threshold if self.edit_threshold is None else self.edit_threshold

    @property
    def measure(self) -> str:
        """How the certainty of a proposal is measured: as asked for, else as the rule wants it."""
        return self.confidence or RULES[self.rule].measure

    def overlaid(self, data: Mapping[str, Any], where: str = "") -> Sampling:
        """See `Checked.overlaid`. A rule brings its own measure and bound, whatever those of the one before were; a preset
        brings its rule and its thresholds, but for those that `data` has too."""
        data = {**_of_preset(data.get("preset")), **data}
        if "rule" in data:
            data = {"confidence": None, "preset": None, "edit_threshold": None, **data}
        return super().overlaid(data, where)

    def sampling(self) -> dict[str, Any]:
        """The settings every sampling has, by name: keywords for the engine's `Settings`."""
        return {name: getattr(self, name) for name in Sampling.model_fields}


class TextSampling(Sampling):
    """How text is sampled, and how long it may become."""

    max_tokens: Annotated[int, Field(ge=1, le=2**20)] = Field(
        default=2048, title="Longest text", description="At most so many tokens of text."
    )


class Blocks(Params):
    panel = "Sampling"

    block_length: Annotated[int, Field(ge=1, le=4096)] = Field(default=32, description="Positions of a block.")


# --- what is drawn, and how it is guided ---


class Size(Params):
    height: Side = Field(default=1024, description="Height in pixels, a multiple of one code's side (released: 32).")
    width: Side = Field(default=1024, description="Width in pixels, a multiple of one code's side (released: 32).")


class Rescaled(Params):
    rescale: Share = Field(default=0.0, description="How far guided scores get back the spread of unguided ones; 0 is off.")


class Trained(Params):
    other_size: OtherSize = Field(
        default="scale",
        title="Other sizes",
        description="What becomes of a size that the model was not trained for: scale (drawn at a trained one, then scaled), "
        "refuse, or draw (as asked)."
    )


class Guided(Rescaled):
    cfg_scale: Scale = Field(
        default=2.0, title="Guidance", description="Classifier-free guidance toward the prompt; 1 is none."
    )


class EditGuided(Rescaled):
    text_scale: Scale = Field(default=4.0, title="Text guidance", description="Guidance toward the text; 1 is none.")
    image_scale: Scale = Field(default=0.0, title="Image guidance", description="Guidance toward the images given; 0 is none.")


class Fitted(Params):
    fit: Fit = Field(
        default="auto",
        description="How an image is brought to the grid: crop (its middle, as published), resize (scaled first), or auto "
        "(resize where it is more than twice the grid, else crop).",
    )


class FramesGuided(EditGuided):
    """Guidance of frames. The report gives none for the first one, which has no history: ours is that of text to image."""

    first_scale: Scale = Field(
        default=2.0, title="Guidance of the first image", description="Guidance of the first image of an answer; 1 is none."
    )


class Frames(Params):
    max_frames: Annotated[int, Field(ge=1, le=100)] = Field(
        default=10, title="Most images", description="At most so many images."
    )


# --- what every request may have ---


class Seeded(Params):
    panel = "Sampling"

    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] | None = Field(
        default=None, description="The same seed gives the same result; default: a new one."
    )


class Stopped(Params):
    panel = "Sampling"

    stop: Stops = Field(default=(), description="Text that ends the answer and is no part of it.")


Expression = Annotated[str, Field(min_length=1)]


class Held(Params):
    """What the text is held to (docs/grammar.md): every answer is of this form, from its first character to its last."""

    panel = "Grammar"

    regex: Expression | None = Field(
        default=None, title="Regular expression", description="The answer matches this expression as a whole."
    )
    json_schema: JsonSchema | None = Field(
        default=None, title="JSON schema", description="The answer is JSON that this schema allows."
    )
    choices: Choices | None = Field(default=None, description="The answer is one of these texts.")

    @model_validator(mode="after")
    def _one_grammar(self) -> Held:
        given = [name for name in Held.model_fields if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} are given; allowed: one of {', '.join(Held.model_fields)}")
        if given and getattr(self, "stop", None):
            raise ValueError(f"stop would cut what {given[0]} asks for; allowed: one of the two")
        return self


class Decoding(Params):
    panel = "Decoder"

    decoder: DecoderOrNone | None = Field(default=None, description="turbo (distilled), base (guided), or none (codes only).")
    decoder_steps: DecoderSteps | None = Field(default=None, description="Steps from codes to pixels.")
    resolution_multiplier: Multiplier | None = Field(
        default=None, description="Size of the image: 2 is as asked for, 1 half of it, 4 twice as much each way."
    )


# --- the settings of each task: what a generation_config.json holds ---


def _default(kind: type[Params], name: str, value: Any) -> Any:
    """A field as in `kind` with another default."""
    field = kind.model_fields[name]
    return Field(default=value, title=field.title, description=field.description)


class InpaintSettings(Guided):
    codes: Sampling = Sampling(steps=8)


class Candidates(Params):
    """Best of N: several candidates are drawn as codes, and the model judges them by a question (tasks/judge.py)."""

    n_best: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        title="Candidates",
        description="Draw so many candidates and give the one that the model itself judges best.",
    )
    judge_question: Question = Field(
        default="Is this {prompt}? Answer yes or no.",
        description="The question by which candidates are judged; {prompt} stands for what was asked for.",
    )


class GenerateSettings(Size, InpaintSettings, Candidates):
    """Text to image; `text` is the reasoning text before it."""

    text: TextSampling = TextSampling(max_tokens=4096)


class EditSettings(EditGuided, Fitted):
    codes: Sampling = Sampling(steps=8)


class UnderstandSettings(Params):
    text: TextSampling = TextSampling()


class InterleaveSettings(Size, FramesGuided, Frames):
    """Text and images in turn."""

    text_scale: Scale = _default(EditGuided, "text_scale", 7.5)
    image_scale: Scale = _default(EditGuided, "image_scale", 1.5)
    rescale: Share = _default(Rescaled, "rescale", 0.7)
    codes: Sampling = Sampling(steps=8)
    text: TextSampling = TextSampling()


class DecodeSettings(Params):
    decoder: Decoder = "turbo"
    turbo_steps: DecoderSteps = 8
    base_steps: Annotated[int, Field(ge=2, le=1000)] = 50
    resolution_multiplier: Multiplier = 2

    def steps_of(self, decoder: str) -> int:
        return int(getattr(self, f"{decoder}_steps"))

    def own(self, decoder: str | None = None) -> dict[str, Any]:
        """The defaults of `Decoding`, by name, with a decoder (None: the usual one)."""
        chosen = decoder or self.decoder
        rest = {name: getattr(self, name) for name in Decoding.model_fields if name in type(self).model_fields}
        return {**rest, "decoder": chosen, "decoder_steps": self.steps_of(chosen)}

    def chosen(self, asked: Decoding) -> tuple[str, int]:
        """(decoder, steps) of what is asked for. UserError for steps that the decoder does not do."""
        decoder = asked.decoder or self.decoder
        changes = {} if asked.decoder_steps is None else {f"{decoder}_steps": asked.decoder_steps}
        chosen = self.overlaid({"decoder": decoder, **changes})
        return decoder, chosen.steps_of(decoder)
