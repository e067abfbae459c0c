"""Text out: drawn as asked, each sequence as it would be alone."""

from __future__ import annotations

import pytest
import torch

from sparsedial.errors import UserError
from sparsedial.model.greedy import Vocabulary
from sparsedial.model.transformer import initialise
from sparsedial.serving.generation import generate, generate_together, probabilities
from sparsedial.serving.sampling import Sampling
from sparsedial.shape.ladder import Ladder

MODEL = initialise(Ladder(vocab_size=64, context=24).shape(16, 8), 0).eval()
GREEDY = Sampling(temperature=0.0)


def test_sequences_go_on_together_as_each_would_alone():
    prompts = [[3, 14, 15, 9, 2], [6], [5, 3, 5]]
    sampling = Sampling(temperature=1.0, seed=5)
    together = list(generate_together(MODEL, prompts, 40, sampling))  # beyond the context
    for number, prompt in enumerate(prompts):
        alone = generate(MODEL, prompt, 15, Sampling(temperature=1.0, seed=5 + number))
        assert [row[number] for row in together[:15]] == list(alone)


def test_a_seed_repeats_and_another_differs():
    def drawn(seed):
        return list(generate(MODEL, [5], 20, Sampling(temperature=1.0, seed=seed)))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_generation_stops_at_the_end_token():
    first = next(iter(generate(MODEL, [5], 1, GREEDY)))
    assert list(generate(MODEL, [5], 10, GREEDY, Vocabulary(ends=frozenset({first})))) == []


def test_top_k_and_top_p_leave_the_likeliest():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    assert (probabilities(logits, Sampling(temperature=1.0, top_k=2)) > 0).tolist() == [True, True, False, False]
    assert (probabilities(logits, Sampling(temperature=1.0, top_p=0.6)) > 0).tolist() == [True, True, False, False]
    assert (probabilities(logits, Sampling(temperature=1.0, top_p=0.01)) > 0).tolist() == [True, False, False, False]
    torch.testing.assert_close(
        probabilities(logits, Sampling(temperature=1.0, top_p=0.9)).float(),
        torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95,
    )


@pytest.mark.parametrize("temperature", [1e-320, 1e-30, 1e300])
def test_the_hottest_and_the_coldest_temperatures_give_a_distribution(temperature):
    logits = torch.tensor([300.0, -200.0, 300.5, float("-inf")])
    found = probabilities(logits, Sampling(temperature=temperature))
    expected = [0, 0, 1, 0] if temperature < 1 else [1 / 3, 1 / 3, 1 / 3, 0]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_one_line(temperature):
    model = initialise(Ladder(vocab_size=64, context=24).shape(16, 8), 0).eval()
    model.norm_D.data.fill_(float("nan"))
    with pytest.raises(UserError, match="the model's logits are not numbers"):
        next(iter(generate(model, [5], 3, Sampling(temperature=temperature))))


def test_temperature_sharpens():
    logits = torch.tensor([1.0, 0.0])
    cold, warm = (probabilities(logits, Sampling(temperature=value))[0] for value in (0.5, 2.0))
    assert cold > warm
    assert probabilities(logits, GREEDY).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1},
        {"temperature": float("inf")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"seed": -1},
        {"seed": 2**70},
        {"frequency_penalty": 2.1},
        {"presence_penalty": -2.1},
        {"logit_bias": ((3, 100.5),)},
    ],
)
def test_impossible_sampling_is_refused(values):
    with pytest.raises(UserError, match=next(iter(values))):
        Sampling(**values)


def test_an_empty_prompt_is_refused():
    with pytest.raises(UserError, match="prompt"):
        next(iter(generate(MODEL, [], 5, GREEDY)))
