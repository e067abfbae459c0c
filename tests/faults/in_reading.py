"""Faults of texts, checkpoints and generation."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="new text is decoded without what stands before it",
        file="text/decoding.py",
        line="text = tokenizer.decode([*said, *held])",
        becomes="text = before + tokenizer.decode(held)",
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
)
