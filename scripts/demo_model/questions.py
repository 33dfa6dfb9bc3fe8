"""Question-answer pairs: for training, endless and varied; for measuring, from held-out wordings."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from demo_model.elsewhere import HELD_OUT, TEMPLATES_ELSEWHERE, foreign_question, held_out_question
from demo_model.facts import Fact, facts, fold
from demo_model.guide import REFUSAL
from demo_model.phrasings import TEMPLATES, reworded, slipped, varied, worded

ROUNDS = 4  # wordings of one fact in an epoch
ROUNDS_DIRECT = 16  # of a fact that has no templates, only questions of its own
ELSEWHERE_SHARE = 0.28
REWORDED_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Pair:
    family: str
    question: str
    answer: str


def held_count(fact: Fact) -> int:
    return max(1, math.ceil(len(fact.direct) * 0.2)) if len(fact.direct) > 4 else 0


def trained_direct(fact: Fact) -> tuple[str, ...]:
    return fact.direct[: len(fact.direct) - held_count(fact)]


class Corpus:
    """All facts, split into what may be trained and what is held out."""

    def __init__(self) -> None:
        self.facts = facts()
        known = {fold(question) for fact in self.facts for question in trained_direct(fact)}
        held = [pair for fact in self.facts for pair in self._held_questions(fact)]
        self.held = tuple(pair for pair in held if fold(pair.question) not in known)
        self._forbidden = frozenset(fold(pair.question) for pair in self.held)

    def answers(self) -> tuple[str, ...]:
        return (*dict.fromkeys(fact.answer for fact in self.facts), REFUSAL)

    def epoch(self, source: random.Random) -> Iterator[Pair]:
        """Yield each fact in ``ROUNDS`` wordings, and questions about anything else."""
        total = 0
        for fact in self.facts:
            for _ in range(ROUNDS if TEMPLATES[fact.group][0] else ROUNDS_DIRECT):
                total += 1
                yield self._trained(fact, source)
        for _ in range(int(total * ELSEWHERE_SHARE)):
            yield Pair("elsewhere", varied(foreign_question(source), source), REFUSAL)

    def _trained(self, fact: Fact, source: random.Random) -> Pair:
        trained, _ = TEMPLATES[fact.group]
        known = trained_direct(fact)
        if known and (not trained or source.random() < 0.5):
            question = source.choice(known)
            if " " in question and source.random() < REWORDED_SHARE:
                question = reworded(question, source)
        else:
            question = worded(source.choice(trained), source.choice(fact.subjects))
        question = varied(question, source)
        if fold(question) in self._forbidden:
            question = worded(trained[0], fact.subjects[0]) if trained else known[0]
        return Pair(fact.family, question, fact.answer)

    def _held_questions(self, fact: Fact) -> list[Pair]:
        _, held = TEMPLATES[fact.group]
        source = random.Random(fact.answer)
        asked = [worded(template, source.choice(fact.subjects)) for template in held]
        asked += fact.direct[len(fact.direct) - held_count(fact) :]
        return [Pair(fact.family, question, fact.answer) for question in asked]

    def held_foreign(self, source: random.Random, each: int = 12) -> Iterator[Pair]:
        for template in TEMPLATES_ELSEWHERE[-HELD_OUT:]:
            for question in dict.fromkeys(held_out_question(template, source) for _ in range(each)):
                yield Pair("elsewhere", question, REFUSAL)

    def mistyped(self, pairs: Sequence[Pair], source: random.Random) -> Iterator[Pair]:
        for pair in pairs:
            yield Pair(pair.family, slipped(pair.question, source), pair.answer)
