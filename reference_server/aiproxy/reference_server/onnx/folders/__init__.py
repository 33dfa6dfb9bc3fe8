"""What lies in a model folder: which kind of model, which files, which facts a server needs of it.

Reading a folder imports no runtime and runs nothing of what it finds: JSON, tokenizer files and the
descriptions of ONNX graphs only. Pickled files are refused, whatever they are named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from aiproxy.reference_server.onnx.errors import ModelUnavailable
from aiproxy.reference_server.onnx.folders.files import refuse_pickle, verify_sums
from aiproxy.reference_server.onnx.folders.graphs import Graph, read_graph
from aiproxy.reference_server.onnx.text.generation import Sampling

if TYPE_CHECKING:
    from aiproxy.reference_server.onnx.folders.text import Asked

TextKind: TypeAlias = Literal["genai", "decoder"]
VectorKind: TypeAlias = Literal["embedding", "image-classification", "text-classification", "clip"]
Runtime: TypeAlias = Literal["onnx", "pytorch"]


@dataclass(frozen=True, slots=True)
class TextFolder:
    """A decoder that writes text.

    ``kind`` genai has a ``genai_config.json``; with ``paged`` its graph keeps the cache in blocks,
    which only onnxruntime-genai's engine can run, with ``cuda_only`` no CPU. ``context`` is tokens, prompt and answer together.
    ``ends`` are the tokens that end an answer, ``suppress`` those never to be chosen, ``begin`` the
    one before a raw prompt (None: none; a chat template writes its own). ``chat`` is the declarative
    template of config.json, ``template`` Jinja text; both None: no messages, only raw prompts.
    ``special`` are the texts the Jinja template may name (``bos_token``, ``eos_token``...).
    ``heads`` (of keys and values), ``head_size`` and ``layers`` are None where nothing says them.
    """

    kind: TextKind
    root: Path
    graph: Path
    tokenizer: Path
    context: int
    ends: tuple[int, ...]
    fingerprint: str
    name: str = "local"
    begin: int | None = None
    pad: int | None = None
    suppress: tuple[int, ...] = ()
    vocabulary: int | None = None
    chat: Mapping[str, Any] | None = None
    template: str | None = None
    special: Mapping[str, str] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    heads: int | None = None
    head_size: int | None = None
    layers: int | None = None
    paged: bool = False
    cuda_only: bool = False
    bytes: int = 0  # of the graph and its external data: what loading takes at least


@dataclass(frozen=True, slots=True)
class VectorFolder:
    """A model that gives vectors or scores.

    ``graphs`` by role: ``model`` (everything in one), or ``text`` and ``image`` (the two halves of
    a CLIP). ``max_length`` is tokens. ``pooling`` is ``mean``, ``cls``, ``last``, ``none`` (the graph
    pools) or None (nothing says). ``normalize`` None: nothing says. ``labels`` by class number.
    ``preprocessor`` is preprocessor_config.json as it stands. With ``runtime`` pytorch the graphs
    are ``torch.export`` programs (.pt2). ``pytorch.open_graph`` opens either kind.
    """

    kind: VectorKind
    root: Path
    graphs: Mapping[str, Path]
    fingerprint: str
    name: str = "local"
    tokenizer: Path | None = None
    max_length: int | None = None
    dimensions: int | None = None
    pad: int = 0
    pooling: str | None = None
    normalize: bool | None = None
    labels: tuple[str, ...] = ()
    preprocessor: Mapping[str, Any] | None = None
    runtime: Runtime = "onnx"
    bytes: int = 0


ModelFolder: TypeAlias = TextFolder | VectorFolder

DEMO: Final = "builtin:demo"
DEMO_FOLDER: Final = Path(__file__).parent.parent / "demo"
#: Where a graph may lie in a folder, the first that is there counts.
_GRAPHS: Final = ("model.onnx", "onnx/model.onnx", "decoder_model_merged.onnx")
#: The halves of a CLIP: of the text and of the image.
_HALVES: Final = (
    ("text_model.onnx", "vision_model.onnx"),
    ("onnx/text_model.onnx", "onnx/vision_model.onnx"),
    ("textual.onnx", "visual.onnx"),
    ("text.onnx", "image.onnx"),
)


def read_folder(
    path: str | Path,
    *,
    tokenizer: str | None = None,
    chat_template: str | None = None,
    context: int | None = None,
    labels: Sequence[str] = (),
    device: str = "cpu",
) -> ModelFolder:
    """Return what is at ``path``: a folder, a bare ``.onnx`` or ``.pt2`` file, or ``builtin:demo``.

    ``tokenizer``, ``chat_template`` (a file or the template itself), ``context`` (tokens) and
    ``labels`` stand before what the folder says. A folder with the variants ``cuda/`` and ``cpu/``
    gives the one for ``device``.

    Raises:
        ModelUnavailable: something is missing, damaged, pickled, or no kind of model that runs.
    """
    from aiproxy.reference_server.onnx.folders.text import GENAI, Asked, genai_graph, read_genai

    place = DEMO_FOLDER if path == DEMO else Path(path)
    asked = Asked(tokenizer, chat_template, context)
    if place.is_dir():
        return _read_directory(_variant(place, device), asked, labels)
    if place.suffix == ".onnx":
        root = place.parent
        # Hubs keep several graphs of one model in onnx/ and everything else above it.
        if root.name == "onnx" and (root.parent / "config.json").is_file():
            root = root.parent
        verify_sums(root)
        if (root / GENAI).is_file() and genai_graph(root) == place:
            return read_genai(root, asked)
        return _read_graphs(root, {"model": place}, asked, labels)
    if place.suffix == ".pt2":
        return _read_program(place.parent, place, asked, labels)
    if not place.exists():
        raise ModelUnavailable(f"{place.name} is missing or cannot be read")
    refuse_pickle(place)
    raise ModelUnavailable(f"{place.name} is no folder, no .onnx and no .pt2 file")


def capabilities_of(folder: ModelFolder) -> tuple[str, ...]:
    """Return what a model can do, in the registered words."""
    if isinstance(folder, TextFolder):
        return ("text-generation",)
    return {
        "embedding": ("embeddings",),
        "image-classification": ("image-classification",),
        "text-classification": ("text-classification",),
        "clip": ("embeddings", "image-classification"),
    }[folder.kind]


def _variant(root: Path, device: str) -> Path:
    """Return the sub-folder for the device, where the folder is made of such."""
    if any(root.glob("*.onnx")) or (root / "genai_config.json").is_file():
        return root
    names = [name for name in ("cuda", "cpu") if (root / name).is_dir()]
    if not names:
        return root
    if device not in names and names == ["cuda"]:
        raise ModelUnavailable("it has a variant for CUDA only and none for the CPU")
    return root / (device if device in names else names[0])


def _read_directory(root: Path, asked: "Asked", labels: Sequence[str]) -> ModelFolder:
    from aiproxy.reference_server.onnx.folders.text import GENAI, read_genai

    verify_sums(root)
    if (root / GENAI).is_file():
        return read_genai(root, asked)
    for text, image in _HALVES:
        if (root / text).is_file() and (root / image).is_file():
            return _read_graphs(root, {"text": root / text, "image": root / image}, asked, labels)
    named = [root / name for name in _GRAPHS if (root / name).is_file()]
    graphs = named[:1] or sorted(root.glob("*.onnx"))
    if len(graphs) > 1:
        names = ", ".join(graph.name for graph in graphs[:4])
        raise ModelUnavailable(f"there are several graphs ({names}); let path name one of them")
    if graphs:
        return _read_graphs(root, {"model": graphs[0]}, asked, labels)
    programs = sorted(root.glob("*.pt2"))
    if programs:
        return _read_program(root, programs[0], asked, labels)
    raise ModelUnavailable(_nothing(root))


def _nothing(root: Path) -> str:
    """Why a folder without a graph cannot be served."""
    if any(root.glob("*.safetensors")):
        return (
            "it has weights (.safetensors) and no graph; export it to ONNX, for a text model with "
            "onnxruntime-genai's model builder"
        )
    for path in sorted(root.iterdir()):
        if path.is_file():
            refuse_pickle(path)
    return "model.onnx is missing or cannot be read"


def _read_graphs(
    root: Path, paths: Mapping[str, Path], asked: "Asked", labels: Sequence[str]
) -> ModelFolder:
    from aiproxy.reference_server.onnx.folders.text import is_decoder, read_decoder
    from aiproxy.reference_server.onnx.folders.vectors import kind_of, read_vectors

    graphs = {role: read_graph(path) for role, path in paths.items()}
    if "model" in graphs and is_decoder(graphs["model"]):
        return read_decoder(root, paths["model"], graphs["model"], asked)
    kind = kind_of(graphs)
    if kind is None:
        raise ModelUnavailable(_unknown(graphs["model"]))
    return read_vectors(
        root,
        kind,
        paths,
        graphs,
        tokenizer=asked.tokenizer,
        context=asked.context,
        labels=labels,
    )


def _unknown(graph: Graph) -> str:
    if "input_ids" in graph.inputs and "logits" in graph.outputs:
        return "the ONNX file is not a decoder with a key-value cache; export it with its past"
    inputs, outputs = (", ".join(list(names)[:6]) for names in (graph.inputs, graph.outputs))
    return (
        f"the ONNX file is no kind of model that is served here; it takes {inputs or 'nothing'} "
        f"and gives {outputs}"
    )


def _read_program(root: Path, path: Path, asked: "Asked", labels: Sequence[str]) -> VectorFolder:
    from aiproxy.reference_server.onnx.vectors.pytorch import read_program_folder

    verify_sums(root)
    return read_program_folder(
        root, path, tokenizer=asked.tokenizer, context=asked.context, labels=labels
    )
