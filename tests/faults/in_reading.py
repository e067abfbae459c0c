"""Faults of texts, checkpoints and generation."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="new text is decoded without what stands before it",
        file="text/decoding.py",
        line="text, before = self._tokenizer.decode([*self._said, *self._held]), self._before",
        becomes="text, before = self._before + self._tokenizer.decode(self._held), self._before",
        tests="tests/text/test_decoding.py",
    ),
    Fault(
        what="ids that the tokenizer lacks are drawn",
        file="model/greedy.py",
        line='logits_BV[:, self._columns] = float("-inf")',
        becomes="pass",
        tests="tests/serving/test_ending.py",
    ),
    Fault(
        what="the end tokens of config.json come before those of generation_config.json",
        file="serving/ending.py",
        line='("generation_config.json", "config.json")',
        becomes='("config.json", "generation_config.json")',
        tests="tests/serving/test_ending.py",
    ),
    Fault(
        what="any number of bad lines is skipped",
        file="text/bad_lines.py",
        line="if self.bad > MOST_SHARE * self.read:",
        becomes="if False:",
        tests="tests/text/test_documents.py",
    ),
    Fault(
        what="a document of JSON lines is named by its count, so splits change",
        file="text/formats.py",
        line="for number, line in enumerate(lines_of(path), start=1):",
        becomes="for number, line in enumerate(lines_of(path), start=0):",
        tests="tests/text/test_known_digests.py",
    ),
    Fault(
        what="a head of a tied model's own is dropped",
        file="shape/hugging_face/held.py",
        line="elif not same_values(found[EMBEDDING], found[HEAD]):",
        becomes="elif False:",
        tests="tests/model/test_foreign.py::test_a_tied_model_with_another_head_uses_it_and_is_untied",
    ),
    Fault(
        what="the index does not decide which file holds a tensor",
        file="shape/hugging_face/files.py",
        line="[entry for entry in held if entry.file.name == indexed]",
        becomes="held",
        tests="tests/model/test_foreign.py::test_the_index_decides_which_file_holds_a_tensor",
    ),
    Fault(
        what="memory of a layer that was read from its file stays with the process",
        file="model/far.py",
        line="            give_back_memory()\n",
        becomes="",
        tests="tests/model/test_far.py::test_the_memory_of_each_layer_is_given_back",
    ),
    Fault(
        what="freed memory stays with the process",
        file="machine/hardware.py",
        line="trim(0)",
        becomes="pass",
        tests="tests/machine/test_hardware.py",
    ),
    Fault(
        what="the router is rounded with the matrices",
        file="model/narrow.py",
        line='EXACT = ("w_router_DE", "w_shared_gate_D1")',
        becomes='EXACT = ("w_shared_gate_D1",)',
        tests="tests/model/test_narrow.py::test_matrices_are_held_as_a_folder_has_them_and_all_else_in_float32",
    ),
    Fault(
        what="weights in float32 are rounded unasked",
        file="model/checkpoint.py",
        line='as_stored = native.kind("cpu") == "compiled" and stored_in_bfloat16(checkpoint.tensors)',
        becomes="as_stored = True",
        tests="tests/model/test_narrow.py::test_one_matrix_in_float32_keeps_a_folder_in_float32_unless_told_otherwise",
    ),
    Fault(
        what="the cache is in the type of the weights",
        file="model/decoder.py",
        line="slots, length, model.norm_D.device, model.norm_D.dtype)",
        becomes="slots, length, model.norm_D.device, model.table_VD.dtype)",
        tests="tests/model/test_narrow.py",
    ),
    Fault(
        what="where something learns, a kernel without a gradient multiplies by weights in bfloat16",
        file="kernels/narrow.py",
        line="return not torch.is_grad_enabled() and native.usable(x)",
        becomes="return native.usable(x)",
        tests="tests/model/test_narrow.py::test_whole_sequences_are_read_as_in_float32_also_where_something_learns",
    ),
    Fault(
        what="the last weights in bfloat16 of a row are half read",
        file="kernels/csrc/weights.h",
        line="lanes == LANES ? sizeof v : sizeof(uint16_t) * lanes",
        becomes="lanes == LANES ? sizeof v : (size_t)lanes",
        tests="tests/model/test_narrow.py",
    ),
    Fault(
        what="downs of the first neurons stand for those of later ones",
        file="kernels/csrc/decode_gates.h",
        line="rows_of(layer->w_down, kept + i + NEURONS, left, d, half, next);",
        becomes="rows_of(layer->w_down, kept, left, d, half, next);",
        tests="tests/model/test_narrow.py::test_a_share_of_the_neurons_is_that_of_float32",
    ),
    Fault(
        what="what an open quote of a CSV file swallows counts as one line",
        file="text/formats.py",
        line="lines.lose(row.lines - 1)",
        becomes="pass",
        tests="tests/text/test_formats.py::test_the_lines_that_an_open_quote_swallows_are_lost_lines",
    ),
    Fault(
        what="files too large for a held-out split are never held out",
        file="text/splits.py",
        line="if long or not large or set(HELD_OUT) <= set(assign(sizes).values()):",
        becomes="if True:",
        tests="tests/text/test_splits.py",
    ),
    Fault(
        what="parts of larger matrices are copied as if they lay alone",
        file="kernels/csrc/transpose.c",
        line="some = at_most(BLOCK, rows - i), from = i * values_row;",
        becomes="some = at_most(BLOCK, rows - i), from = i * columns;",
        tests="tests/kernels/test_transposed.py",
    ),
)
