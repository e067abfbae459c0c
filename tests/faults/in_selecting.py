"""Faults of leaving data out."""

from __future__ import annotations

from tests.faults.fault import Fault

FAULTS = (
    Fault(
        what="a near-duplicate pair across splits",
        file="selection/duplicates.py",
        line='if self._splits[number] == "train" and twins:',
        becomes='if self._splits[number] == "train" and twins and self._splits[twins[0].document] == "train":',
        tests="tests/selection/test_duplicates.py",
    ),
    Fault(
        what="a held-out document is left out as a copy",
        file="selection/duplicates.py",
        line='if self._splits[number] == "train" and twins:',
        becomes="if twins:",
        tests="tests/selection/test_duplicates.py",
    ),
    Fault(
        what="a held-out document is selected from",
        file="selection/choosing.py",
        line='if split == "train" and number not in removed',
        becomes="if split is not None and number not in removed",
        tests="tests/selection/test_choosing.py",
    ),
    Fault(
        what="a count that differs with the number of workers",
        file="selection/in_order.py",
        line="under_way.popleft()",
        becomes="under_way.pop()",
        tests="tests/selection/test_duplicates.py::test_the_number_of_workers_changes_nothing",
    ),
    Fault(
        what="candidates are taken for copies without a check",
        file="selection/duplicates.py",
        line="return [match for match in close if match.jaccard >= threshold]",
        becomes="return close",
        tests="tests/selection/test_duplicates.py",
    ),
    Fault(
        what="of a chain the last one goes, too, and no twin of it stays",
        file="selection/duplicates.py",
        line="self._remove(number, twins[0], exact=sketch.digest in self._seen)",
        becomes="self._remove(number, twins[0], sketch.digest in self._seen); self._index.add(number, sketch)",
        tests="tests/selection/test_duplicates.py::test_in_a_chain_what_is_like_none_that_stays_stays",
    ),
    Fault(
        what="a selection of originals that were changed is believed",
        file="text/selected.py",
        line="if reading.digest != self.record.text_digest:",
        becomes="if False:",
        tests="tests/text/test_selected.py",
    ),
    Fault(
        what="a selection's manifest decides over held-out text",
        file="text/selected.py",
        line='if now != (split if kept or split == "train" else None):',
        becomes="if False:",
        tests="tests/text/test_selected.py",
    ),
)
