"""Instructions written by a LangChain chat model that sees both pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.messages.content import create_image_block, create_text_block
from langchain_core.output_parsers import PydanticOutputParser
from pydantic import BaseModel, Field, field_validator

from st_modules.inputs.image_conversion import to_rgb
from st_modules.inputs.images import ImageSource
from st_modules.megapairs.instructions import InstructionError, PicturePair, Written

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

_LONGEST = 300

_SYSTEM = """\
You write search instructions. You are shown two pictures, A and B. Somebody has picture A and looks for picture B in \
a large collection; the search takes picture A together with one short instruction.

First say what A and B have in common, then how B differs from A. Then write the instructions. Each of them:
- tells what to change in A, or how B relates to A, so that B is found and A itself is not;
- makes sense only together with A: leave out what B has from A anyway;
- is one phrase or sentence of at most 25 words, about what can be seen;
- never says "picture A", "picture B", "first image" or "second image".
Differ in wording, and in which differences you name.
"""


class ChatInstructions:
    """Asks a chat model for instructions, and again where its answer does not fit.

    The model gets one message with both pictures as standard content blocks (base64), and their captions if there are
    any. Where the model has ``with_structured_output``, it answers through that; the others are told a JSON schema.
    Either way the answer is checked: what the pictures have in common, how they differ, and ``count`` different
    instructions. An answer that does not fit is sent back with what is wrong with it.

    Args:
        model: Any chat model of LangChain that reads pictures. Its own retries are for its network.
        count: How many instructions a pair has.
        attempts: How often a pair is asked for before it counts as failed.
        max_failures: How many pairs may fail in a run; each is left out and recorded. One more stops the run.
        concurrency: How many pairs are asked for at a time.
        max_side: Pictures are scaled down to this many pixels at most a side before they are sent.

    Raises:
        ValueError: A number is out of its range.
    """

    def __init__(
        self,
        model: BaseChatModel,
        count: int = 3,
        *,
        attempts: int = 3,
        max_failures: int = 0,
        concurrency: int = 4,
        max_side: int = 768,
    ) -> None:
        numbers = {"count": count, "attempts": attempts, "concurrency": concurrency, "max_side": max_side}
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"{name}={value}: pass 1 or more.")
        self.count = count
        self.attempts = attempts
        self.max_failures = max_failures
        self.concurrency = concurrency
        self.max_side = max_side
        self._model = model
        self._failures = 0
        self._schema = _schema(count)
        self._parser = PydanticOutputParser(pydantic_object=self._schema)
        self._structured = _request_structured(model, self._schema)

    @property
    def identity(self) -> str:
        """The model's class and name, and how many instructions it writes."""
        name = getattr(self._model, "model_name", None) or getattr(self._model, "model", "")
        return f"{type(self._model).__name__} {name}, {self.count}"

    def write(self, pairs: Sequence[PicturePair]) -> Iterator[Written]:
        """Yield one result for each pair, in their order.

        Raises:
            InstructionError: More pairs failed than ``max_failures``.
            ImageError: A picture cannot be read.
        """
        with ThreadPoolExecutor(self.concurrency) as pool:
            waiting = [pool.submit(self._ask, pair) for pair in pairs]
            try:
                for pair, future in zip(pairs, waiting, strict=True):
                    yield self._count(pair, future.result())
            finally:
                pool.shutdown(cancel_futures=True)

    def _count(self, pair: PicturePair, written: Written) -> Written:
        self._failures += bool(written.problem)
        if self._failures > self.max_failures:
            raise InstructionError(
                f"{pair.label}: {written.problem} ({written.detail}). {self._failures} pairs failed, and max_failures "
                f"is {self.max_failures}. What is written is kept: run the same again when the chat model answers."
            )
        return written

    def _ask(self, pair: PicturePair) -> Written:
        messages = self._messages(pair)
        problem = ""
        for _ in range(self.attempts):
            try:
                return Written(tuple(self._answer(messages)))
            except _WrongAnswer as error:
                problem = str(error)
                messages = [*messages[:2], *_complaint(error)]
            except Exception as error:  # whatever a provider raises: the pair is asked for again, then recorded
                problem = f"{type(error).__name__}: {error}"
        return Written(problem="no usable answer", detail=f"{self.attempts} attempts; the last one: {problem}")

    def _answer(self, messages: list[BaseMessage]) -> list[str]:
        if self._structured is None:
            raw = self._model.invoke(messages)
            try:
                return self._parser.parse(raw.text).instructions
            except OutputParserException as error:
                raise _WrongAnswer(raw.text, str(error)) from error
        result = self._structured.invoke(messages)
        if result["parsed"] is None:
            raise _WrongAnswer(_show(result["raw"]), str(result["parsing_error"] or "the answer is not of the schema"))
        return result["parsed"].instructions

    def _messages(self, pair: PicturePair) -> list[BaseMessage]:
        task = f"Write {self.count} different instructions that lead from A to B."
        if self._structured is None:
            task += f"\n\n{self._parser.get_format_instructions()}"
        content = [*self._picture(pair, "A"), *self._picture(pair, "B"), create_text_block(task)]
        return [SystemMessage(_SYSTEM), HumanMessage(content_blocks=content)]

    def _picture(self, pair: PicturePair, letter: str) -> list[Any]:
        picture = pair.query if letter == "A" else pair.target
        caption = f" Its caption: {picture.caption}" if picture.caption else ""
        image = to_rgb(ImageSource(pair.root / picture.name, picture.name).load())
        image.thumbnail((self.max_side, self.max_side))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=90)
        encoded = base64.b64encode(stream.getvalue()).decode()
        return [
            create_text_block(f"Picture {letter}.{caption}"),
            create_image_block(base64=encoded, mime_type="image/jpeg"),
        ]


class _WrongAnswer(Exception):
    """An answer, and what is wrong with it."""

    def __init__(self, answer: str, problem: str) -> None:
        super().__init__(problem)
        self.answer = answer


def _complaint(error: _WrongAnswer) -> list[BaseMessage]:
    return [
        AIMessage(error.answer or "(nothing)"),
        HumanMessage(f"This answer cannot be used: {error}\nAnswer again, in the form that was asked for."),
    ]


def _show(raw: AIMessage) -> str:
    return raw.text or str([call["args"] for call in raw.tool_calls])


def _schema(count: int) -> type[Any]:
    """The schema of an answer. Its limits are checked here only: not every provider takes them in a JSON schema."""

    class Instructions(BaseModel):
        common: str = Field(description="What the two pictures have in common.")
        difference: str = Field(description="How picture B differs from picture A.")
        instructions: list[str] = Field(description=f"{count} different search instructions that lead from A to B.")

        @field_validator("instructions")
        @classmethod
        def _usable(cls, texts: list[str]) -> list[str]:
            lines = list(dict.fromkeys(text.strip() for text in texts))
            if len(lines) != count or not all(0 < len(line) <= _LONGEST for line in lines):
                raise ValueError(f"{count} different texts of 1 to {_LONGEST} characters are needed, not {texts}")
            return lines

    return Instructions


def _request_structured(model: BaseChatModel, schema: type[BaseModel]) -> Any:
    try:
        return model.with_structured_output(schema, include_raw=True)
    except NotImplementedError:
        return None
