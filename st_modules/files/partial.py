"""The output of a run on its way: what a stopped run has done of it is there for the next one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from st_modules.errors import InputError
from st_modules.files.atomic import name_file, put_in_place, write_atomically
from st_modules.files.locks import lock_folder
from st_modules.files.records import BadRecord


@dataclass(frozen=True)
class _State:
    """How far a run has come.

    Attributes:
        key: What the output depends on: a name of each thing, and what tells that it is the same.
        done: How many records have been embedded, or found to be bad.
        dimension: Of a vector; 0 where there is none yet.
        vectors_size: How many bytes of the vectors' file count.
        bad_size: How many bytes of the bad records' file count.
    """

    key: dict[str, str]
    done: int = 0
    dimension: int = 0
    vectors_size: int = 0
    bad_size: int = 0

    @classmethod
    def parse(cls, content: str) -> _State:
        """Read what was written of a state; ``ValueError`` where it is damaged."""
        fields: Any = json.loads(content)
        names = list(asdict(cls({})))
        if not isinstance(fields, dict) or sorted(cast("dict[str, Any]", fields)) != sorted(names):
            raise ValueError("other fields")
        key, *numbers = cast("list[Any]", [fields[name] for name in names])
        if not isinstance(key, dict) or not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("values of other types")
        state = cls(cast("dict[str, str]", key), *numbers)
        if state.vectors_size % (4 * state.dimension or state.vectors_size + 1):
            raise ValueError("no whole vectors")
        return state


class Partial:
    """Vectors that are embedded, in a folder beside the place of the output.

    It is told from the folder alone how far a run has come: what was being added when the run was stopped is cut off.

    Args:
        folder: The folder; one run at a time has it.
        targets: Where the files of the output go.
    """

    def __init__(self, folder: Path, targets: Sequence[Path]) -> None:
        self.folder = folder
        self._targets = targets
        self._state_file = folder / "state.json"
        self._vectors_file = folder / "vectors.f32"
        self._bad_file = folder / "bad.jsonl"
        self._finished = folder / "finished"
        self._state = self._read()
        self.begun = False
        self.completed = self._finished.exists()
        if self.completed:
            self._complete()

    @property
    def done(self) -> int:
        """How many records have been embedded, or found to be bad."""
        return self._state.done if self._state else 0

    def begin(self, key: Mapping[str, str], resume: bool) -> None:
        """Go on with what a stopped run has left, or start anew.

        Args:
            key: What the output depends on: a name of each thing, and what tells that it is the same.
            resume: Whether to go on, where there is something to go on with.

        Raises:
            InputError: What is there was made from something else.
        """
        if not resume or not self._state:
            self._clear()
            self._state = _State(dict(key))
        elif changed := [name for name, value in key.items() if self._state.key.get(name) != value]:
            raise InputError(
                f"{self.folder}: what a stopped run left there was made with another {' and another '.join(changed)}. "
                "Pass what that run was given, or leave out --resume to start anew."
            )
        for file, size in ((self._vectors_file, self._state.vectors_size), (self._bad_file, self._state.bad_size)):
            with name_file(file), file.open("ab") as stream:
                if stream.tell() < size:
                    raise self._damaged()
                stream.truncate(size)
        self.begun = True

    def append(self, vectors: npt.NDArray[np.float32] | None, bad: Sequence[tuple[int, BadRecord]], count: int) -> None:
        """Add what the next records became; all of it is in the files when this returns.

        Args:
            vectors: Shape (n, dimension), one a record that could be embedded; ``None`` where none could.
            bad: The others, each with its position among all records.
            count: How many records these are.
        """
        assert self._state is not None
        rows = np.empty((0, 0), np.float32) if vectors is None else np.ascontiguousarray(vectors, np.float32)
        lines = [json.dumps([position, asdict(each)]) + "\n" for position, each in bad]
        self._state = _State(
            self._state.key,
            self._state.done + count,
            rows.shape[1] or self._state.dimension,
            self._state.vectors_size + _append(self._vectors_file, rows.tobytes()),
            self._state.bad_size + _append(self._bad_file, "".join(lines).encode()),
        )
        with name_file(self._state_file), write_atomically([self._state_file]) as (part,):
            part.write_text(json.dumps(asdict(self._state)), encoding="utf-8")

    def read_vectors(self) -> npt.NDArray[np.float32]:
        """The vectors so far, of shape (n, dimension), mapped into memory."""
        assert self._state is not None
        if not self._state.vectors_size:
            return np.empty((0, self._state.dimension), np.float32)
        rows = self._state.vectors_size // (4 * self._state.dimension)
        return np.memmap(self._vectors_file, np.float32, "r", shape=(rows, self._state.dimension))

    def read_bad(self) -> dict[int, BadRecord]:
        """The records that could not be embedded, by their positions."""
        try:
            pairs = map(json.loads, self._bad_file.read_text(encoding="utf-8").splitlines())
            return {position: BadRecord(**fields) for position, fields in pairs}
        except (ValueError, TypeError) as error:
            raise self._damaged() from error

    @contextmanager
    def finish(self) -> Generator[Path, None, None]:
        """Have the output written, and put it in its place.

        Yields:
            A folder for files of the targets' names. They take their places when all are written.
        """
        folder = self.folder / "writing"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder
        folder.rename(self._finished)
        self._complete()

    def _complete(self) -> None:
        self._state_file.unlink(missing_ok=True)  # what is finished is not gone on with
        put_in_place(self._finished, self._targets)
        self._clear()

    def _read(self) -> _State | None:
        try:
            return _State.parse(self._state_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return None

    def _damaged(self) -> InputError:
        return InputError(f"{self.folder}: damaged; leave out --resume to start anew.")

    def _clear(self) -> None:
        """Delete what there is, the file of the lock aside."""
        self._state = None
        self._state_file.unlink(missing_ok=True)  # first: without it the rest counts for nothing
        for path in (self._vectors_file, self._bad_file, *self.folder.glob(".*.part")):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "writing", ignore_errors=True)


@contextmanager
def open_partial(targets: Sequence[Path], keep: bool) -> Generator[Partial, None, None]:
    """Work on an output, alone; where a stopped run was about to put its files in their places, do that first.

    Args:
        targets: Where the files of the output go, in one folder. The folder for what is on its way is the first
            one's name with ``.partial`` behind it.
        keep: Whether what is done stays where something is raised. What an earlier run left stays in any case until
            this one begins.

    Raises:
        InputError: Another run is working on the output.
    """
    folder = targets[0].with_name(f"{targets[0].name}.partial")
    folder.mkdir(exist_ok=True)
    with lock_folder(folder):
        partial = Partial(folder, targets)
        try:
            yield partial
        finally:
            if not partial.done or (partial.begun and not keep):
                shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # Windows deletes the file of the lock only now
        folder.rmdir()


def _append(path: Path, content: bytes) -> int:
    """Write to the end of a file, and return how many bytes that was."""
    with name_file(path), path.open("ab") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return len(content)
