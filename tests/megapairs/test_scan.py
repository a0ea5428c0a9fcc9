"""What a stopped scan left is read by lines, and a damaged one is refused by its number."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_modules.errors import STModulesError
from st_modules.files.lines import LineFile
from st_modules.megapairs.pictures import Collection
from st_modules.megapairs.scan import ScannedPicture, scan_pictures


@pytest.mark.parametrize("line", ["{", "5", "[]", '{"nothing": 1}', "[" * 100_000], ids=lambda text: text[:5])
def test_a_damaged_line_is_refused_by_file_and_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "contents.jsonl"
    path.write_text('{"digest": "a", "problem": ""}\n')
    nothing = Collection(tmp_path, ())
    assert scan_pictures(nothing, LineFile(path)) == [ScannedPicture("a")]
    path.write_text(f'{{"digest": "a", "problem": ""}}\n{line}\n')
    with pytest.raises(STModulesError, match=f"^{path}: line 2 is damaged"):
        scan_pictures(nothing, LineFile(path))
