"""Faults of what ranks share: who owns a weight, what is sent, and the state that all of them save."""

from __future__ import annotations

from tests.faults.fault import Fault

RANKS = "tests/training/test_ranks.py"
EXCHANGE = "tests/training/test_exchange.py"

FAULTS = (
    Fault(
        what="the norm counts a rank's own share of the gradient alone",
        file="training/ranks.py",
        line="figures[1].sqrt()",
        becomes="own + 0 * figures[1].sqrt()",  # all the same, all or none take a step: nobody waits for others
        tests=f"{RANKS}::test_two_ranks_train_as_one_does_up_to_rounding",
    ),
    Fault(
        what="an owner's new weights are not sent",
        file="training/exchange.py",
        line="_copy([(_slot(own, piece), self._values(piece)) for piece in mine])",
        becomes="own.zero_()",
        tests=f"{RANKS}::test_two_ranks_train_as_one_does_up_to_rounding",
    ),
    Fault(
        what="gradients are added up over the ranks, not averaged",
        file="training/exchange.py",
        line="1 / self._ranks.count",
        becomes="1.0",
        tests=f"{RANKS}::test_two_ranks_train_as_one_does_up_to_rounding",
    ),
    Fault(
        what="a message of several overwrites the one before",
        file="training/messages.py",
        line="first += size",
        becomes="first += part.last",
        tests=f"{EXCHANGE}::test_messages_carry_every_value_once_and_know_the_last_of_each_weight",
    ),
    Fault(
        what="a rank has two parts of a weight, of which one replaces the other",
        file="training/owners.py",
        line="return cost.weight in self.parts, *loads",
        becomes="return False, *loads",
        tests=f"{RANKS}::test_every_value_has_one_owner_and_no_rank_has_two_parts_of_a_weight",
    ),
    Fault(
        what="all divided weights leave their longer parts to the first ranks",
        file="training/owners.py",
        line="loads[(place + cost.weight) % count].add(piece)",
        becomes="loads[place].add(piece)",
        tests=f"{RANKS}::test_the_rest_of_divided_weights_goes_round",
    ),
    Fault(
        what="the saved state lacks the other ranks' moments",
        file="training/ranks.py",
        line="yield label, tensor",
        becomes="pass",
        tests=f"{RANKS}::test_all_ranks_hold_the_same_weights_and_figures_bit_for_bit",
    ),
    Fault(
        what="a rank takes the first values of a moment, whichever it owns",
        file="training/resume.py",
        line="moment = moment.view(-1)[held.first : held.first + size.numel()].view(size)",
        becomes="moment = moment.view(-1)[: size.numel()].view(size)",
        tests=f"{RANKS}::test_a_state_that_two_ranks_saved_is_resumed_by_one_and_by_three",
    ),
    Fault(
        what="an error of the first rank's disk stays with it",
        file="training/ranks.py",
        line="if said[0] is not None:",
        becomes="if said[0] is not None and self.index == 0:",
        tests=f"{RANKS}::test_a_full_disk_of_the_first_is_the_same_error_on_all_ranks",
    ),
    Fault(
        what="a rank starts anew where the others resume",
        file="training/resume.py",
        line="if any(ranks.sums([ranks.first(step) != step])):",
        becomes="if any(ranks.sums([0.0])):",
        tests=f"{RANKS}::test_a_state_that_not_all_ranks_find_is_refused_by_all",
    ),
    Fault(
        what="each rank reads its steps by its own clock",
        file="training/loop.py",
        line="seconds = ranks.first(seconds)",
        becomes="pass",
        tests=f"{RANKS}::test_ranks_read_their_steps_together_by_the_firsts_clock",
    ),
    Fault(
        what="the copies that a rank's optimizer does not write keep the old weights",
        file="training/exchange.py",
        line="return self._weights[piece.weight].detach().view(-1)",
        becomes="return self._weights[piece.weight].data.view(-1)",
        tests=f"{RANKS}::test_steps_as_a_gpu_takes_them_are_one_devices",
    ),
    Fault(
        what="messages wait for the end of the backward pass",
        file="training/exchange.py",
        line="while self._begun < len(self._messages) and not self._missing[self._begun]:",
        becomes="while False:",
        tests=f"{RANKS}::test_messages_go_while_the_backward_pass_goes_on",
    ),
    Fault(
        what="a message goes before all of its gradients are there",
        file="training/exchange.py",
        line="missing.discard(weight)",
        becomes="missing.clear()",
        tests=f"{EXCHANGE}::test_each_gradient_is_sent_to_its_owner_or_kept",
    ),
    Fault(
        what="gradients that have gone to their owners are kept",
        file="training/exchange.py",
        line="holder.grad = None",
        becomes="pass",
        tests=f"{EXCHANGE}::test_each_gradient_is_sent_to_its_owner_or_kept",
    ),
    Fault(
        what="all messages of a step are under way at once",
        file="training/exchange.py",
        line="self.end(most=AHEAD - 1)",
        becomes="pass",
        tests=f"{RANKS}::test_a_dry_run_counts_what_each_rank_really_holds_and_sends",
    ),
    Fault(
        what="a gradient of two messages is dropped after the first",
        file="training/messages.py",
        line="lasts[part.weight] = max(message, lasts.get(part.weight, 0))",
        becomes="lasts[part.weight] = min(message, lasts.get(part.weight, number))",
        tests=f"{EXCHANGE}::test_messages_carry_every_value_once_and_know_the_last_of_each_weight",
    ),
    Fault(
        what="all gradients wait for those of multi-token prediction",
        file="training/messages.py",
        line='name.startswith("predictions.")',
        becomes='not name.startswith("predictions.")',
        tests=f"{RANKS}::test_messages_go_from_the_head_down_to_the_embedding",
    ),
    Fault(
        what="of three ranks an owner adds up two",
        file="training/exchange.py",
        line="total += _slot(row, piece)",
        becomes="pass",
        tests=f"{RANKS}::test_three_ranks_train_as_two_do_up_to_rounding",
    ),
    Fault(
        what="hooks of a step stay for the next",
        file="model/working.py",
        line="hook.remove()",
        becomes="pass",
        tests="tests/model/test_working.py::test_each_gradient_is_told_once_and_only_while_somebody_listens",
    ),
)
