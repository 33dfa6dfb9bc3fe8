"""Many sequences in one batch of a plain decoder, each as if it were alone."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator
from onnx import TensorProto, helper, numpy_helper
from tiny_models import tiny_llama
from tokenizers import Tokenizer

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import ContextOverflow, ModelUnavailable, RequestRefused
from aiproxy.reference_server.onnx.folders import DEMO, TextFolder, read_folder
from aiproxy.reference_server.onnx.runtime import open_session
from aiproxy.reference_server.onnx.text import runner, slots
from aiproxy.reference_server.onnx.text.decoder import Decoder
from aiproxy.reference_server.onnx.text.generation import Sampling
from aiproxy.reference_server.onnx.text.rows import (
    DeviceStore,
    HostStore,
    PaddedRows,
    SharedRows,
    SingleRows,
)
from aiproxy.reference_server.onnx.text.runner import Grammar, Produced, RunnerLost
from aiproxy.reference_server.onnx.text.slots import SlotRunner, fit, open_slots

CPU = Device()
Answers: TypeAlias = dict[int, list[int]]


@cache
def folder(kind: str) -> TextFolder:
    """``demo`` (scores of the last position, suppressed tokens), ``gqa`` or ``concat``."""
    if kind == "demo":
        found = read_folder(DEMO)
    elif kind == "gqa":
        found = read_folder(tiny_llama(paged=False, cache="gqa"))
    else:
        found = read_folder(tiny_llama(paged=False, cache="concat"))
    assert isinstance(found, TextFolder)
    return found


@pytest.fixture(params=["demo", "gqa", "concat"])
def model(request: pytest.FixtureRequest) -> TextFolder:
    return folder(request.param)


@pytest.fixture
def opened() -> Iterator[Callable[..., SlotRunner]]:
    """``open_slots``; closed at the end."""
    runners: list[SlotRunner] = []

    def open_one(model: TextFolder, **more: Any) -> SlotRunner:
        runners.append(open_slots(model, CPU, **more))
        return runners[-1]

    yield open_one
    for one in runners:
        one.close()


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(np.random.RandomState(seed).randint(10, 900, length).tolist())


def asked(key: int, prompt: tuple[int, ...], most: int = 12, **more: Any) -> runner.Sequence:
    return runner.Sequence(key, prompt, most, **more)


def finished(steps: Sequence[Sequence[Produced]]) -> tuple[Answers, dict[int, str]]:
    """Return the tokens and the ends of each key; nothing may follow an end."""
    tokens: Answers = {}
    ends: dict[int, str] = {}
    for made in itertools.chain.from_iterable(steps):
        assert made.key not in ends
        tokens.setdefault(made.key, []).extend(made.tokens)
        if made.finish is not None:
            ends[made.key] = made.finish
    return tokens, ends


def run_out(open_runner: SlotRunner) -> list[list[Produced]]:
    """Step until nothing comes any more; while a long prompt is read, nothing comes either."""
    steps = [open_runner.step(0)]
    while any(steps[-20:]) or len(steps) < 20:
        assert len(steps) < 2000
        steps.append(open_runner.step(0))
    return steps


def answer(open_runner: SlotRunner, sequence: runner.Sequence) -> tuple[list[int], str]:
    """Return what a sequence gives that has the runner for itself."""
    open_runner.add(sequence)
    tokens, ends = finished(run_out(open_runner))
    return tokens[sequence.key], ends[sequence.key]


@cache
def session_of(graph: Path) -> Any:
    return open_session(graph)


def plain_loop(
    model: TextFolder, prompt: Sequence[int], most: int
) -> tuple[list[int], str, list[Any]]:
    """Return greedy tokens, the end and the scores, from a loop that has nothing but onnxruntime:
    the whole prompt at once, one row, caches as the graph returns them."""
    session = session_of(model.graph)
    pasts = {
        value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past")
    }
    names = {value.name for value in session.get_inputs()}
    outputs = [value.name for value in session.get_outputs()]
    ids, length, said, rows = list(prompt), 0, [], []
    while True:
        length += len(ids)
        feeds: dict[str, Any] = {
            "input_ids": np.array([ids]),
            "attention_mask": np.ones((1, length), np.int64),
            "position_ids": np.arange(length - len(ids), length)[None],
        }
        feeds = {name: value for name, value in feeds.items() if name in names} | pasts
        results = dict(zip(outputs, session.run(outputs, feeds), strict=True))
        scores = results["logits"][0, -1]
        scores[list(model.suppress)] = -np.inf
        token = int(scores.argmax())
        if token in model.ends:
            return said, "stop", rows
        said.append(token)
        rows.append(scores)
        if len(said) == most:
            return said, "length", rows
        ids = [token]
        pasts = {name: results[name.replace("past_key_values", "present")] for name in pasts}


def endless(model: TextFolder) -> TextFolder:
    """Return ``model`` with no token that ends an answer."""
    return replace(model, ends=(), suppress=(*model.suppress, *model.ends))


# --- tokens --------------------------------------------------------------------------------------


def test_sequences_that_come_and_go_are_each_as_alone(
    model: TextFolder, opened: Callable[..., SlotRunner]
) -> None:
    """AIP-CFG-045: staggered arrivals, more sequences than rows, rows used again and again."""
    crowd = opened(model, slots=4)
    assert crowd.style == ("padded" if model is folder("concat") else "shared")
    sequences = [
        asked(at, prompt(at, length), most)
        for at, (length, most) in enumerate(
            zip(
                (5, 1, 30, 2, 17, 9, 60, 3, 140, 12),
                (9, 20, 3, 14, 1, 11, 6, 30, 8, 13),
                strict=True,
            )
        )
    ]
    steps: list[list[Produced]] = []
    for sequence in sequences:
        crowd.add(sequence)
        steps += [crowd.step(0) for _ in range(sequence.key % 4)]
    steps += run_out(crowd)
    tokens, ends = finished(steps)
    wanted = {seq.key: plain_loop(model, seq.prompt, seq.most) for seq in sequences}
    assert tokens == {key: said for key, (said, _, _) in wanted.items()}
    assert ends == {key: end for key, (_, end, _) in wanted.items()}
    assert max(len(step) for step in steps) == 4


def test_dropped_sequences_say_nothing_more_and_leave_the_others_as_they_are(
    model: TextFolder, opened: Callable[..., SlotRunner]
) -> None:
    model = endless(model)
    crowd = opened(model, slots=5)
    sequences = [asked(at, prompt(at + 40, 6 + 7 * at), 25) for at in range(9)]
    for sequence in sequences:
        crowd.add(sequence)
    steps = [crowd.step(0) for _ in range(4)]
    # One of the first rows, the last of them, one that waits, and one that was never there.
    for key in (1, 4, 7, 99):
        crowd.drop(key)
    later = run_out(crowd)
    tokens, ends = finished(steps + later)
    kept = {0, 2, 3, 5, 6, 8}
    assert set(ends) == kept
    assert not {1, 4, 7} & {made.key for step in later for made in step}
    for key in kept:
        assert tokens[key] == plain_loop(model, sequences[key].prompt, 25)[0]
    # All rows are free again, and clean.
    again = [asked(100 + at, prompt(at + 70, 11), 8) for at in range(5)]
    for sequence in again:
        crowd.add(sequence)
    tokens, _ = finished(run_out(crowd))
    assert tokens == {seq.key: plain_loop(model, seq.prompt, 8)[0] for seq in again}


def test_a_long_prompt_is_read_in_pieces_while_the_others_go_on(
    model: TextFolder, opened: Callable[..., SlotRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(slots._PIECE, "cpu", 16)
    model = endless(model)
    crowd = opened(model, slots=4)
    for at in range(3):
        crowd.add(asked(at, prompt(at, 4), 40))
    steps = [crowd.step(0)]
    long = asked(9, prompt(9, 200), 5)
    crowd.add(long)
    steps += [crowd.step(0) for _ in range(6)]
    assert [{made.key for made in step} for step in steps] == [{0, 1, 2}] * 7
    # A row that leaves meanwhile moves the one that is being read.
    crowd.drop(0)
    tokens, ends = finished(steps + run_out(crowd))
    said, end, _ = plain_loop(model, long.prompt, 5)
    assert (tokens[9], ends[9]) == (said, end)
    assert (len(tokens[1]), len(tokens[2])) == (40, 40)


def test_a_prompt_dropped_while_it_is_read_leaves_no_trace(
    model: TextFolder, opened: Callable[..., SlotRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(slots._PIECE, "cpu", 16)
    crowd = opened(model, slots=2)
    crowd.add(asked(1, prompt(1, 150), 5))
    assert crowd.step(0) == []
    crowd.drop(1)
    said, end, _ = plain_loop(model, prompt(2, 40), 7)
    assert answer(crowd, asked(2, prompt(2, 40), 7)) == (said, end)


def test_suppressed_tokens_never_come(opened: Callable[..., SlotRunner]) -> None:
    plain = folder("gqa")
    usual = plain_loop(plain, prompt(1, 9), 10)[0]
    changed = replace(plain, suppress=(usual[0], usual[3], 10**9))
    said, _ = answer(opened(changed), asked(1, prompt(1, 9), 10))
    assert said == plain_loop(replace(changed, suppress=changed.suppress[:2]), prompt(1, 9), 10)[0]
    assert not {usual[0], usual[3]} & set(said)


def test_a_seed_gives_the_same_answer_whatever_else_is_computed(
    model: TextFolder, opened: Callable[..., SlotRunner]
) -> None:
    sampling = Sampling(temperature=0.9, top_p=0.95, seed=11, frequency_penalty=0.3)
    seeded = asked(0, prompt(3, 12), 30, sampling=sampling)
    crowd = opened(endless(model), slots=6)
    alone, _ = answer(crowd, seeded)
    for at in range(1, 6):
        crowd.add(asked(at, prompt(at, 5 * at), 25, sampling=Sampling(temperature=1.3)))
    crowd.step(0)
    crowd.step(0)
    crowd.add(seeded)
    tokens, _ = finished(run_out(crowd))
    assert tokens[0] == alone
    other, _ = answer(crowd, replace(seeded, sampling=replace(sampling, seed=12)))
    assert other != alone


def test_a_frequency_penalty_ends_repetition(opened: Callable[..., SlotRunner]) -> None:
    sampling = Sampling(logit_bias={77: 1000.0}, frequency_penalty=600.0)
    said, _ = answer(opened(endless(folder("gqa"))), asked(1, prompt(1, 5), 9, sampling=sampling))
    assert said.count(77) == 2


def test_log_probabilities_are_those_of_the_model_before_temperature(
    model: TextFolder, opened: Callable[..., SlotRunner]
) -> None:
    said, end, rows = plain_loop(model, prompt(4, 10), 6)
    crowd = opened(model)
    for key, many in ((1, 0), (2, 20), (3, None)):
        crowd.add(asked(key, prompt(4, 10), 6, top_logprobs=many))
    steps = run_out(crowd)
    tokens, ends = finished(steps)
    assert set(ends.values()) == {end}
    assert tokens[1] == tokens[2] == tokens[3] == said
    found = [made for step in steps for made in step if made.tokens]
    assert all(not made.logprobs for made in found if made.key == 3)
    assert all(made.logprobs[0].top == () for made in found if made.key == 1)
    for made, row in zip((made for made in found if made.key == 2), rows, strict=True):
        wide = row.astype(np.float64)
        expected = wide - wide.max() - math.log(np.exp(wide - wide.max()).sum())
        (one,) = made.logprobs
        assert (one.token,) == made.tokens
        assert math.isclose(one.logprob, expected[one.token], abs_tol=1e-3)
        assert len(one.top) == 20
        assert one.top[0] == (one.token, one.logprob)
        assert np.allclose([value for _, value in one.top], np.sort(expected)[::-1][:20], atol=1e-3)


# --- grammars ------------------------------------------------------------------------------------


def random_schema(source: np.random.RandomState, depth: int = 0) -> dict[str, Any]:
    """Return a schema whose documents are short."""
    kinds = ["enum", "integer", "boolean", "string", "null"] + ["object", "array"] * (depth < 2)
    kind = str(source.choice(kinds))
    match kind:
        case "enum":
            return {"enum": [f"w{at}" for at in range(source.randint(1, 5))] + [3, None, True]}
        case "integer":
            return {"type": "integer", "minimum": int(source.randint(-9, 5)), "maximum": 99}
        case "string":
            return {"type": "string", "pattern": "^[a-z]{1,4}$"}
        case "array":
            items = random_schema(source, depth + 1)
            return {"type": "array", "items": items, "minItems": 1, "maxItems": 3}
        case "object":
            fields = {f"f{at}": random_schema(source, depth + 1) for at in range(3)}
            return {
                "type": "object",
                "properties": fields,
                "required": list(fields)[: source.randint(0, 4)],
                "additionalProperties": False,
            }
    return {"type": kind}


def written(model: TextFolder, tokens: Sequence[int]) -> str:
    text: str = Tokenizer.from_file(str(model.tokenizer)).decode(tokens, skip_special_tokens=False)
    return text


@pytest.mark.parametrize("kind", ["demo", "gqa"])
def test_answers_in_random_schemas_are_valid_documents_of_them(
    kind: str, opened: Callable[..., SlotRunner]
) -> None:
    model = folder(kind)
    crowd = opened(model, slots=8)
    source = np.random.RandomState(5)
    schemas = {key: random_schema(source) for key in range(24)}
    for key, schema in schemas.items():
        crowd.add(
            asked(
                key,
                prompt(key, 6),
                200,
                sampling=Sampling(temperature=1.0, seed=key),
                grammar=Grammar("json_schema", json.dumps(schema)),
            )
        )
    tokens, ends = finished(run_out(crowd))
    # Spaces between the parts may use up an answer's tokens; hardly ever do they.
    complete = [key for key, end in ends.items() if end == "stop"]
    assert len(complete) >= 20
    assert set(ends.values()) <= {"stop", "length"}
    for key in complete:
        Draft202012Validator(schemas[key]).validate(json.loads(written(model, tokens[key])))


def test_a_regular_expression_and_a_lark_grammar_hold_beside_a_free_answer(
    opened: Callable[..., SlotRunner],
) -> None:
    model = folder("gqa")
    marker = "<|eot_id|>"
    crowd = opened(model)
    crowd.add(asked(0, prompt(0, 6), 40, grammar=Grammar("regex", "[0-9]{3}-[a-f]{2}")))
    crowd.add(asked(1, prompt(1, 6), 40, grammar=Grammar("lark", 'start: ("yes" | "no") "!"')))
    crowd.add(asked(2, prompt(2, 6), 10))
    crowd.add(asked(3, prompt(3, 6), 80, grammar=Grammar("json_object")))
    crowd.add(asked(4, prompt(4, 6), 9, grammar=Grammar("lark", f'start: "x" {marker} "y"')))
    tokens, ends = finished(run_out(crowd))
    assert re.fullmatch("[0-9]{3}-[a-f]{2}", written(model, tokens[0]))
    assert written(model, tokens[1]) in ("yes!", "no!")
    assert tokens[2] == plain_loop(model, prompt(2, 6), 10)[0]
    assert written(model, tokens[3]).startswith("{")
    # A marker that is an end ends the answer also within a grammar.
    assert (written(model, tokens[4]), ends[4]) == ("x", "stop")
    assert (ends[0], ends[1]) == ("stop", "stop")


def test_a_grammar_is_refused_where_no_grammar_can_be_followed(
    tmp_path: Path, opened: Callable[..., SlotRunner]
) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    crowd = opened(replace(folder("gqa"), tokenizer=tmp_path / "tokenizer.json"))
    assert crowd.traits.grammars == frozenset()
    with pytest.raises(RequestRefused) as refused:
        crowd.add(asked(1, prompt(1, 3), grammar=Grammar("json_object")))
    assert refused.value.param == "response_format"
    full = opened(folder("gqa")).traits
    assert full.grammars == {"json_object", "json_schema", "regex", "lark"}
    assert (full.seeds, full.penalties, full.logit_bias, full.logprobs) == (True,) * 4


# --- graphs of other kinds -----------------------------------------------------------------------


def changed(tmp_path: Path, kind: str, change: Callable[[onnx.ModelProto], None]) -> TextFolder:
    """Return a folder whose graph is one of the tiny ones after ``change``."""
    graph = onnx.load(str(folder(kind).graph))
    change(graph)
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    return replace(folder(kind), graph=tmp_path / "model.onnx")


def add_front(graph: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    for node in reversed(nodes):
        graph.graph.node.insert(0, node)


def rename_input(graph: onnx.ModelProto, name: str, new: str) -> None:
    for node in graph.graph.node:
        for at, used in enumerate(node.input):
            if used == name:
                node.input[at] = new


def rename_output(graph: onnx.ModelProto, name: str, new: str) -> None:
    rename_input(graph, name, new)
    for node in graph.graph.node:
        for at, made in enumerate(node.output):
            if made == name:
                node.output[at] = new


def keep_in(kind: int) -> Callable[[onnx.ModelProto], None]:
    """Return a change that keeps caches and scores in another element type."""

    def change(graph: onnx.ModelProto) -> None:
        front = []
        for value in graph.graph.input:
            if value.name.startswith("past"):
                value.type.tensor_type.elem_type = kind
                rename_input(graph, value.name, value.name + ".wide")
                wide = helper.make_node("Cast", [value.name], [value.name + ".wide"], to=1)
                front.append(wide)
        add_front(graph, *front)
        for value in graph.graph.output:
            value.type.tensor_type.elem_type = kind
            rename_output(graph, value.name, value.name + ".wide")
            narrow = helper.make_node("Cast", [value.name + ".wide"], [value.name], to=kind)
            graph.graph.node.append(narrow)

    return change


@pytest.mark.parametrize("kind", ["gqa", "concat"])
@pytest.mark.parametrize("element", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_caches_and_scores_of_half_precision(
    tmp_path: Path, kind: str, element: int, opened: Callable[..., SlotRunner]
) -> None:
    crowd = opened(changed(tmp_path, kind, keep_in(element)), slots=4)
    batched = {"gqa": "shared", "concat": "padded"}
    # numpy cannot put rows of bfloat16 together.
    single = kind == "concat" and element == TensorProto.BFLOAT16
    assert crowd.style == ("single" if single else batched[kind])
    sequences = [asked(at, prompt(at, 5 + at), 8) for at in range(6)]
    alone = {seq.key: answer(crowd, seq)[0] for seq in sequences}
    for sequence in sequences:
        crowd.add(sequence)
        crowd.step(0)
    exact = [plain_loop(folder(kind), seq.prompt, 1)[0] for seq in sequences]
    assert [tokens[:1] for tokens in alone.values()] == exact
    # The first step of each came before run_out; what follows is as alone.
    tokens, _ = finished(run_out(crowd))
    for key, said in tokens.items():
        assert alone[key][-len(said) :] == said


def test_a_graph_of_one_row_is_computed_row_by_row(
    tmp_path: Path, opened: Callable[..., SlotRunner]
) -> None:
    def one_row(graph: onnx.ModelProto) -> None:
        for value in graph.graph.input:
            value.type.tensor_type.shape.dim[0].dim_value = 1

    crowd = opened(changed(tmp_path, "concat", one_row), slots=3)
    assert (crowd.style, crowd.capacity.slots) == ("single", 3)
    sequences = [asked(at, prompt(at, 4 + 9 * at), 7) for at in range(5)]
    for sequence in sequences:
        crowd.add(sequence)
    steps = run_out(crowd)
    tokens, _ = finished(steps)
    assert tokens == {seq.key: plain_loop(folder("concat"), seq.prompt, 7)[0] for seq in sequences}
    assert len(steps[0]) == 3


def test_a_graph_that_ignores_its_mask_is_not_batched(
    tmp_path: Path, opened: Callable[..., SlotRunner]
) -> None:
    """Padding would be read as text: the trial at opening notices."""

    def deaf(graph: onnx.ModelProto) -> None:
        add_front(
            graph,
            helper.make_node("Equal", ["attention_mask", "attention_mask"], ["all.bool"]),
            helper.make_node("Cast", ["all.bool"], ["all.ones"], to=TensorProto.INT64),
        )
        for node in list(graph.graph.node)[2:]:
            for at, used in enumerate(node.input):
                if used == "attention_mask":
                    node.input[at] = "all.ones"

    deafened = changed(tmp_path, "concat", deaf)
    crowd = opened(deafened)
    assert crowd.style == "single"
    said, _ = answer(crowd, asked(1, prompt(1, 9), 6))
    assert said == plain_loop(folder("concat"), prompt(1, 9), 6)[0]


def test_a_graph_of_two_branches_is_told_which_one(
    tmp_path: Path, opened: Callable[..., SlotRunner]
) -> None:
    """Scores are NaN where the branch asked for does not go with the length of the past."""

    def branch(graph: onnx.ModelProto) -> None:
        graph.graph.input.append(
            helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])
        )
        for name, value in (
            ("branch.nan", np.float32(np.nan)),
            ("branch.two", np.array([2])),
            ("branch.none", np.array([0])),
        ):
            graph.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        rename_output(graph, "logits", "logits.branch")
        past = next(value.name for value in graph.graph.input if value.name.startswith("past"))
        graph.graph.node.extend(
            [
                helper.make_node("Shape", [past], ["past.shape"]),
                helper.make_node("Gather", ["past.shape", "branch.two"], ["past.length"]),
                helper.make_node("Greater", ["past.length", "branch.none"], ["past.any"]),
                helper.make_node("Equal", ["past.any", "use_cache_branch"], ["branch.right"]),
                helper.make_node(
                    "Where", ["branch.right", "logits.branch", "branch.nan"], ["logits"]
                ),
            ]
        )

    crowd = opened(changed(tmp_path, "concat", branch))
    assert crowd.style == "padded"
    said, _ = answer(crowd, asked(1, prompt(1, 9), 6))
    assert said == plain_loop(folder("concat"), prompt(1, 9), 6)[0]


def test_sizes_the_graph_does_not_say_come_from_the_configuration(
    tmp_path: Path, opened: Callable[..., SlotRunner]
) -> None:
    def silent(graph: onnx.ModelProto) -> None:
        for value in (*graph.graph.input, *graph.graph.output):
            shape = value.type.tensor_type.shape.dim
            if len(shape) == 4:
                shape[1].dim_param, shape[3].dim_param = "heads", "size"
            elif value.name == "logits":
                shape[2].dim_param = "vocabulary"

    quiet = changed(tmp_path, "gqa", silent)
    crowd = opened(quiet)
    said, _ = answer(crowd, asked(1, prompt(1, 9), 6))
    assert said == plain_loop(folder("gqa"), prompt(1, 9), 6)[0]
    with pytest.raises(ModelUnavailable, match="sizes of the key-value cache"):
        open_slots(replace(quiet, heads=None), CPU)


# --- a GPU's way of moving rows, on the processor ------------------------------------------------


@pytest.mark.parametrize("kind", ["gqa", "demo"])
def test_rows_are_moved_by_a_graph_where_numpy_cannot_reach_them(kind: str) -> None:
    model = folder(kind)
    decoder = Decoder(open_session(model.graph), model, CPU)
    found = []
    for store in (HostStore, DeviceStore):
        rows = SharedRows(decoder, 3, 64, store)
        for at in range(3):
            rows.begin()
            rows.extend(prompt(at, 6 + at))
            rows.join()
        rows.decode([11, 12, 13])
        rows.remove(0)  # the third takes its place
        rows.begin()
        rows.extend(prompt(8, 9))
        rows.remove(1)  # the newcomer moves
        rows.join()
        found.append([rows.decode([21, 22]).copy(), rows.decode([31, 32]).copy()])
    assert np.array_equal(found[0], found[1])


# --- how much fits -------------------------------------------------------------------------------


def sized(**more: Any) -> slots.Size:
    model = replace(folder("gqa"), context=more.pop("window", 256))
    device = more.pop("device", CPU)
    decoder = Decoder(open_session(model.graph), model, CPU)
    wanted: dict[str, Any] = {"slots": None, "context": None, "cache_tokens": None}
    wanted |= more
    decoder.device = device
    return fit(model, decoder, 1, **wanted)


def test_what_is_asked_for_fits_or_it_is_said_what_does_not() -> None:
    assert sized() == slots.Size(16, 256)
    assert sized(slots=3, context=100) == slots.Size(3, 100)
    assert sized(context=10_000).context == 256
    cut = sized(slots=16, cache_tokens=1000, context=200)
    assert (cut.slots, cut.context) == (5, 200)
    assert "5 sequences at once instead of 16, as kv_cache_tokens" in cut.notes[0]
    shorter = sized(cache_tokens=150, context=200)
    assert (shorter.slots, shorter.context) == (1, 150)
    assert "cut from 200 to 150" in shorter.notes[0]


def test_a_long_context_leaves_room_for_a_few_rows_unless_it_is_asked_for() -> None:
    # 4 kv values of 16 floats in 2 layers: 512 bytes a token; 1 GiB has room for 2 097 152.
    tokens = 2**30 // 512
    found = sized(window=10**6)
    assert (found.slots, found.context) == (4, tokens // 4)
    assert sized(window=10**6, context=10**6).slots == 2
    assert sized(window=10**6, slots=1) == slots.Size(1, 10**6)


def test_a_gpu_gives_the_cache_what_its_limit_says_or_a_share_of_its_memory() -> None:
    gpu = Device("cuda", memory_bytes=2**30)
    assert sized(device=gpu) == slots.Size(32, 256)
    limited = sized(device=replace(gpu, memory_limit=512 * 256 * 5))
    assert (limited.slots, limited.context) == (5, 256)


def test_without_room_for_two_tokens_the_model_is_unavailable() -> None:
    with pytest.raises(ModelUnavailable, match="memory"):
        sized(cache_tokens=1)


def test_memory_that_is_not_there_makes_the_model_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots, "fit", lambda *_: slots.Size(2**20, 2**30))
    with pytest.raises(ModelUnavailable, match="not enough memory"):
        open_slots(folder("gqa"), CPU)


# --- faults --------------------------------------------------------------------------------------


def damaged(graph: onnx.ModelProto) -> None:
    graph.graph.node[0].op_type = "NoSuchOperator"


def foreign_input(graph: onnx.ModelProto) -> None:
    graph.graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1]))


def no_cache(graph: onnx.ModelProto) -> None:
    rename_output(graph, "present.0.key", "elsewhere")
    graph.graph.output[1].name = "elsewhere"


def wrong_type(graph: onnx.ModelProto) -> None:
    keep_in(TensorProto.DOUBLE)(graph)


def not_numbers(graph: onnx.ModelProto) -> None:
    rename_output(graph, "logits", "logits.real")
    graph.graph.initializer.append(numpy_helper.from_array(np.array(np.nan, np.float32), "nan"))
    graph.graph.node.append(helper.make_node("Mul", ["logits.real", "nan"], ["logits"]))


def few_embeddings(graph: onnx.ModelProto) -> None:
    shorten_embedding(graph, 3)


def shorten_embedding(graph: onnx.ModelProto, rows: int) -> None:
    gather = next(node for node in graph.graph.node if "input_ids" in node.input[1:])
    for at, value in enumerate(graph.graph.initializer):
        if value.name == gather.input[0]:
            kept = numpy_helper.to_array(value)[:rows]
            graph.graph.initializer[at].CopyFrom(numpy_helper.from_array(kept, value.name))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (damaged, "damaged or uses unknown operators"),
        (foreign_input, "inputs not known here: pixels"),
        (no_cache, "no usable cache"),
        (wrong_type, "double"),
        (not_numbers, "not numbers"),
        (few_embeddings, "a trial run failed"),
    ],
)
def test_a_graph_that_cannot_serve_makes_the_model_unavailable(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], reason: str
) -> None:
    with pytest.raises(ModelUnavailable, match=reason) as unavailable:
        open_slots(changed(tmp_path, "concat", change), CPU)
    assert str(tmp_path) not in str(unavailable.value)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x08" * 1000])
def test_a_file_that_is_no_graph_makes_the_model_unavailable(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelUnavailable) as unavailable:
        open_slots(replace(folder("gqa"), graph=tmp_path / "model.onnx"), CPU)
    assert str(tmp_path) not in str(unavailable.value)


def test_a_graph_of_something_else_makes_the_model_unavailable(tmp_path: Path) -> None:
    one = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    two = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "other", [one], [two])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ModelUnavailable, match="not a decoder"):
        open_slots(replace(folder("gqa"), graph=tmp_path / "model.onnx"), CPU)


@pytest.mark.parametrize(
    ("sequence", "error"),
    [
        (asked(1, ()), RequestRefused),
        (asked(1, (1, 2), 0), RequestRefused),
        (asked(1, (1, 10**7)), RequestRefused),
        (asked(1, (1, -1)), RequestRefused),
        (asked(1, (1,) * 250, 7), ContextOverflow),
        (asked(1, (1,), sampling=Sampling(temperature=math.nan)), RequestRefused),
        (asked(1, (1,), grammar=Grammar("regex", "((")), RequestRefused),
    ],
)
def test_what_can_never_be_computed_is_refused_and_the_rest_goes_on(
    sequence: runner.Sequence, error: type[Exception], opened: Callable[..., SlotRunner]
) -> None:
    crowd = opened(folder("gqa"))
    crowd.add(asked(0, prompt(0, 5), 6))
    with pytest.raises(error):
        crowd.add(sequence)
    tokens, _ = finished(run_out(crowd))
    assert tokens == {0: plain_loop(folder("gqa"), prompt(0, 5), 6)[0]}


def test_a_whole_context_can_be_used(model: TextFolder, opened: Callable[..., SlotRunner]) -> None:
    crowd = opened(endless(model), slots=2, context=64)
    said, end = answer(crowd, asked(1, prompt(1, 60), 4))
    assert (len(said), end) == (4, "length")


def test_a_sequence_without_any_possible_token_fails_alone(
    opened: Callable[..., SlotRunner],
) -> None:
    model = folder("gqa")
    crowd = opened(replace(model, suppress=tuple(range(512))))
    digits = Grammar("lark", 'start: "0"')
    crowd.add(asked(0, prompt(0, 5), 6, grammar=digits))
    crowd.add(asked(1, prompt(1, 5), 6))
    steps = run_out(crowd)
    _, ends = finished(steps)
    assert ends[0] == "failed"
    assert ends[1] in ("length", "stop")
    assert [made.error for step in steps for made in step if made.key == 0] == [
        "no token has a score"
    ]


def test_a_step_that_fails_loses_all_and_a_restart_begins_anew(
    tmp_path: Path, opened: Callable[..., SlotRunner]
) -> None:
    """A graph that really fails: its embedding has fewer rows than it has scores."""

    crowd = opened(changed(tmp_path, "gqa", lambda graph: shorten_embedding(graph, 900)))
    crowd.add(asked(0, prompt(0, 5), 30))
    crowd.step(0)
    crowd.add(asked(1, (5, 950, 7), 5))
    with pytest.raises(RunnerLost, match="a step failed"):
        run_out(crowd)
    with pytest.raises(RunnerLost):
        crowd.add(asked(2, prompt(2, 5)))
    with pytest.raises(RunnerLost):
        crowd.step(0)
    crowd.drop(0)
    crowd.restart()
    said, _ = answer(crowd, asked(3, prompt(3, 5), 1))
    assert said == plain_loop(folder("gqa"), prompt(3, 5), 1)[0]
    (tmp_path / "model.onnx").write_bytes(b"gone")
    with pytest.raises(RunnerLost, match="damaged"):
        crowd.restart()


def test_a_closed_runner_is_lost_and_may_be_closed_again() -> None:
    crowd = open_slots(folder("gqa"), CPU)
    crowd.add(asked(1, prompt(1, 4)))
    crowd.close()
    crowd.close()
    with pytest.raises(RunnerLost, match="closed"):
        crowd.step(0)
    crowd.drop(1)


def test_every_style_gives_the_scores_of_a_row_alone() -> None:
    """The styles themselves, without the choice among them."""
    for kind, style in (("gqa", SharedRows), ("concat", PaddedRows), ("concat", SingleRows)):
        model = folder(kind)
        decoder = Decoder(open_session(model.graph), model, CPU)
        rows = style(decoder, 3, 32)
        for at in range(3):
            rows.begin()
            rows.extend(prompt(at, 9 - 2 * at))
            rows.join()
        rows.remove(1)
        scores = rows.decode([40, 41])
        for row, (who, token) in enumerate(((0, 40), (2, 41))):
            alone = plain_loop(replace(model, ends=()), (*prompt(who, 9 - 2 * who), token), 1)[2][0]
            assert np.abs(scores[row] - alone).max() < 1e-3
