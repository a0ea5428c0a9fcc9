"""How each upstream lays out an item and its instruction, as segments, and which sides read an instruction.

Control tokens are inserted by id and user text is encoded as plain text, so a segment boundary is always a
control token: text cut anywhere else could tokenise differently from the whole string.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from PIL import Image as PILImage

from st_modules.errors import InputError
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import Item
from st_modules.inputs.videos import VideoSource
from st_modules.prompts.segments import End, Image, Segment, Special, Start, Text, Video
from st_modules.prompts.uniir_texts import clean, write_sentence

Side: TypeAlias = Literal["query", "document"]
"""The two sides of a search; what is on neither has ``None``."""


Render: TypeAlias = Callable[[Item, str | None, Side | None], list[Segment]]
Divide: TypeAlias = Callable[[Sequence[Segment], Callable[[VideoSource], Sequence[float]]], list[Segment]]


@dataclass(frozen=True)
class Template:
    """A layout, and what it does with an instruction.

    Attributes:
        render: From an item, its instruction and its side to segments.
        instructed_sides: The sides on which the layout reads an instruction; ``None`` among them is neither side.
        needs_text: Whether it reads one only beside a text.
        task_instructions: Whether the model's authors use it with an instruction for each task. The others get one
            only where a user names it.
        normalises: Whether its texts are in the form in which they are split into words, so that the tokenizer has
            nothing to normalise in them.
        takes_video: Whether it has a place for a video.
        divide: From the segments of an item with videos, and what tells the seconds at which each step of one is, to
            segments with a place for each step; ``None`` where a video has one place.
        takes_pairs: Whether it lays out an item together with its query.
    """

    render: Render
    instructed_sides: frozenset[Side | None]
    needs_text: bool = False
    task_instructions: bool = False
    normalises: bool = False
    takes_video: bool = False
    divide: Divide | None = None
    takes_pairs: bool = False

    def reads_instruction(self, side: Side | None, has_text: bool = True) -> bool:
        """Whether an instruction changes the layout of an item on a side."""
        return side in self.instructed_sides and (has_text or not self.needs_text)


_EVERY_SIDE: frozenset[Side | None] = frozenset({"query", "document", None})
_NOT_DOCUMENTS: frozenset[Side | None] = frozenset({"query", None})
_NO_SIDE: frozenset[Side | None] = frozenset()

QWEN2_DEFAULT_SYSTEM = "You are a helpful assistant."
QWEN3_DEFAULT_SYSTEM = "Represent the user's input."
QWEN3_RERANKER_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the "
    'answer can only be "yes" or "no".'
)
QWEN3_RERANKER_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
VLM2VEC_IMAGE_INSTRUCTION = "Represent the given image."
_END_OF_TURN = Special("<|endoftext|>")
# Phi-3-V has no token for a picture's place. That of padding is none of any string.
_PHI3_V_IMAGE = "<|endoftext|>"
VLM2VEC_VIDEO_INSTRUCTION = "Represent the given video."


def render_gme(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """GME-Qwen2-VL: a chat turn with the instruction as its system text, images before the text.

    The instruction counts on the query side only; a document always gets the default one, as in the authors'
    script (``gme_inference.py`` of the model repositories).

    Args:
        item: What to embed.
        instruction: The task instruction; ``None`` and the empty string mean the default.
        side: ``"document"`` ignores the instruction.

    Returns:
        The segments, ending in the ``<|endoftext|>`` whose hidden state is the embedding.
    """
    system = QWEN2_DEFAULT_SYSTEM if side == "document" or not instruction else instruction
    return _wrap_qwen2_turn(system, _list_qwen2_user(item))


def render_ops_mm(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """Ops-MM-embedding: as GME, with the instruction on every side, and as it is: an empty one stays empty.

    On a side it counts as none: sentence-transformers' ``encode_query`` and ``encode_document`` pass an empty prompt
    where nobody names one.
    """
    if instruction is None or (side and not instruction):
        instruction = QWEN2_DEFAULT_SYSTEM
    return _wrap_qwen2_turn(instruction, _list_qwen2_user(item))


def render_rzen_embed(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """RzenEmbed: as GME, with the instruction right before the text, and on every side."""
    return _wrap_qwen2_turn(QWEN2_DEFAULT_SYSTEM, _list_qwen2_user(item, before_text=instruction or ""))


def render_unite(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """Unite: a chat turn that asks for one word about a sentence, an image, or both.

    ``inference_demo.py`` of the authors' repository. There is no place for an instruction.
    """
    _refuse_instruction(item, instruction, "Unite-Base")
    image = _take_only_image(item)
    kinds = " and ".join(kind for kind, there in (("sentence", item.text or not image), ("image", image)) if there)
    user = _list_qwen2_user(item, after_text=f"\nSummary above {kinds} in one word:")
    return _wrap_qwen2_turn(QWEN2_DEFAULT_SYSTEM, user)


def render_dse_qwen2(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """DSE-Qwen2: a chat turn about one picture; a text stands beside a black stand-in picture of four tokens.

    The layout of the model card (``MrLight/dse-qwen2-2b-mrl-v1``). Only a query side makes a text a query. There is
    no place for an instruction.
    """
    _refuse_instruction(item, instruction, "DSE-Qwen2")
    return _wrap_qwen2_turn(QWEN2_DEFAULT_SYSTEM, _list_page(item, "Query: " if side == "query" else "Document: "))


def render_vdr(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """Vdr: as DSE-Qwen2, without the beginning of an answer, and every text is a query, on any side.

    The author's functions for mcdse-2b-v1. They have no layout for a text among the documents.
    """
    _refuse_instruction(item, instruction, "vdr")
    return _wrap_qwen2_turn(QWEN2_DEFAULT_SYSTEM, _list_page(item, "Query: "), answer=False)


def render_qwen3_vl_embedding(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """Qwen3-VL-Embedding: a chat turn with the instruction as its system text, a video and images before the text.

    ``Qwen3VLEmbedder`` of the authors' repository, which reads an instruction on every side, and ends it with a full
    stop where it ends in no punctuation. The last token is the one before the answer, or what the tokenizer itself
    puts after a text.
    """
    system = (instruction or "").strip() or QWEN3_DEFAULT_SYSTEM
    if not unicodedata.category(system[-1]).startswith("P"):
        system += "."
    return _wrap_qwen2_turn(system, _list_qwen2_user(item), End())


def render_qwen3_vl_reranker(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """Qwen3-VL-Reranker: a chat turn that asks whether a document meets a query, the visuals of each before its text.

    ``Qwen3VLReranker`` of the authors' repository, which takes the instruction as it is. What is scored is whether the
    answer would be yes. The document's text alone is trimmed: a score of a query that is cut, or of no document at all,
    would say nothing.
    """
    query = item.query or Item(None, (), None, item.index)
    asked, read = _list_qwen2_visuals(query, common=True), _list_qwen2_visuals(item)
    before = f"user\n<Instruct>: {instruction or QWEN3_RERANKER_INSTRUCTION}<Query>:"
    user: list[Segment] = []
    if asked:
        user, before = [Text(before), *asked], ""
    before += f"{query.text or ''}\n<Document>:"
    if read:
        user, before = [*user, Text(before), *read], ""
    user.append(Text(before, item.text or "", keeps_tokens=True))
    return _wrap_qwen2_turn(QWEN3_RERANKER_SYSTEM, user, End())


def divide_qwen3_video(row: Sequence[Segment], times_of: Callable[[VideoSource], Sequence[float]]) -> list[Segment]:
    """Qwen3-VL: each step of a video in a block of its own, after the seconds at which it is."""
    divided: list[Segment] = []
    for segment in row:
        if not isinstance(segment, Video):
            divided.append(segment)
            continue
        times = times_of(segment.source)
        for part, seconds in enumerate(times):
            time = f"<{seconds:.1f} seconds>"
            # No control token is between the first time and the text before it.
            if isinstance(last := divided[-1], Text):
                divided.pop()
                time = last.before + time
            divided += [
                Text(time),
                Special("<|vision_start|>"),
                replace(segment, part=part, parts=len(times)),
                Special("<|vision_end|>"),
            ]
    return divided


def render_dse_phi3(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """DSE on Phi-3-V: a query, or a question about a picture of a page; what is pooled is ``</s>``.

    The strings of the authors' code, where every text is a query, on any side, and no page has a text: that one takes
    the question's place. There is no place for an instruction.
    """
    _refuse_instruction(item, instruction, "DSE-Phi3")
    image, text = _take_only_image(item), item.text or ""
    if image is None:
        return [Start(), Text("query: ", text), Special("</s>")]
    asked = Text("\n", text) if text else Text("\nWhat is shown in this image?")
    return [Start(), Image(_PHI3_V_IMAGE, image), Start(), asked, Special("</s>")]


def render_vlm2vec_qwen2vl(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """VLM2Vec on Qwen2-VL: ``<|image_pad|> instruction text``, without a chat layout or a closing token.

    The layout of the model card's usage. The instruction counts on both sides, since the authors' candidates have
    one too; an image with neither text nor instruction gets the authors' ``Represent the given image.``
    """
    return _render_vlm2vec(item, instruction, "<|image_pad|>")


def render_vlm2vec_v2(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """VLM2Vec-V2: as its predecessor on Qwen2-VL, and ``<|video_pad|> instruction text`` for a video.

    ``process_input_text`` of the authors' code, which has no layout for a video beside an image. A video with neither
    text nor instruction gets their ``Represent the given video.``
    """
    if item.video is None:
        return _render_vlm2vec(item, instruction, "<|image_pad|>")
    if item.images:
        raise InputError("a video and an image, and this model takes one of them. Embed each by itself.", item.place)
    return [Video("<|video_pad|>", item.video), *_follow_vlm2vec(item.text, instruction, VLM2VEC_VIDEO_INSTRUCTION)]


def render_vlm2vec_llava_next(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """VLM2Vec on LLaVA-NeXT: as on Qwen2-VL, with this backbone's image token and the tokenizer's ``<s>``."""
    return [Start(), *_render_vlm2vec(item, instruction, "<image>")]


def render_vlm2vec_phi3v(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """VLM2Vec on Phi-3-V: as on Qwen2-VL; what is before and after a picture are strings of their own, with ``<s>``."""
    *images, text = _render_vlm2vec(item, instruction, _PHI3_V_IMAGE)
    return [Start(), *images, *([Start()] if images else []), text]


def _render_vlm2vec(item: Item, instruction: str | None, image_token: str) -> list[Segment]:
    image = _take_only_image(item)
    if image is None:
        return [Text(f"{instruction} " if instruction and item.text else instruction or "", item.text or "")]
    return [Image(image_token, image), *_follow_vlm2vec(item.text, instruction, VLM2VEC_IMAGE_INSTRUCTION)]


def _follow_vlm2vec(text: str | None, instruction: str | None, default: str) -> list[Segment]:
    """What VLM2Vec writes after an image or a video: the instruction and the text, each after one space."""
    if not text:
        return [Text(f" {instruction or default}")]
    return [Text(f" {instruction} " if instruction else " ", text)]


def render_bge_vl_mllm(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """BGE-VL-MLLM: ``[INST] … [/INST]`` with the image after the text, and the instruction on the query side.

    ``prepare_text_input`` of the model repositories, uneven spaces included. Without a side, an item with an
    instruction is a query and one without is a document.
    """
    image = _take_only_image(item)
    head: list[Segment] = []
    before = "[INST]  "
    if side == "query" or (side is None and instruction):
        asked = Text(f" {instruction} " if instruction else "  ")
        head = [Text("[INST] \n "), Special("<instruct>"), asked, Special("<query>")]
        # The authors write two spaces after <query> where there is an instruction, and one where there is none.
        before = "  " if instruction else " "
    after = "" if item.text is None else " \n "
    if image is None:
        return [Start(), *head, Text(before, item.text or "", f"{after}[/INST]")]
    return [Start(), *head, Text(before, item.text or "", after), Image("<image>", image), Text(" [/INST]")]


def render_e5_v(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """E5-V: a chat turn that asks for one word about a sentence, an image, or an image changed by a text.

    Those of the authors' ``retrieval.py``, spelling included. For an image with a text they have one for each
    benchmark, of which this is CIRR's. None has a place for an instruction.
    """
    _refuse_instruction(item, instruction, "E5-V")
    image, text = _take_only_image(item), item.text or ""
    body: list[Segment]
    if image is None:
        body = [Text("\n\n", text, "\nSummary above sentence in one word: ")]
    elif item.text is None:
        body = [Text("\n\n"), Image("<image>", image), Text("\nSummary above image in one word: ")]
    else:
        asked = Text('Modify this image with "', text, '", desribe modified image in one word: ')
        body = [Text("\n\n"), Image("<image>", image), asked]
    return [
        Start(),
        Special("<|start_header_id|>"),
        Text("user"),
        Special("<|end_header_id|>"),
        *body,
        Special("<|eot_id|>"),
        Special("<|start_header_id|>"),
        Text("assistant"),
        Special("<|end_header_id|>"),
        Text("\n\n \n"),
    ]


def render_clip(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """BGE-VL-CLIP: the text alone, which CLIP embeds apart from the image; a prompt goes before the text."""
    image = _take_only_image(item)
    images: list[Segment] = [] if image is None else [Image(None, image)]
    if item.text is None:
        return images
    return [*images, Start(), Text(instruction or "", item.text), End()]


def render_uniir_clip(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """UniIR's CLIP-SF: instruction and text as one cleaned text, which CLIP embeds apart from the image.

    ``format_string`` and the data sets of the authors' code. A query's instruction is the text of a picture that has
    none; a document has no instruction. An item without a picture needs a text that is more than spaces and quotes.
    """
    image = _take_only_image(item)
    images: list[Segment] = [] if image is None else [Image(None, image)]
    asked = "" if side == "document" else write_sentence(instruction or "")
    text = write_sentence(f"{asked} {item.text or ''}" if asked else item.text or "")
    if not text and image is None:
        raise InputError(
            "a text that is empty without spaces and quotes around it has no vector by this model. Leave it out.",
            item.place,
        )
    if not text:
        return images
    whole, before = clean(text, item.place), clean(asked, item.place)
    if whole != before:
        # ftfy may have mended what is on both sides of the place where they meet.
        before = f"{before} " if before and whole.startswith(f"{before} ") else ""
    return [*images, Start(), Text(before, whole.removeprefix(before), keeps_tokens=True), End()]


def render_visualized_bge(item: Item, instruction: str | None, side: Side | None) -> list[Segment]:
    """Visualized-BGE: image tokens between the first token and the text; a prompt goes before the text."""
    image = _take_only_image(item)
    images = [] if image is None else [Image("", image)]
    before = "" if item.text is None else instruction or ""
    return [Start(), *images, Text(before, item.text or ""), End()]


def _wrap_qwen2_turn(
    system: str, user: list[Segment], end: Segment = _END_OF_TURN, *, answer: bool = True
) -> list[Segment]:
    """Qwen2-VL's chat layout, mostly up to the answer, and the token that its embedders pool."""
    return [
        Special("<|im_start|>"),
        Text(f"system\n{system}"),
        Special("<|im_end|>"),
        Text("\n"),
        Special("<|im_start|>"),
        *user,
        Special("<|im_end|>"),
        Text("\n"),
        *([Special("<|im_start|>"), Text("assistant\n")] if answer else []),
        end,
    ]


def _list_page(item: Item, before_text: str) -> list[Segment]:
    """The user's part of such a turn about one picture; a text stands beside a black stand-in picture."""
    image = _take_only_image(item)
    if image is None:
        text = Text(before_text, item.text or "")
    else:
        text = Text("", item.text) if item.text else Text("What is shown in this image?")
    stand_in = ImageSource(PILImage.new("RGB", (56, 56)), "stand-in picture")
    return [Text("user\n"), *_wrap_qwen2_image(image or stand_in), text]


def _list_qwen2_user(item: Item, before_text: str = "", after_text: str = "") -> list[Segment]:
    """The user's part of such a turn: a video, images, then the text."""
    text = item.text or ""
    blocks = _list_qwen2_visuals(item)
    if not blocks:
        return [Text(f"user\n{before_text}", text, after_text)]
    return [Text("user\n"), *blocks, Text(before_text, text, after_text)]


def _list_qwen2_visuals(item: Item, *, common: bool = False) -> list[Segment]:
    video: list[Segment] = [] if item.video is None else [Video("<|video_pad|>", item.video, common=common)]
    return video + [segment for image in item.images for segment in _wrap_qwen2_image(image, common=common)]


def _wrap_qwen2_image(image: ImageSource, *, common: bool = False) -> list[Segment]:
    return [Special("<|vision_start|>"), Image("<|image_pad|>", image, common), Special("<|vision_end|>")]


def _take_only_image(item: Item) -> ImageSource | None:
    if len(item.images) > 1:
        raise InputError(
            f"{len(item.images)} images, and this model takes one. Embed each image by itself.", item.place
        )
    return item.images[0] if item.images else None


def _refuse_instruction(item: Item, instruction: str | None, model: str) -> None:
    if item.instruction:
        raise InputError(f"{model} takes no instruction; leave it out.", item.place.within("system message"))
    if instruction:
        raise InputError(f"{model} takes no instruction; leave it out.", "the prompt")


TEMPLATES: dict[str, Template] = {
    "gme": Template(render_gme, _NOT_DOCUMENTS, task_instructions=True),
    "qwen3_vl_embedding": Template(
        render_qwen3_vl_embedding, _EVERY_SIDE, task_instructions=True, takes_video=True, divide=divide_qwen3_video
    ),
    "qwen3_vl_reranker": Template(
        render_qwen3_vl_reranker,
        _EVERY_SIDE,
        task_instructions=True,
        takes_video=True,
        divide=divide_qwen3_video,
        takes_pairs=True,
    ),
    "ops_mm": Template(render_ops_mm, _EVERY_SIDE, task_instructions=True),
    "rzen_embed": Template(render_rzen_embed, _EVERY_SIDE, task_instructions=True),
    "unite": Template(render_unite, _NO_SIDE),
    "dse_qwen2": Template(render_dse_qwen2, _NO_SIDE),
    "vdr": Template(render_vdr, _NO_SIDE),
    "dse_phi3": Template(render_dse_phi3, _NO_SIDE),
    "vlm2vec_qwen2vl": Template(render_vlm2vec_qwen2vl, _EVERY_SIDE, task_instructions=True),
    "vlm2vec_v2": Template(render_vlm2vec_v2, _EVERY_SIDE, task_instructions=True, takes_video=True),
    "vlm2vec_llava_next": Template(render_vlm2vec_llava_next, _EVERY_SIDE, task_instructions=True),
    "vlm2vec_phi3v": Template(render_vlm2vec_phi3v, _EVERY_SIDE, task_instructions=True),
    "bge_vl_mllm": Template(render_bge_vl_mllm, _NOT_DOCUMENTS, task_instructions=True),
    "e5_v": Template(render_e5_v, _NO_SIDE),
    "clip": Template(render_clip, _EVERY_SIDE, needs_text=True),
    "uniir_clip": Template(render_uniir_clip, _NOT_DOCUMENTS, task_instructions=True, normalises=True),
    "visualized_bge": Template(render_visualized_bge, _EVERY_SIDE, needs_text=True),
}
