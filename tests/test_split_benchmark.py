"""The benchmark of experts from a dense model measures what the split checkpoint would lose."""

from __future__ import annotations

import pytest
import torch

from benchmarks.split_experts import WAYS, Lab, row_of
from sparsedial.model.turned import at_setting
from sparsedial.pruning.quality import nats_of
from sparsedial.pruning.shelf import Shelf
from sparsedial.pruning.split_sizes import SplitSizes
from sparsedial.pruning.splitting import divided
from sparsedial.shape.turned import Turned
from tests.pruning.planted import FIRST, SECOND, text_of, with_clusters
from tests.pruning.test_planted import windows_of
from tests.pruning.test_splitting import split_of


def test_a_row_is_the_loss_of_the_split_checkpoint_at_that_setting(tmp_path):
    windows = windows_of(text_of(tmp_path / "both.txt", FIRST, SECOND))
    model, shelf = with_clusters()[0], Shelf()
    ids_WS1 = torch.from_numpy(windows.ids_WS1)
    found = divided(model, ids_WS1, SplitSizes(experts=8, always=1, top_k=8), 0, shelf)
    lab = Lab(model=model, found=found, windows_WS1=ids_WS1, shelf=shelf)
    whole = nats_of(model, {"text": windows})["text"]
    rows = {name: row_of(lab, name, 2 / 9, "text", windows, whole) for name in WAYS}
    drawn = at_setting(split_of(model, found.drawn), Turned(top_k=(1,)))
    expected = nats_of(drawn, {"text": windows})["text"].above(whole).mean
    assert expected > 0.05
    assert rows["drawn experts"]["loss_increase"]["mean"] == pytest.approx(expected, abs=1e-5)
    for name in ("experts", "experts, numbers by layer", "experts, chosen perfectly", "drawn experts"):
        assert rows[name]["neurons_share"] == pytest.approx(2 / 9), name
    for name in ("experts", "experts, chosen perfectly", "thresholds on activations"):
        assert abs(rows[name]["loss_increase"]["mean"]) < 1e-5, name
    assert rows["removed"]["loss_increase"]["mean"] > 0.05
    assert nats_of(model, {"text": windows})["text"].mean == pytest.approx(whole.mean, abs=1e-9), "all is put back"
