"""Local embedding models: vectors against a reference, OpenAI's forms, and what is refused.

The tiny model is a two-layer BERT with random weights; its reference is plain numpy.
"""

import asyncio
import base64
import json

import bert_graph
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from aiproxy.reference_server.onnx.bodies.embeddings import embed
from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import LocalError, ModelUnavailable, RequestRefused
from aiproxy.reference_server.onnx.folders import read_folder
from aiproxy.reference_server.onnx.vectors.embedding import open_embedding, unit

req = pytest.mark.requirement
TEXTS = ["hello world", "a", "the quick brown fox", "abc", "zebra zoo"]
CPU = Device()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bert_graph.write_tiny(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def opened():
    """``opened(folder, **options)``: an embedding model, closed at the end."""
    made = []

    def build(path, **options):
        made.append(open_embedding(read_folder(path), CPU, **options))
        return made[-1]

    yield build
    for model in made:
        model.close()


def reference(rows, pooling="mean", *, normalize=True):
    """The vectors of rows of token ids, each computed alone in numpy."""
    states = [
        bert_graph.bert_numpy(bert_graph.tiny_weights(), bert_graph.TINY_HEADS, r) for r in rows
    ]
    take = {"mean": lambda s: s.mean(0), "cls": lambda s: s[0], "last": lambda s: s[-1]}[pooling]
    found = np.stack([take(s) for s in states])
    return unit(found) if normalize else found


def asked(model, **body):
    return asyncio.run(embed(model, {"model": "m", **body}))


def vectors(answer):
    return np.array([row["embedding"] for row in answer["data"]])


@req("AIP-API-017")
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_vectors_agree_with_the_reference(tmp_path, opened, pooling, normalize):
    """Batched and padded as they are: the padding never shows."""
    model = opened(
        bert_graph.write_tiny(tmp_path, pooling=pooling, normalize=normalize), max_batch=3
    )
    assert (model.pooling, model.normalize, model.max_length) == (pooling, normalize, 24)
    rows = asyncio.run(model.tokens(TEXTS))
    found = vectors(asked(model, input=TEXTS))
    assert np.abs(found - reference(rows, pooling, normalize=normalize)).max() < 1e-5
    assert model.batcher.batches == 2


def test_the_configuration_stands_before_the_folder(folder, opened):
    model = opened(folder, pooling="cls", normalize=False)
    rows = asyncio.run(model.tokens(TEXTS))
    found = vectors(asked(model, input=TEXTS))
    assert np.abs(found - reference(rows, "cls", normalize=False)).max() < 1e-5


@pytest.mark.parametrize(
    "shape",
    [{"pooled": True}, {"rows": 2}, {"columns": 24}, {"rows": 3, "columns": 24, "pooled": True}],
)
def test_graphs_that_pool_themselves_or_have_fixed_sizes(tmp_path, opened, shape):
    model = opened(bert_graph.write_tiny(tmp_path, **shape))
    rows = asyncio.run(model.tokens(TEXTS))
    assert np.abs(vectors(asked(model, input=TEXTS)) - reference(rows)).max() < 1e-5


def test_truncation_and_padding_of_the_tokenizer_file_are_not_used(folder, opened):
    """The file cuts at 6 tokens and pads to 6, as published ones do at 128."""
    stored = json.loads((folder / "tokenizer.json").read_text())
    assert stored["truncation"]["max_length"] == 6
    assert stored["padding"]["strategy"] == {"Fixed": 6}
    rows = asyncio.run(opened(folder).tokens(["a", "abcdefghij"]))
    assert [len(row) for row in rows] == [3, 12]


def test_markers_in_a_text_are_text(folder, opened):
    model = opened(folder)
    [row] = asyncio.run(model.tokens(["[SEP] a [CLS]"]))
    assert row.count(2) == row.count(3) == 1  # those of the template


@pytest.mark.parametrize("count", [1, 3])
def test_every_form_of_input(folder, opened, count):
    model = opened(folder)
    rows = asyncio.run(model.tokens(TEXTS[:count]))
    lists = [list(row) for row in rows]
    texts = vectors(asked(model, input=TEXTS[:count]))
    assert np.allclose(vectors(asked(model, input=lists)), texts, atol=1e-6)
    if count == 1:
        assert np.allclose(vectors(asked(model, input=TEXTS[0])), texts, atol=1e-6)
        assert np.allclose(vectors(asked(model, input=lists[0])), texts, atol=1e-6)


def test_the_answer_has_openais_shape_and_counts_tokens(folder, opened):
    answer = asked(opened(folder), input=["ab", "c"], user="u", encoding_format=None)
    assert set(answer) == {"object", "data", "model", "usage"}
    assert [(row["object"], row["index"]) for row in answer["data"]] == [
        ("embedding", 0),
        ("embedding", 1),
    ]
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


def test_base64_is_the_same_numbers(folder, opened):
    model = opened(folder)
    plain = vectors(asked(model, input=TEXTS))
    packed = asked(model, input=TEXTS, encoding_format="base64")["data"]
    found = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in packed]
    assert np.array_equal(np.stack(found), plain.astype("<f4"))


@pytest.mark.parametrize("normalize", [True, False])
def test_fewer_dimensions_are_the_first_ones(folder, opened, normalize):
    model = opened(folder, normalize=normalize)
    whole, short = (vectors(asked(model, input=TEXTS, dimensions=n)) for n in (16, 5))
    assert short.shape == (5, 5)
    assert np.allclose(short, unit(whole[:, :5]) if normalize else whole[:, :5], atol=1e-6)
    assert np.allclose(np.linalg.norm(short, axis=1), 1, atol=1e-5) == normalize


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "input"),
        ({"input": 5}, "invalid_type", "input"),
        ({"input": ""}, "invalid_value", "input"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": ["a", ""]}, "invalid_value", "input[1]"),
        ({"input": ["a", 5]}, "invalid_type", "input[1]"),
        ({"input": [5, "a"]}, "invalid_type", "input"),
        ({"input": [[1], ["a"]]}, "invalid_type", "input[1]"),
        ({"input": [True]}, "invalid_type", "input"),
        ({"input": [[]]}, "invalid_value", "input"),
        ({"input": [999]}, "invalid_value", "input"),
        ({"input": [[1], [-1]]}, "invalid_value", "input[1]"),
        ({"input": "a \ud800"}, "invalid_value", "input"),
        ({"input": ["a"] * 2049}, "invalid_value", "input"),
        ({"input": "a" * 23}, "context_length_exceeded", "input"),
        ({"input": ["a", "b" * 500]}, "context_length_exceeded", "input[1]"),
        ({"input": [4] * 25}, "context_length_exceeded", "input"),
        ({"input": "a", "encoding_format": "hex"}, "invalid_value", "encoding_format"),
        ({"input": "a", "dimensions": 0}, "invalid_value", "dimensions"),
        ({"input": "a", "dimensions": 17}, "invalid_value", "dimensions"),
        ({"input": "a", "dimensions": "5"}, "invalid_type", "dimensions"),
        ({"input": "a", "dimensions": True}, "invalid_type", "dimensions"),
    ],
)
def test_what_is_refused(folder, opened, body, code, param):
    """Nothing is cut silently: a text that is too long is refused, as OpenAI does."""
    model = opened(folder)
    with pytest.raises(RequestRefused) as refused:
        asked(model, **body)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, code, param)
    assert len(asked(model, input="a")["data"]) == 1


def test_the_longest_input_is_taken(folder, opened):
    assert asked(opened(folder), input="a" * 22)["usage"]["prompt_tokens"] == 24


def test_thousands_of_inputs_in_one_call(folder, opened):
    model = opened(folder, max_batch=64, max_batch_tokens=512)
    texts = ["a" * (1 + n % 20) for n in range(2048)]
    answer = asked(model, input=texts)
    assert [row["index"] for row in answer["data"]] == list(range(2048))
    found = vectors(answer)
    assert np.allclose(found[:20], found[2020:2040], atol=1e-5)
    assert np.abs(found[:20] - reference(asyncio.run(model.tokens(texts[:20])))).max() < 1e-5


# --- folders that cannot be served ---------------------------------------------------------------


def single(path, inputs, output, shape):
    """A graph that passes its first input on."""
    values = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "s"]) for n in inputs]
    out = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
    node = helper.make_node("Cast", [inputs[0]], [output], to=TensorProto.FLOAT)
    graph = helper.make_graph([node], "g", values, [out])
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [(["input_ids", "past_key_values.0.key"], "past_key_values"), (["tokens"], "input_ids")],
)
def test_a_graph_with_other_inputs_is_refused_by_name(tmp_path, inputs, words):
    bert_graph.write_tiny(tmp_path)
    folder = read_folder(tmp_path)
    single(tmp_path / "model.onnx", inputs, "sentence_embedding", ["b", "s"])
    with pytest.raises(ModelUnavailable, match=words):
        open_embedding(folder, CPU)


def test_a_tokenizer_of_another_model_is_noticed_at_load(tmp_path):
    """Its ids go beyond the table of the graph."""
    bert_graph.write_tiny(tmp_path)
    stored = json.loads((tmp_path / "tokenizer.json").read_text())
    stored["model"]["vocab"]["q"] = 4000
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))
    with pytest.raises(ModelUnavailable, match="token 4000") as refused:
        open_embedding(read_folder(tmp_path), CPU)
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.onnx"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\x80\x04junk"])
def test_a_missing_or_damaged_file(tmp_path, name, content):
    bert_graph.write_tiny(tmp_path)
    folder = read_folder(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelUnavailable) as refused:
        open_embedding(folder, CPU)
    assert str(tmp_path) not in str(refused.value)


def test_a_vector_that_is_no_number_never_reaches_a_client(tmp_path):
    weights = dict(bert_graph.tiny_weights())
    bert_graph.write_tiny(tmp_path)
    weights["embeddings.word_embeddings.weight"] = weights[
        "embeddings.word_embeddings.weight"
    ].copy()
    weights["embeddings.word_embeddings.weight"][bert_graph.WORDS.index("q")] = np.nan
    onnx.save(bert_graph.build_bert(weights, bert_graph.TINY_HEADS), tmp_path / "model.onnx")
    model = open_embedding(read_folder(tmp_path), CPU)
    try:
        with pytest.raises(LocalError) as failed:
            asked(model, input=["a", "q"])
        assert failed.value.status == 500
        assert len(asked(model, input="a")["data"]) == 1
    finally:
        model.close()
