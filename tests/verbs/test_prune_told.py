"""What `prune` says where something could not be measured, is no number, or is another than it seems."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.pruning import speed
from tests.pruning.planted import FIRST, saved, text_of, with_dead_experts, with_domains
from tests.verbs.test_prune import DEAD, prune

pytestmark = pytest.mark.usefixtures("quick")


def test_a_random_choice_is_not_said_to_go_by_what_no_token_reached(tmp_path):
    checkpoint, one = saved(with_domains(), tmp_path / "whole"), str(text_of(tmp_path / "first.txt", FIRST))
    answer = prune(checkpoint, one, method="random")
    assert len(answer.unscored_experts) == 4
    assert not any("they went first" in words for words in answer.warnings)


def test_where_the_memory_of_a_process_cannot_be_measured_nothing_is_lost(tmp_path, text, monkeypatch):
    def killed(place: speed.Place, threads: int) -> int:
        raise UserError("the process that measures memory was killed")

    monkeypatch.setattr(speed, "peak_memory", killed)
    answer = prune(saved(with_dead_experts("softmax", DEAD), tmp_path / "whole"), text)
    assert Path(answer.out.path, "model.safetensors").exists()
    for costs in (answer.before, answer.after):
        assert costs.peak_memory_bytes is None
        assert costs.peak_memory_bytes_reason == "the process that measures memory was killed"
        assert costs.decode_tokens_per_second.median > 0
    assert any("memory a process takes is not known: the process" in words for words in answer.warnings)


def test_a_model_whose_loss_is_no_number_is_refused(tmp_path, text):
    model = with_dead_experts("softmax", DEAD)
    with torch.no_grad():
        model.norm_D.fill_(3e38)  # so that the normed stream is infinite
    checkpoint = saved(model, tmp_path / "broken")
    for settings in ({}, {"method": "wanda"}, {"method": "block-influence"}):
        with pytest.raises(UserError, match="the model's loss on the calibration text is not a number"):
            prune(checkpoint, text, **settings)
    assert not (tmp_path / "smaller").exists()
