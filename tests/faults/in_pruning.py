"""Faults of turning parts off."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="gates are a softmax over experts that are off, too",
        file="model/router.py",
        line='logits_TE = logits_TE.masked_fill(~kept_E, float("-inf"))',
        becomes="pass",
        tests="tests/pruning/test_experts.py::test_masked_equals_removed",
    ),
    Fault(
        what="the routing bias keeps the rows of the first experts, not of those that stay",
        file="pruning/experts.py",
        line="yield _rows(tensor, list(on))",
        becomes='yield _rows(tensor, list(on) if name.part == "router" else list(range(len(on))))',
        tests="tests/pruning/test_experts.py::test_masked_equals_removed",
    ),
    Fault(
        what="a row of the routing bias is left behind",
        file="pruning/experts.py",
        line='BY_EXPERT = ("router", "routing_bias")',
        becomes='BY_EXPERT = ("router",)',
        tests="tests/pruning/test_experts.py::test_transformers_opens_the_smaller_folder_and_computes_the_same",
    ),
    Fault(
        what="a group of experts is emptied",
        file="pruning/counts.py",
        line="_best(scores[number], count, groups)",
        becomes="_best(scores[number], count, 1)",
        tests="tests/pruning/test_counts.py",
    ),
    Fault(
        what="an expert without a score stays",
        file="pruning/counts.py",
        line="np.where(np.isnan(scores_E), -np.inf, scores_E)",
        becomes="np.where(np.isnan(scores_E), np.inf, scores_E)",
        tests="tests/pruning/test_counts.py",
    ),
    Fault(
        what="a score's gate is taken before its scaling",
        file="pruning/gather.py",
        line="self._add(layer, expert, gate_n.double(), ",
        becomes="self._add(layer, expert, (gates_TK / gates_TK.sum(1, keepdim=True))[token_n, choice_n].double(), ",
        tests="tests/pruning/test_scores.py",
    ),
    Fault(
        what="an expert that no token reached has the score 0",
        file="pruning/scores.py",
        line="np.where(reached.tokens_E > 0, score_E, np.nan)",
        becomes="score_E",
        tests="tests/pruning/test_scores.py",
    ),
    Fault(
        what="the windows that calibrate are scored too",
        file="pruning/windows.py",
        line="self.pick(np.setdiff1d(np.arange(count), scored))",
        becomes="self.pick(np.arange(count))",
        tests="tests/pruning/test_windows.py",
    ),
    Fault(
        what="experts are merged without regard to their tokens",
        file="pruning/merging.py",
        line="share * member.values().double()",
        becomes="member.values().double() / len(members)",
        tests="tests/pruning/test_merging.py",
    ),
    Fault(
        what="layers are said to be cut in turn, and each is calibrated in the whole model",
        file="pruning/sequential.py",
        line="kept=masks(KeptExperts(kept), shape)",
        becomes="kept=None",
        tests="tests/pruning/test_sequential.py",
    ),
    Fault(
        what="a layer without a window gets one when a layer before it goes",
        file="pruning/layers.py",
        line="full = sum(number < shape.full_layers for number in self.layers)",
        becomes="full = min(shape.full_layers - 1, len(self.layers))",
        tests="tests/pruning/test_layers.py",
    ),
    Fault(
        what="lists with an entry for each layer keep those of layers that went",
        file="shape/config.py",
        line="[value[number] for number in layers] if",
        becomes="value[: len(layers)] if",
        tests="tests/pruning/test_layers.py",
    ),
    Fault(
        what="a neuron's score leaves out what it writes",
        file="pruning/neurons.py",
        line="activations[number] * norms[number] for",
        becomes="activations[number] for",
        tests="tests/pruning/test_neurons.py",
    ),
    Fault(
        what="an activation of shared experts is taken before their gate",
        file="pruning/neurons.py",
        line="return torch.sigmoid(x_TD @ part.w_shared_gate_D1) * found_TF",
        becomes="return found_TF",
        tests="tests/pruning/test_neurons.py",
    ),
    Fault(
        what="Wanda takes the square of the norm of an input",
        file="pruning/cutting.py",
        line="seen.sum_N.sqrt()",
        becomes="seen.sum_N",
        tests="tests/pruning/test_cutting.py",
    ),
    Fault(
        what="columns behind a block do not make up for what it lost",
        file="pruning/cutting.py",
        line="w_ON[:, end:] -= errors_OB @ inverse_NN[start:end, end:]",
        becomes="pass",
        tests="tests/pruning/test_cutting.py",
    ),
    Fault(
        what="inputs of a layer come from layers that are whole",
        file="pruning/weights.py",
        line="            view_ON.copy_(values_ON)",
        becomes="            views[name] = values_ON",
        tests="tests/pruning/test_weights.py",
    ),
)
