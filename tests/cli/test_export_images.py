from __future__ import annotations

from pathlib import Path

import pytest

from secateurs.cli import export
from secateurs.errors import InputError
from secateurs.study.setup import splitting


def test_the_word_faces_stands_for_the_embedded_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    session = type("Session", (), {"cache": tmp_path})()
    monkeypatch.setattr(splitting, "embedded_faces", lambda cache, **_: cache / "drawn")
    given = export._images(Path("faces"))
    assert export._folder(tmp_path, given, session) == tmp_path / "drawn"
    assert export._folder(tmp_path, tmp_path, session) == tmp_path


def test_a_path_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        export._images(Path("nowhere"))
