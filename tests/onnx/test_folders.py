"""Reading model folders: what each kind is, what the files say, and everything that is wrong."""

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from bert_graph import write_tiny
from onnx import TensorProto, helper, numpy_helper
from tiny_images import LABELS, write_classifier, write_clip
from tiny_models import make_tiny_llama, tiny_llama

from aiproxy.reference_server.onnx import ModelUnavailable
from aiproxy.reference_server.onnx.folders import (
    DEMO,
    DEMO_FOLDER,
    TextFolder,
    VectorFolder,
    capabilities_of,
    read_folder,
)
from aiproxy.reference_server.onnx.folders.graphs import read_graph
from aiproxy.reference_server.onnx.text.generation import Sampling

np = pytest.importorskip("numpy")


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A private copy of the bundled model, without its recorded hashes."""
    copy = tmp_path / "secret-place"
    shutil.copytree(DEMO_FOLDER, copy)
    (copy / "SHA256SUMS").unlink()
    return copy


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A private decoder in the layout of transformers' exporters."""
    return make_tiny_llama(tmp_path / "secret-place", paged=False, cache="concat")


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def reason_of(path: Path | str, **given: Any) -> str:
    with pytest.raises(ModelUnavailable) as unavailable:
        read_folder(path, **given)
    assert "secret-place" not in str(unavailable.value)
    return unavailable.value.reason


def change(path: Path, **keys: Any) -> None:
    """Set keys of a JSON file; None takes one out."""
    document = json.loads(path.read_text()) if path.exists() else {}
    document |= keys
    path.write_text(json.dumps({key: at for key, at in document.items() if at is not None}))


def write_graph(
    path: Path, inputs: dict[str, Any], outputs: dict[str, Any], kind: int = TensorProto.INT64
) -> Path:
    """Write a graph that has these inputs and outputs and gives zeros; shapes are lists."""
    nodes = []
    for name, shape in outputs.items():
        size = [at if isinstance(at, int) else 1 for at in shape]
        zeros = numpy_helper.from_array(np.zeros(size, np.float32), name)
        nodes.append(helper.make_node("Constant", [], [name], value=zeros))
    images = {"pixel_values": TensorProto.FLOAT}
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info(n, images.get(n, kind), s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_the_bundled_model() -> None:
    folder = read_folder(DEMO)
    assert isinstance(folder, TextFolder)
    assert (folder.kind, folder.name, folder.context) == ("decoder", "aiproxy-demo", 512)
    assert (folder.ends, folder.suppress, folder.vocabulary) == ((4,), (0, 1, 2, 3), 2560)
    assert (folder.heads, folder.head_size, folder.layers) == (2, 32, 3)
    assert folder.chat is not None
    assert folder.template is None
    assert folder.bytes == (DEMO_FOLDER / "model.onnx").stat().st_size


@pytest.mark.parametrize(("paged", "name"), [(False, "plain"), (True, "paged")])
def test_a_folder_of_onnxruntime_genai(paged: bool, name: str) -> None:
    folder = read_folder(tiny_llama(paged=paged))
    assert isinstance(folder, TextFolder)
    assert (folder.kind, folder.paged, folder.cuda_only) == ("genai", paged, False)
    assert (folder.context, folder.ends, folder.begin, folder.pad) == (
        256,
        (1013, 1014),
        1012,
        1017,
    )
    assert (folder.heads, folder.head_size, folder.layers, folder.vocabulary) == (2, 16, 2, 1024)
    assert folder.template is not None
    assert folder.special["eos_token"] == "<|eot_id|>"
    assert capabilities_of(folder) == ("text-generation",)


def test_a_decoder_as_transformers_exporters_write_it(llama: Path) -> None:
    folder = read_folder(llama)
    assert isinstance(folder, TextFolder)
    assert (folder.kind, folder.context, folder.ends) == ("decoder", 256, (1013, 1014))
    assert (folder.heads, folder.head_size, folder.layers) == (2, 16, 2)
    whole, bare = folder, read_folder(llama / "model.onnx")
    assert whole.fingerprint == bare.fingerprint


def test_a_bare_file_of_a_genai_folder_is_that_folder() -> None:
    root = tiny_llama(paged=True)
    assert read_folder(root / "model.onnx") == read_folder(root)


def test_a_bare_file_with_the_rest_elsewhere(llama: Path, tmp_path: Path) -> None:
    """A graph alone: the operator says where the tokenizer is, the template, and the context."""
    bare = tmp_path / "alone" / "net.onnx"
    bare.parent.mkdir()
    shutil.copy(llama / "model.onnx", bare)
    assert reason_of(bare) == "tokenizer.json is missing or cannot be read"
    words = str(llama / "tokenizer.json")
    assert "set max_context" in reason_of(bare, tokenizer=words)
    folder = read_folder(
        bare, tokenizer=words, chat_template="{{ messages[0].content }}", context=128
    )
    assert isinstance(folder, TextFolder)
    assert (folder.context, folder.ends) == (128, (1014, 1013))  # by their usual names
    assert folder.template == "{{ messages[0].content }}"
    filed = read_folder(
        bare, tokenizer=str(llama), chat_template=str(llama / "chat_template.jinja"), context=9
    )
    assert isinstance(filed, TextFolder)
    assert filed.template == (llama / "chat_template.jinja").read_text()


def test_a_smaller_context_can_be_asked_for() -> None:
    assert [read_folder(DEMO, context=size).context for size in (100, 10**6)] == [100, 512]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("said", "sampling"),
    [
        ({}, Sampling()),
        ({"temperature": 0.6}, Sampling()),
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 40},
            Sampling(0.6, 0.9, 40),
        ),
        ({"do_sample": True}, Sampling(1.0)),
        ({"do_sample": True, "temperature": "hot", "top_p": 7, "top_k": None}, Sampling(1.0)),
    ],
)
def test_usual_sampling_is_the_models_own(llama: Path, said: Any, sampling: Sampling) -> None:
    change(llama / "generation_config.json", **{"do_sample": None, **said})
    folder = read_folder(llama)
    assert isinstance(folder, TextFolder)
    assert folder.sampling == sampling


@pytest.mark.parametrize("place", ["file", "json", "settings", "named"])
def test_every_place_of_a_chat_template(llama: Path, place: str) -> None:
    (llama / "chat_template.jinja").unlink()
    template: Any = "{{ messages }}"
    if place == "file":
        (llama / "chat_template.jinja").write_text(template)
    elif place == "json":
        change(llama / "chat_template.json", chat_template=template)
    elif place == "settings":
        change(llama / "tokenizer_config.json", chat_template=template)
    else:
        named = [{"name": "default", "template": "x"}, {"name": "tool_use", "template": template}]
        change(llama / "tokenizer_config.json", chat_template=named)
    folder = read_folder(llama)
    assert isinstance(folder, TextFolder)
    assert folder.template == template


def test_variants_for_devices(tmp_path: Path) -> None:
    for name in ("cuda", "cpu"):
        make_tiny_llama(tmp_path / "both" / name, paged=name == "cuda")
    folders = [read_folder(tmp_path / "both", device=device) for device in ("cuda", "cpu")]
    assert [folder.root.name for folder in folders] == ["cuda", "cpu"]
    shutil.rmtree(tmp_path / "both" / "cpu")
    assert "for CUDA only" in reason_of(tmp_path / "both", device="cpu")


def test_a_sentence_embedder(tmp_path: Path) -> None:
    folder = read_folder(write_tiny(made(tmp_path / "bert"), pooling="cls", normalize=True))
    assert isinstance(folder, VectorFolder)
    assert (folder.kind, folder.pooling, folder.normalize) == ("embedding", "cls", True)
    assert (folder.dimensions, folder.runtime) == (16, "onnx")
    assert folder.tokenizer is not None
    assert capabilities_of(folder) == ("embeddings",)
    short = read_folder(tmp_path / "bert", context=5)
    assert isinstance(short, VectorFolder)
    assert short.max_length == 5


def test_pooling_and_layers_that_are_not_served(tmp_path: Path) -> None:
    root = write_tiny(made(tmp_path / "secret-place"))
    change(root / "1_Pooling" / "config.json", pooling_mode_max_tokens=True)
    assert "pooling_mode_max_tokens" in reason_of(root)
    rows = json.loads((root / "modules.json").read_text())
    (root / "modules.json").write_text(json.dumps([*rows, {"type": "x.models.Dense", "path": "d"}]))
    change(root / "1_Pooling" / "config.json", pooling_mode_max_tokens=False)
    assert "Dense layer" in reason_of(root)
    (root / "modules.json").write_text("{}{")
    assert reason_of(root) == "modules.json is damaged"


def test_an_image_classifier(tmp_path: Path) -> None:
    root = write_classifier(made(tmp_path / "secret-place"))
    folder = read_folder(root)
    assert isinstance(folder, VectorFolder)
    assert (folder.kind, folder.labels) == ("image-classification", LABELS)
    assert folder.preprocessor is not None
    few = reason_of(root, labels=["one"])
    assert few == f"there are 1 labels for the {len(LABELS)} classes of the graph"
    change(root / "config.json", id2label={"0": "a", "2": "b"})
    assert "leaves a class out" in reason_of(root)
    (root / "preprocessor_config.json").unlink()
    assert "preprocessor_config.json is missing" in reason_of(root)


@pytest.mark.parametrize("towers", [True, False])
def test_a_clip_of_two_graphs_or_one(tmp_path: Path, towers: bool) -> None:
    folder = read_folder(write_clip(made(tmp_path / "clip"), towers=towers))
    assert isinstance(folder, VectorFolder)
    assert folder.kind == "clip"
    assert set(folder.graphs) == ({"text", "image"} if towers else {"model"})
    assert capabilities_of(folder) == ("embeddings", "image-classification")


def test_a_hub_folder_keeps_its_graphs_apart(tmp_path: Path) -> None:
    root = write_tiny(made(tmp_path / "hub"))
    (root / "onnx").mkdir()
    shutil.move(root / "model.onnx", root / "onnx" / "model.onnx")
    whole, bare = read_folder(root), read_folder(root / "onnx" / "model.onnx")
    assert whole == bare


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ({"input_ids": ["b", "s"]}, {"logits": ["b", 2]}, "text-classification"),
        ({"input_ids": ["b", "s"]}, {"sentence_embedding": ["b", 8]}, "embedding"),
        ({"input_ids": ["b", "s"]}, {"out": ["b", "s", 8]}, "embedding"),
        ({"pixel_values": ["b", 3, 8, 8]}, {"logits": ["b", 2]}, "image-classification"),
        ({"x": ["b", 3, 8, 8]}, {"probabilities": ["b", 2]}, "image-classification"),
    ],
)
def test_the_kind_is_read_from_inputs_and_outputs(
    tmp_path: Path, inputs: Any, outputs: Any, expected: str
) -> None:
    write_graph(tmp_path / "net.onnx", inputs, outputs)
    shutil.copy(DEMO_FOLDER / "tokenizer.json", tmp_path)
    change(tmp_path / "preprocessor_config.json", size=8)
    assert read_folder(tmp_path, context=16).kind == expected


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        ({"input_ids": ["b", "s"]}, {"logits": ["b", "s", 9]}, "not a decoder with a key-value"),
        ({"audio": ["b", "s"]}, {"logits": ["b", "s", 9]}, "it takes audio and gives logits"),
        ({"pixel_values": ["b", 3, 8, 8]}, {"boxes": ["b", 9, 4]}, "no kind of model that is"),
    ],
)
def test_graphs_of_other_kinds(tmp_path: Path, inputs: Any, outputs: Any, reason: str) -> None:
    assert reason in reason_of(write_graph(tmp_path / "net.onnx", inputs, outputs))


def test_a_missing_folder(tmp_path: Path) -> None:
    """AIP-CFG-049: the reason names the file and no path."""
    assert reason_of(tmp_path / "nothing") == "nothing is missing or cannot be read"
    assert reason_of(tmp_path / "nothing.onnx") == "nothing.onnx is missing or cannot be read"
    (tmp_path / "secret-place").mkdir()
    assert reason_of(tmp_path / "secret-place") == "model.onnx is missing or cannot be read"


@pytest.mark.parametrize("name", ["tokenizer.json", "model.onnx"])
def test_a_missing_file(demo: Path, name: str) -> None:
    (demo / name).unlink()
    assert reason_of(demo) == f"{name} is missing or cannot be read"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.onnx", b"not onnx", "model.onnx is damaged or no ONNX file"),
        ("model.onnx", b"", "model.onnx is damaged or no ONNX file"),
        ("tokenizer.json", b"{}", "tokenizer.json is damaged"),
        ("tokenizer.json", b"\xff\xfe", "tokenizer.json is not JSON"),
        ("tokenizer.json", b'{"model": {"vocab": {}}}', "tokenizer.json is damaged"),
        ("tokenizer.json", b'{"model": {}, "added_tokens": [7]}', "tokenizer.json is damaged"),
        ("config.json", b"{", "config.json is not JSON"),
        ("config.json", b"[" * 100_000, "config.json is not JSON"),
        ("config.json", b"[]", "config.json is not an object"),
        (
            "config.json",
            b"{}",
            "nothing says how long its context is; set max_context, or max_position_embeddings in "
            + "config.json",
        ),
        (
            "config.json",
            b'{"context_window": 5, "eos_token_id": 4, "generation": {"heat": 1}}',
            "config.json: generation has unknown settings",
        ),
        ("tokenizer_config.json", b"nonsense", "tokenizer_config.json is not JSON"),
        ("chat_template.jinja", b"\xff", "chat_template.jinja is not UTF-8 text"),
    ],
)
def test_a_damaged_file(demo: Path, name: str, content: bytes, reason: str) -> None:
    (demo / name).write_bytes(content)
    assert reason_of(demo) == reason


def test_nothing_says_what_ends_an_answer(llama: Path) -> None:
    words = json.loads((llama / "tokenizer.json").read_text())
    for row in words["added_tokens"]:
        row["content"] = row["content"].replace("|", "!")
    (llama / "tokenizer.json").write_text(json.dumps(words))
    for name in ("config.json", "generation_config.json"):
        change(llama / name, eos_token_id=None)
    assert "set eos_token_id" in reason_of(llama)


@pytest.mark.parametrize("key", ["model", "decoder"])
def test_a_genai_config_without_its_parts(tmp_path: Path, key: str) -> None:
    root = make_tiny_llama(tmp_path / "secret-place", paged=False)
    config = json.loads((root / "genai_config.json").read_text())
    (config if key == "model" else config["model"]).pop(key)
    (root / "genai_config.json").write_text(json.dumps(config))
    assert reason_of(root) == f"genai_config.json does not describe a decoder: {key} is missing"


def test_a_tokenizer_of_another_model(llama: Path) -> None:
    words = json.loads((llama / "tokenizer.json").read_text())
    words["added_tokens"].append({"id": 1024, "content": "<extra>", "special": True})
    (llama / "tokenizer.json").write_text(json.dumps(words))
    assert reason_of(llama) == (
        "the tokenizer has 1025 tokens and the graph scores for 1024; they are not of the same model"
    )


def test_a_file_that_differs_from_its_recorded_hash(demo: Path) -> None:
    shutil.copy(DEMO_FOLDER / "SHA256SUMS", demo)
    with (demo / "tokenizer.json").open("a") as changed:
        changed.write(" ")
    differs = "tokenizer.json differs from its recorded hash; install it again"
    assert [reason_of(demo), reason_of(demo / "model.onnx")] == [differs, differs]
    (demo / "SHA256SUMS").write_text("0" * 64 + "  ../../elsewhere\n")
    assert reason_of(demo) == "SHA256SUMS names a file outside its folder"


@pytest.mark.parametrize("size", [1, 100, 5000, 1_000_000])
def test_a_truncated_graph(demo: Path, size: int) -> None:
    graph = demo / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-size])
    assert reason_of(demo) == "model.onnx is damaged or no ONNX file"


def with_external(root: Path, location: str | None = None) -> None:
    """Move the weights of a folder's graph into a file beside it."""
    model = onnx.load(root / "model.onnx")
    (root / "model.onnx").unlink()
    onnx.save(
        model, root / "model.onnx", save_as_external_data=True, location="model.onnx.data",
        size_threshold=64,
    )  # fmt: skip
    if location is not None:
        model = onnx.load(root / "model.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (root / "model.onnx").write_bytes(model.SerializeToString())


def test_weights_in_a_file_beside_the_graph(llama: Path) -> None:
    within = read_folder(llama)
    with_external(llama)
    beside = read_folder(llama)
    assert abs(beside.bytes - within.bytes) < 200_000  # padded to pages
    data = llama / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1000])
    assert "model.onnx.data, the weights of model.onnx, is cut off: " in reason_of(llama)
    data.unlink()
    assert reason_of(llama) == "model.onnx.data, the weights of model.onnx, is missing"


@pytest.mark.parametrize("location", ["/etc/hostname", "../../etc/hostname"])
def test_weights_outside_the_folder_are_not_read(llama: Path, location: str) -> None:
    with_external(llama, location)
    assert reason_of(llama) == "model.onnx names weights outside its folder"


class Harmful:
    """Pickled, it would write a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "net.pt", "net.pkl", "net.ckpt", "net"])
def test_pickles_are_refused_unread(tmp_path: Path, name: str) -> None:
    mark, root = tmp_path / "harm", tmp_path / "secret-place"
    root.mkdir()
    (root / name).write_bytes(pickle.dumps(Harmful(mark), protocol=4))
    reasons = [reason_of(root), reason_of(root / name)]
    assert all("pickle" in reason and "export the model to ONNX" in reason for reason in reasons)
    assert not mark.exists()


def test_safetensors_alone_have_no_graph(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    assert "weights (.safetensors) and no graph; export it to ONNX" in reason_of(tmp_path)


def test_several_graphs_and_none_named_model(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        write_graph(tmp_path / name, {"x": [1]}, {"y": [1]})
    assert "let path name one of them" in reason_of(tmp_path)


def test_a_file_of_no_known_kind(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    reason = reason_of(tmp_path / "notes.txt")
    assert reason == "notes.txt is no folder, no .onnx and no .pt2 file"


def test_the_reader_of_graphs_agrees_with_the_onnx_package() -> None:
    """Names, types and shapes of inputs and outputs, and the operators, of three real graphs."""
    for root in (DEMO_FOLDER, tiny_llama(paged=True), tiny_llama(paged=False, cache="concat")):
        known = onnx.load(root / "model.onnx").graph
        read = read_graph(root / "model.onnx")
        initial = {tensor.name for tensor in known.initializer}
        assert read.operators == {node.op_type for node in known.node}
        assert list(read.inputs) == [v.name for v in known.input if v.name not in initial]
        for value in (*known.input, *known.output):
            found = (read.inputs | read.outputs)[value.name]
            shape = value.type.tensor_type.shape.dim
            sizes = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in shape)
            assert found.shape == sizes
            number = TensorProto.DataType.Value(found.type.upper())
            assert number == value.type.tensor_type.elem_type


def program_archive(path: Path, **changed: Any) -> Path:
    """Write what torch.export writes of a linear layer over images, by hand; ``changed`` replaces
    the parts ``target``, ``size``, ``use_pickle`` and ``spec``."""
    symbol = changed.get("size", "Symbol('s0', positive=True, integer=True)")
    batch = {"as_expr": {"expr_str": symbol, "hint": {"as_int": 2}}}

    def tensor(sizes: list[Any]) -> dict[str, Any]:
        return {"dtype": 7, "sizes": sizes}

    spec = '[1, {"type": "builtins.dict", "context": "[\\"logits\\"]", "children_spec": []}]'
    document = {
        "guards_code": ["__import__('os').abort()"],
        "graph_module": {
            "graph": {
                "nodes": [{"target": changed.get("target", "torch.ops.aten.flatten.using_ints")}],
                "tensor_values": {
                    "pixel_values": tensor([batch, {"as_int": 3}, {"as_int": 4}, {"as_int": 4}]),
                    "flat": tensor([batch, {"as_int": 48}]),
                },
            },
            "signature": {
                "input_specs": [{"user_input": {"arg": {"as_tensor": {"name": "pixel_values"}}}}],
                "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": "flat"}}}}],
            },
            "module_call_graph": [{"signature": {"out_spec": changed.get("spec", spec)}}],
        },
    }
    row = {"path_name": "weight_0", "use_pickle": changed.get("use_pickle", False)}
    files = {
        "models/model.json": json.dumps(document).encode(),
        "data/weights/model_weights_config.json": json.dumps({"config": {"w": row}}).encode(),
        "data/weights/weight_0": bytes(8),
        "data/constants/model_constants_config.json": b'{"config": {}}',
        "data/sample_inputs/model.pt": pickle.dumps(Harmful(path.with_suffix(".harm")), protocol=4),
        "archive_format": b"pt2",
    } | changed.get("files", {})
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", changed.get("packing", zipfile.ZIP_STORED)) as archive:
        for name, content in files.items():
            archive.writestr(f"net/{name}", content)
    path.write_bytes(made.getvalue())
    return path


def test_a_torch_export_program(tmp_path: Path) -> None:
    """AIP-CFG-046: read as data: what it takes, gives, and no pickle of it is kept."""
    from aiproxy.reference_server.onnx.vectors.pytorch import Program

    change(tmp_path / "preprocessor_config.json", size=4)
    path = program_archive(tmp_path / "net.pt2")
    folder = read_folder(tmp_path)
    assert isinstance(folder, VectorFolder)
    assert (folder.kind, folder.runtime) == ("image-classification", "pytorch")
    with zipfile.ZipFile(io.BytesIO(Program(path).content)) as kept:
        assert kept.read("model/data/sample_inputs/model.pt") == b""
        assert json.loads(kept.read("model/models/model.json"))["guards_code"] == []
    assert not (tmp_path / "net.harm").exists()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"target": "torch.load"}, "uses the operator torch.load"),
        ({"target": "torch.ops.aten.add.Tensor.__globals__"}, "uses the operator"),
        ({"target": "_operator.attrgetter"}, "uses the operator"),
        *(
            ({"target": f"torch.ops.aten.{name}"}, f"uses the operator torch.ops.aten.{name}, ")
            for name in (
                "from_file.default",
                "set_.source_Storage",
                "resize_.default",
                "as_strided.default",
                "_unsafe_index.Tensor",
                "empty.memory_format",
                "zeros.out",
                "add.Tensor_out",
                "softmax_x.int",
            )
        ),
        ({"packing": zipfile.ZIP_DEFLATED}, "compressed members"),
        ({"size": "__import__('os').system('true')"}, "more than arithmetic"),
        ({"size": "Symbol('s0').__class__"}, "more than arithmetic"),
        ({"size": "eval('1')"}, "more than arithmetic"),
        ({"use_pickle": True}, "holds pickled weights"),
        ({"spec": '[1, {"type": "os.path", "context": "[]"}]'}, "something else than tensors"),
        ({"files": {"models/model2.json": b"{}"}}, "not exactly one program"),
        ({"files": {"models/model.json": b"{"}}, "is no torch.export program"),
        ({"files": {"models/model.json": b"[" * 100_000}}, "net.pt2 is n"),
    ],
)
def test_a_program_that_could_do_more_than_compute(
    tmp_path: Path, changed: Any, reason: str
) -> None:
    change(tmp_path / "preprocessor_config.json", size=4)
    assert reason in reason_of(program_archive(tmp_path / "net.pt2", **changed))


@pytest.mark.parametrize(
    "target",
    ["to.dtype_layout", "linear.default", "add_.Tensor", "numpy_T.default", "__and__.Tensor"],
)
def test_operators_that_compute_are_taken(tmp_path: Path, target: str) -> None:
    change(tmp_path / "preprocessor_config.json", size=4)
    program_archive(tmp_path / "net.pt2", target=f"torch.ops.aten.{target}")
    assert read_folder(tmp_path).kind == "image-classification"


def test_members_of_an_archive_that_lie_over_each_other(tmp_path: Path) -> None:
    """Two names of the same bytes: together they are more than the file."""
    from aiproxy.reference_server.onnx.vectors.pytorch import Program

    path = program_archive(tmp_path / "net.pt2", files={"data/weights/weight_1": bytes(9000)})
    sound = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        at = archive.start_dir
        entry = next(one for one in archive.infolist() if one.filename.endswith("weight_1"))
    name = entry.filename.encode()
    begin = sound.rindex(name, at) - 46
    row = sound[begin : begin + 46 + len(name)]
    end = sound.rindex(b"PK\x05\x06")
    tail = bytearray(sound[end:])
    for field in (8, 10):
        tail[field] += 1
    tail[12:16] = (int.from_bytes(tail[12:16], "little") + len(row)).to_bytes(4, "little")
    other = row.replace(b"weight_1", b"weight_2")
    path.write_bytes(sound[:end] + other + bytes(tail))
    with pytest.raises(ModelUnavailable, match="compressed members"):
        Program(path)


def test_a_program_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes(b"PK nothing")
    assert reason_of(tmp_path / "net.pt2") == "net.pt2 is no torch.export program"


def test_no_damage_to_a_graph_is_more_than_a_reason(tmp_path: Path) -> None:
    """Bytes changed anywhere: read as something, or refused; never another error."""
    import random

    sound = (tiny_llama(paged=True) / "model.onnx").read_bytes()
    path, dice = tmp_path / "model.onnx", random.Random(5)
    head = len(sound) // 20  # the nodes: most of the rest is weights
    refused = 0
    for _ in range(200):
        bytes_ = bytearray(sound)
        for _ in range(dice.randint(1, 4)):
            bytes_[dice.randrange(head)] = dice.randrange(256)
        path.write_bytes(bytes_)
        try:
            read_graph(path)
        except ModelUnavailable:
            refused += 1
    assert 0 < refused < 200


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("CUDA failure 2: out of memory", "there is not enough memory to load it"),
        ("std::bad_alloc", "there is not enough memory to load it"),
        ("GetFileContent: External data path /a/b does not exist", "external data is missing"),
        ("Fatal error: com.x:Odd(-1) is not a registered function/op", "uses unknown operators"),
    ],
)
def test_what_onnxruntimes_refusals_mean(said: str, meaning: str) -> None:
    from aiproxy.reference_server.onnx.runtime import refusal

    assert meaning in refusal(RuntimeError(said))
    assert "/a/b" not in refusal(RuntimeError(said))
