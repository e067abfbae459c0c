"""The reference study's verdict, law, plan and findings follow from its stored runs, byte for byte."""

from __future__ import annotations

import pytest

from benchmarks.replay import RECORD, replay


@pytest.mark.slow
def test_the_stored_runs_give_the_stored_files_again(tmp_path):
    replay(RECORD, tmp_path)
    for name in ("study", "law", "plan", "profile"):
        assert (tmp_path / f"{name}.json").read_bytes() == (RECORD / f"{name}.json").read_bytes(), name
