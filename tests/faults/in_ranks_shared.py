"""Faults of what ranks share: who owns a weight, what is sent, and the state that all of them save."""

from __future__ import annotations

from tests.faults.fault import Fault

RANKS = "tests/training/test_ranks.py"

FAULTS = (
    Fault(
        what="the norm counts a rank's own share of the gradient alone",
        file="training/ranks.py",
        line="figures[1].sqrt()",
        becomes="own + 0 * figures[1].sqrt()",  # all the same, all or none take a step: nobody waits for others
        tests=RANKS,
    ),
    Fault(
        what="an owner's new weights are not sent",
        file="training/exchange.py",
        line="_copy([(_slot(own, piece), self._values(piece)) for piece in self._mine(message)])",
        becomes="_copy([])",
        tests=RANKS,
    ),
    Fault(
        what="gradients are added up over the ranks, not averaged",
        file="training/exchange.py",
        line=".div_(self._ranks.count)",
        becomes="",
        tests=RANKS,
    ),
    Fault(
        what="a message of several overwrites the one before",
        file="training/exchange.py",
        line="first += size",
        becomes="first += part.last",
        tests=f"{RANKS}::test_small_messages_carry_the_same_as_one",
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
        tests=RANKS,
    ),
    Fault(
        what="a rank takes the first values of a moment, whichever it owns",
        file="training/resume.py",
        line="moment = moment.view(-1)[held.first : held.first + size.numel()].view(size)",
        becomes="moment = moment.view(-1)[: size.numel()].view(size)",
        tests=RANKS,
    ),
    Fault(
        what="an error of the first rank's disk stays with it",
        file="training/ranks.py",
        line="if said[0] is not None:",
        becomes="if said[0] is not None and self.index == 0:",
        tests=RANKS,
    ),
    Fault(
        what="a rank starts anew where the others resume",
        file="training/resume.py",
        line="if any(ranks.sums([ranks.first(step) != step])):",
        becomes="if any(ranks.sums([0.0])):",
        tests=RANKS,
    ),
    Fault(
        what="each rank reads its steps by its own clock",
        file="training/loop.py",
        line="seconds = ranks.first(seconds)",
        becomes="pass",
        tests=RANKS,
    ),
    Fault(
        what="the copies that a rank's optimizer does not write keep the old weights",
        file="training/exchange.py",
        line="return self._weights[piece.weight].detach().view(-1)",
        becomes="return self._weights[piece.weight].data.view(-1)",
        tests=RANKS,
    ),
)
