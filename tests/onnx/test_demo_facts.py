"""What the demo model would be trained on from the present specification: buildable and unambiguous."""

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from aiproxy.spec import HEADERS, schema

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from demo_model.questions import Corpus

    return Corpus()


def test_every_header_and_configuration_section_has_its_facts(corpus: Any) -> None:
    answers = "\n".join(corpus.answers())
    assert [name for name in HEADERS if f"{name} is a" not in answers] == []
    sections = schema("config")["properties"]
    assert [name for name in sections if name != "mesh" and f"{name} " not in answers] == []


def test_no_question_has_two_answers(corpus: Any) -> None:
    from demo_model.facts import fold
    from demo_model.phrasings import TEMPLATES, worded

    answers = defaultdict(set)
    for fact in corpus.facts:
        trained, held = TEMPLATES[fact.group]
        worded_all = [worded(t, s) for t in (*trained, *held) for s in fact.subjects]
        for question in (*worded_all, *fact.direct):
            answers[fold(question)].add(fact.answer)
    assert {question: said for question, said in answers.items() if len(said) > 1} == {}


def test_held_out_wordings_are_never_trained(corpus: Any) -> None:
    from demo_model.facts import fold

    held = {fold(pair.question) for pair in corpus.held}
    source = random.Random(1)
    trained = {fold(pair.question) for _ in range(5) for pair in corpus.epoch(source)}
    assert held & trained == set()
    assert len(held) > 1000
