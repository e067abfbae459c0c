"""Faults of the dial: settings of a checkpoint, and training for them."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="the numbers of experts are drawn by a generator that goes on, not by the step",
        file="training/dial.py",
        line="key = mix(mix(mix(SALT + self.seed) + block) + layer)",
        becomes='key = __import__("random").getrandbits(64)',
        tests="tests/runs/test_dial.py::test_a_resumed_run_with_a_dial_equals_an_uninterrupted_one_bit_for_bit",
    ),
    Fault(
        what="a run with a dial counts its FLOPs at the highest number",
        file="runs/job.py",
        line="return full if self.dial is None else full - spared_flops(self.dial, self.shape, recipe)",
        becomes="return full",
        tests="tests/runs/test_dial.py::test_a_dial_and_how_it_is_drawn_are_inputs_of_a_run",
    ),
    Fault(
        what="gates of fewer experts are normalised over all that were chosen",
        file="model/router.py",
        line="gates_TK = gates_TK / (gates_TK.sum(1, keepdim=True) + 1e-20)",
        becomes="gates_TK = gates_TK / (scores_TE.gather(1, chosen_TK).sum(1, keepdim=True) + 1e-20)",
        tests="tests/training/test_dial.py::test_a_step_at_a_number_learns_what_a_model_of_that_top_k_learns",
    ),
    Fault(
        what="a run ends on the highest number",
        file="training/dial.py",
        line="return (draws.dial.top_k_experts[0],) * draws.layers",
        becomes="return (draws.dial.top_k_experts[-1],) * draws.layers",
        tests="tests/training/test_dial.py",
    ),
    Fault(
        what="the loss at each number of a dial is that at the highest",
        file="evaluation/loss.py",
        line="None if top_k is None else same_top_k(",
        becomes="None if True else same_top_k(",
        tests="tests/runs/test_dial.py::test_the_loss_at_each_number_is_that_of_the_checkpoint_with_an_edited_top_k",
    ),
    Fault(
        what="a step with few experts is compared with those that had many",
        file="training/dial.py",
        line="if sum(draws.at(index)) <= most]",
        becomes="if sum(draws.at(index)) <= most or True]",
        tests="tests/runs/test_dial.py::test_a_step_with_few_experts_is_no_spike_and_one_far_above_its_like_is",
    ),
    Fault(
        what="the last layers are skipped, whichever are named",
        file="model/turned.py",
        line="kept = [model.blocks[layer] for layer in setting.kept(model.shape)]",
        becomes="kept = [*model.blocks][: len(setting.kept(model.shape))]",
        tests="tests/model/test_turned.py::test_layers_of_their_own_numbers_are_those_of_a_model_built_so",
    ),
    Fault(
        what="rows that begin alike share what was read with another number of experts",
        file="model/decoder.py",
        line="alike = rows and counts[rows[0]] == counts[row]",
        becomes="alike = rows",
        tests="tests/model/test_turned.py::test_rows_begin_at_their_own_k_even_where_they_begin_alike",
    ),
    Fault(
        what="dial.json changes the digest of its checkpoint",
        file="model/digests.py",
        line="BESIDE = (SUMMARY, PRUNE_FILE, DIAL_FILE)",
        becomes="BESIDE = (SUMMARY, PRUNE_FILE)",
        tests="tests/verbs/test_dial_measured.py::test_each_setting_is_measured_beside_the_default",
    ),
    Fault(
        what="an added loss is within its limit on average, not surely",
        file="serving/budget.py",
        line="(grown.mean if grown.high is None else grown.high)",
        becomes="grown.mean",
        tests="tests/serving/test_budget.py",
    ),
    Fault(
        what="answers to tasks that are kept are those of another setting",
        file="verbs/evaluated.py",
        line='f"{name.digest} {setting.name}"',
        becomes="name.digest",
        tests="tests/verbs/test_evaluate_settings.py::test_tasks_are_scored_and_compared_at_each_setting",
    ),
    Fault(
        what="a layer's neurons are chosen by the threshold of the first one",
        file="model/turned.py",
        line="part.threshold = gates.at(number, setting.neurons, device)",
        becomes="part.threshold = gates.at(kept[0], setting.neurons, device)",
        tests="tests/model/test_gates.py::test_a_skipped_layer_leaves_the_others_their_own_thresholds",
    ),
    Fault(
        what="a neuron's gate is weighed by what the neuron before it writes",
        file="pruning/gates.py",
        line="gate_F = (norm_F * ",
        becomes="gate_F = (norm_F.roll(1) * ",
        tests="tests/model/test_gates.py::test_a_neurons_weight_is_its_typical_up_times_what_it_writes",
    ),
    Fault(
        what="a neuron that is left out writes as if its up were one",
        file="model/gates.py",
        line="(functional.silu(gate_BSF) * up_BSF).where(self.open(gate_BSF), 0)",
        becomes="functional.silu(gate_BSF) * up_BSF.where(self.open(gate_BSF), 1)",
        tests="tests/model/test_gates.py::test_compiled_decoding_leaves_out_the_neurons_that_the_model_leaves_out",
    ),
    Fault(
        what="a prompt is read by the neurons whose gates are open, whatever they write",
        file="model/transformer.py",
        line="scores = least.gate_F, least.norm_F, least.least_gate, least.least_written",
        becomes="scores = least.gate_F, least.norm_F, least.least_gate, 0.0",
        tests="tests/model/test_gates.py::test_a_prompt_is_read_by_the_compiled_layer_as_by_its_twin",
    ),
    Fault(
        what="a share of the neurons is learned by a layer that has no gradient",
        file="model/transformer.py",
        line="if native.usable(x_BSD, norm_D) and not torch.is_grad_enabled():",
        becomes="if native.usable(x_BSD, norm_D):",
        tests="tests/model/test_gates.py::test_a_share_of_the_neurons_keeps_its_gradient",
    ),
    Fault(
        what="gates of another checkpoint are taken",
        file="model/gates.py",
        line='if facts.get("checkpoint_digest") != digest_of(folder):',
        becomes="if digest_of(folder) is None:",
        tests="tests/model/test_gates.py::test_gates_that_are_missing_damaged_or_of_another_checkpoint_are_refused",
    ),
    Fault(
        what="gates are measured on windows that score",
        file="verbs/dial_texts.py",
        line="calibrating=windows.pick(rest)",
        becomes="calibrating=windows",
        tests="tests/verbs/test_dial_gates.py::test_gates_are_measured_where_nothing_is_scored_or_on_a_text_of_their_own",
    ),
)
