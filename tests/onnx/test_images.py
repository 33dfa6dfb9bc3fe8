"""Local image models: classes with true answers, CLIP against numpy, and images from anybody."""

import asyncio
import base64
import json
import struct
import sys
import threading
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_images
from onnx import TensorProto, helper
from PIL import Image
from tiny_images import LABELS, draw, encoded

from aiproxy.reference_server.onnx.bodies.embeddings import embed
from aiproxy.reference_server.onnx.bodies.predicting import classify
from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.errors import (
    EngineClosed,
    LocalBusy,
    ModelUnavailable,
    RequestRefused,
)
from aiproxy.reference_server.onnx.folders import read_folder
from aiproxy.reference_server.onnx.vectors import images, pictures
from aiproxy.reference_server.onnx.vectors.images import open_image
from aiproxy.reference_server.onnx.vectors.pictures import MAX_PIXELS, Recipe, prepare, read_recipe

req = pytest.mark.requirement
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))
CPU = Device()
CAT = "/9j/4AAQ"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_images.write_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def opened():
    """``opened(folder, **options)``: a model, closed at the end."""
    made = []

    def build(path, **options):
        made.append(open_image(read_folder(path), CPU, **options))
        return made[-1]

    yield build
    for model in made:
        model.close()


@pytest.fixture(scope="module")
def model(folder):
    made = open_image(read_folder(folder), CPU)
    yield made
    made.close()


def b64(data):
    return base64.b64encode(data).decode()


def labels(model, image, **members):
    """The rows of an answer; ``image`` is bytes or a member as it is."""
    given = b64(image) if isinstance(image, bytes) else image
    return asyncio.run(classify(model, {"model": "eyes", "image": given, **members}))["data"]


def refused(model, image, **members):
    with pytest.raises(RequestRefused) as found:
        labels(model, image, **members)
    assert found.value.status == 400
    return found.value.code, found.value.param


# --- true answers --------------------------------------------------------------------------------


@req("AIP-API-017")
@pytest.mark.parametrize("max_batch", [1, 8])
def test_classes_are_right_on_pictures_never_seen(folder, opened, max_batch):
    """At least 99 of 100 on a held-out set; the model was fitted to other pictures."""
    model = opened(folder, max_batch=max_batch)
    pictures = list(tiny_images.examples(300, seed=2))

    async def run():
        bodies = [{"image": tiny_images.base64(image)} for image, _ in pictures]
        return [(await asyncio.gather(*(classify(model, b) for b in bodies[n : n + 50])))
                for n in range(0, 300, 50)]  # fmt: skip

    answers = [answer for part in asyncio.run(run()) for answer in part]
    right = [
        a["data"][0]["label"] == label for a, (_, label) in zip(answers, pictures, strict=True)
    ]
    assert sum(right) >= 297
    best = [answer["data"] for answer in answers]
    assert all(len(rows) == 5 for rows in best)
    assert all(rows == sorted(rows, key=lambda row: -row["score"]) for rows in best)


def test_the_answer_has_its_shape(model):
    body = {"model": "eyes", "image": tiny_images.base64(draw("red", "cross", 4)), "top_k": 99}
    answer = asyncio.run(classify(model, body))
    assert set(answer) == {"object", "model", "data", "usage"}
    assert (answer["object"], answer["model"]) == ("list", "eyes")
    assert answer["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
    assert {row["label"] for row in answer["data"]} == set(LABELS)
    assert sum(row["score"] for row in answer["data"]) == pytest.approx(1)


def test_scores_that_are_shares_already_stay(tmp_path, opened, model):
    image = encoded(draw("blue", "square", 9))
    found = labels(opened(tiny_images.write_classifier(tmp_path, shares=True)), image)
    assert found == [{"label": r["label"], "score": pytest.approx(r["score"], abs=1e-5)}
                     for r in labels(model, image)]  # fmt: skip


def test_a_graph_of_a_fixed_batch(tmp_path, opened, model):
    fixed = opened(tiny_images.write_classifier(tmp_path, batch=3))
    for seed in range(4):
        image = encoded(draw("green", "cross", seed))
        assert labels(fixed, image)[0]["score"] == pytest.approx(
            labels(model, image)[0]["score"], abs=1e-5
        )


def test_labels_of_the_configuration(folder, opened):
    names = [f"class {n}" for n in range(6)]
    found = labels(opened(folder, labels=names), encoded(draw("red", "square", 1)), top_k=1)
    assert [row["label"] for row in found] == ["class 0"]


def test_without_any_labels_the_classes_are_numbered(tmp_path, opened):
    tiny_images.write_classifier(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    found = labels(opened(tmp_path), encoded(draw("red", "square", 1)), top_k=1)
    assert [row["label"] for row in found] == ["LABEL_0"]


# --- pictures as they come -----------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("size", [(96, 96), (200, 120), (90, 300), (33, 33)])
def test_formats_and_sizes(model, form, size):
    image = encoded(draw("red", "square", 3, size), form)
    assert labels(model, image, top_k=1)[0]["label"].startswith("red"), (form, size)


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "RGB"])
def test_colour_modes(model, mode):
    form = "JPEG" if mode == "CMYK" else "PNG"
    image = draw("blue", "square", 3).convert(mode)
    assert labels(model, encoded(image, form), top_k=1)[0]["label"] == "blue square"


RECIPE = Recipe(resize=(4, 4), resample=0)


def colour(data, place=(1, 1)):
    return tuple((prepare(data, RECIPE)[:, place[0], place[1]] * 255).round().astype(int))


def test_what_is_transparent_becomes_white():
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (200, 0, 0, 128))
    grey = Image.new("LA", (8, 8), (0, 0))
    palette = clear.convert("RGB").quantize(4)
    assert colour(encoded(clear)) == (255, 255, 255)
    assert colour(encoded(half)) == (227, 127, 127)
    assert colour(encoded(grey)) == (255, 255, 255)
    assert colour(encoded(palette, transparency=0)) == (255, 255, 255)


def test_grey_values_of_any_depth_are_scaled_and_not_cut():
    deep = Image.fromarray(np.full((8, 8), 0x8000, dtype=np.uint16))
    assert colour(encoded(deep)) == (127, 127, 127)
    assert colour(encoded(Image.new("L", (8, 8), 90))) == (90, 90, 90)
    assert colour(encoded(Image.new("1", (8, 8), 1))) == (255, 255, 255)


@pytest.mark.parametrize("top", [200, 65535])
def test_deep_grey_is_brought_to_eight_bits_in_tiles(monkeypatch, top):
    """The numbers are those of the whole picture; beside it there is memory for a tile alone."""
    grey = (np.arange(1000 * 1500) % (top + 1)).astype(np.uint16).reshape(1000, 1500)
    scale = 255.0 / (65535.0 if top > 255 else 255.0)
    wanted = np.clip(grey * scale, 0, 255).astype(np.uint8)
    data = encoded(Image.fromarray(grey))
    monkeypatch.setattr(pictures, "_TILE", 1 << 14)
    tracemalloc.start()
    try:
        made = pictures._decoded(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.abs(np.asarray(made)[:, :, 1].astype(int) - wanted).max() <= 1
    assert peak < 3 * 1000 * 1500 + len(data)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16"])
def test_tiles_change_no_pixel(monkeypatch, mode):
    rough = Image.fromarray(np.random.RandomState(3).randint(0, 256, (40, 70, 4), np.uint8))
    image = Image.new("I;16", (70, 40), 777) if mode == "I;16" else rough.convert(mode)
    recipe = Recipe(resize=(40, 70))
    whole = prepare(encoded(image), recipe)
    monkeypatch.setattr(pictures, "_TILE", 33)
    assert np.array_equal(prepare(encoded(image), recipe), whole)


def test_a_strip_too_long_to_be_resized_is_refused():
    with pytest.raises(RequestRefused, match="pixels on a side"):
        prepare(encoded(Image.new("1", (1, 100_001))), RECIPE)


def test_a_photograph_taken_sideways_is_turned_upright():
    """EXIF orientation 6: the camera's top is on the right."""
    image = Image.new("RGB", (40, 20), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 10, 20))  # left, so on top when upright
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(image, "PNG", exif=exif)
    recipe = Recipe(resize=(40, 20), resample=0)
    made = prepare(turned, recipe)[0]
    assert made[:10].min() == pytest.approx(1)
    assert made[10:].max() == 0


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (8, 8), c) for c in ((255, 0, 0), (0, 0, 255))]
    out = BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert colour(out.getvalue()) == (255, 0, 0)


def png(width, height, body=b""):
    """A PNG that says it has so many pixels, whatever follows."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"no image at all",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        png(8, 8),
        png(8, 8, zlib.compress(b"\0" * 5)),
        png(0, 8),
        png(7100, 7100, zlib.compress(b"\0" * 100)),
        png(30_000, 30_000, zlib.compress(b"\0" * 100)),
        png(2**31 - 1, 2**31 - 1),
        encoded(draw("red", "cross", 1))[:300],
        encoded(draw("red", "cross", 1), "JPEG")[:300],
        encoded(draw("red", "cross", 1), "WEBP")[:100],
        encoded(draw("red", "cross", 1), "TIFF"),
    ],
)
def test_what_is_no_image_of_a_sane_size_is_refused(model, data):
    """The process lives on, and no pixel of a huge one is decoded."""
    assert refused(model, data) == ("invalid_value", "input.image")
    assert labels(model, encoded(draw("red", "cross", 1)), top_k=1)[0]["label"] == "red cross"


def test_the_largest_size_is_about_fifty_million_pixels():
    assert 40_000_000 < MAX_PIXELS < 89_478_485  # Pillow's own warning


def test_a_strip_is_not_blown_up(model):
    strip = encoded(Image.new("RGB", (1, 60_000)))
    assert refused(model, strip) == ("invalid_value", "input.image")


@pytest.mark.parametrize("flips", range(25))
def test_bytes_that_were_changed_are_an_image_or_refused(model, flips):
    random = np.random.RandomState(flips)
    form = ("PNG", "JPEG", "WEBP", "GIF", "BMP")[flips % 5]
    data = bytearray(encoded(draw("red", "cross", 1), form))
    for _ in range(1 + flips % 7):
        data[random.randint(len(data))] = random.randint(256)
    try:
        assert len(labels(model, bytes(data))) == 5
    except RequestRefused as found:
        assert found.param == "input.image"


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (None, "missing_required_parameter"),
        ({}, "missing_required_parameter"),
        ({"media_type": "image/png"}, "missing_required_parameter"),
        (5, "invalid_type"),
        ([CAT], "invalid_type"),
        ({"data": 5}, "invalid_type"),
        ("", "invalid_value"),
        ("%%%", "unsupported_capability"),
        ("AAA", "unsupported_capability"),
        ("data:image/png,AAAA", "invalid_value"),
        ("data:text/html;base64,AAAA", "invalid_value"),
        ({"data": CAT, "media_type": "text/plain"}, "invalid_value"),
        ({"data": CAT, "media_type": 5}, "invalid_value"),
        ("https://example.com/cat.png", "unsupported_parameter"),
        (" HTTP://example.com/cat.png", "unsupported_parameter"),
        ({"data": "file:///etc/passwd"}, "unsupported_parameter"),
    ],
)
def test_what_is_no_base64_of_an_image_is_refused(model, image, code):
    """An address is refused and never followed."""
    assert refused(model, image) == (code, "input.image")


def test_every_form_of_an_image(model):
    plain = tiny_images.base64(draw("green", "square", 2))
    wrapped = "\r\n".join(plain[at : at + 76] for at in range(0, len(plain), 76))
    forms = [
        plain,
        wrapped,
        f"data:image/png;base64,{plain}",
        f"data:image/png;charset=x;base64,{plain}",
        {"data": plain},
        {"data": plain, "media_type": "image/png"},
        {"data": f"data:image/png;base64,{plain}"},
    ]
    answers = [labels(model, form) for form in forms]
    assert answers == [answers[0]] * len(forms)
    assert answers[0][0]["label"] == "green square"


@pytest.mark.parametrize(
    ("members", "code", "param"),
    [
        ({"labels": ["a"]}, "unsupported_parameter", "input.labels"),
        ({"labels": "a"}, "invalid_type", "input.labels"),
        ({"labels": []}, "invalid_value", "input.labels"),
        ({"labels": ["a", 5]}, "invalid_type", "input.labels[1]"),
        ({"labels": ["a", " "]}, "invalid_value", "input.labels[1]"),
        ({"labels": ["a"] * 257}, "invalid_value", "input.labels"),
        ({"top_k": 0}, "invalid_value", "input.top_k"),
        ({"top_k": "3"}, "invalid_type", "input.top_k"),
        ({"top_k": True}, "invalid_type", "input.top_k"),
    ],
)
def test_other_members_that_are_refused(model, members, code, param):
    assert refused(model, encoded(draw("red", "cross", 1)), **members) == (code, param)


def test_after_close_nothing_is_computed(folder):
    model = open_image(read_folder(folder), CPU)
    model.close()
    model.close()
    with pytest.raises(EngineClosed):
        labels(model, encoded(draw("red", "cross", 1)))


@pytest.fixture
def slow(monkeypatch):
    """Decoding that lasts until ``go``."""
    go = threading.Event()

    def decode(data, recipe):
        assert go.wait(10)
        return np.zeros((3, 2, 2), np.float32)

    monkeypatch.setattr(images, "prepare", decode)
    yield go
    go.set()


class Rows:
    """An encoder that gives the images back."""

    rows = None

    def encode(self, given):
        return given

    def close(self):
        pass


def asked(decoder, number):
    return [asyncio.create_task(decoder.row(b"x")) for _ in range(number)]


def test_waiting_for_a_decoder_counts_as_waiting(slow):
    """``max_queue_wait`` begins before an image is decoded."""

    async def run():
        decoder = images._Images(Rows(), None, max_batch=4, max_wait_s=0.1, name="slow")
        try:
            found = await asyncio.gather(*asked(decoder, 4), return_exceptions=True)
            assert [type(one) for one in found] == [LocalBusy] * 4
            assert decoder.load == (0, 0)
            slow.set()
            assert (await decoder.row(b"x")).shape == (3, 2, 2)
        finally:
            decoder.close()

    asyncio.run(run())


def test_closing_ends_those_that_wait_for_a_decoder(slow):
    """With an error of theirs, and not as if they had been cancelled; who was, is."""

    async def run():
        decoder = images._Images(Rows(), None, max_batch=4, max_wait_s=10, name="slow")
        calls = asked(decoder, 5)
        await asyncio.sleep(0.01)
        calls[4].cancel()
        await asyncio.to_thread(decoder.close)
        slow.set()
        return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(run())
    assert [type(one) for one in found] == [EngineClosed] * 4 + [asyncio.CancelledError]


# --- CLIP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("towers", [True, False], ids=["two graphs", "one graph"])
def test_labels_of_a_request_against_numpy(tmp_path, opened, towers):
    """Softmax of the scaled cosines, within 1e-5; the factor of a single graph is read off it."""
    clip = opened(tiny_images.write_clip(tmp_path, towers=towers), max_batch=4)
    names = ["abc", "xyz def", "hello", "a b c d"]
    rows = asyncio.run(clip.tokens(names))
    for seed in range(6):
        image = draw("red", "cross", seed, (40, 60))
        found = {row["label"]: row["score"] for row in labels(clip, encoded(image), labels=names)}
        wanted = tiny_images.clip_numpy(image, rows)
        assert [found[name] for name in names] == pytest.approx(list(wanted), abs=1e-5)


@pytest.mark.parametrize("towers", [True, False], ids=["two graphs", "one graph"])
def test_labels_of_the_configuration_are_those_of_a_request_without(tmp_path, opened, towers):
    clip = opened(tiny_images.write_clip(tmp_path, towers=towers), labels=["abc", "xyz"])
    image = encoded(draw("red", "cross", 1))
    assert labels(clip, image) == labels(clip, image, labels=["abc", "xyz"])
    assert len(labels(clip, image, top_k=1)) == 1
    assert labels(clip, image, labels=["abc", "abc"]) == [{"label": "abc", "score": 1.0}]
    assert refused(clip, image, labels=["a" * 400])[0] == "context_length_exceeded"


def test_a_clip_model_without_labels_asks_for_some(tmp_path, opened):
    clip = opened(tiny_images.write_clip(tmp_path, towers=True))
    image = encoded(draw("red", "cross", 1))
    assert refused(clip, image) == ("missing_required_parameter", "input.labels")


@pytest.mark.parametrize("towers", [True, False], ids=["two graphs", "one graph"])
def test_a_siglip_is_refused(tmp_path, towers):
    """Its scores have a bias and its shares are no softmax: it would answer, and wrongly."""
    tiny_images.write_clip(tmp_path, towers=towers)
    if towers:
        (tmp_path / "config.json").write_text(
            '{"model_type": "siglip", "max_position_embeddings": 9}'
        )
    else:
        graph = onnx.load(tmp_path / "model.onnx")
        graph.graph.node[-1].output[0] = "scaled"
        graph.graph.node.append(helper.make_node("Sub", ["scaled", "scale"], ["logits_per_image"]))
        onnx.save(graph, tmp_path / "model.onnx")
    with pytest.raises(ModelUnavailable, match="SigLIP"):
        open_image(read_folder(tmp_path, context=9), CPU)


@pytest.mark.parametrize("towers", [True, False], ids=["two graphs", "one graph"])
def test_a_clip_model_embeds_texts_too(tmp_path, opened, towers):
    clip = opened(tiny_images.write_clip(tmp_path, towers=towers))
    answer = asyncio.run(embed(clip, {"input": ["abc", "hello there"]}))
    vectors = np.array([row["embedding"] for row in answer["data"]])
    weights = tiny_images.clip_weights()
    for row, vector in zip(asyncio.run(clip.tokens(["abc", "hello there"])), vectors, strict=True):
        wanted = np.tanh(weights["words"][list(row)].mean(0)) @ weights["text_projection"]
        assert np.allclose(vector, wanted / np.linalg.norm(wanted), atol=1e-5)


# --- preparation ---------------------------------------------------------------------------------


def test_the_steps_of_a_preparation_are_those_of_the_file():
    clip = {
        "size": {"shortest_edge": 224}, "crop_size": 224, "do_center_crop": True, "resample": 3,
        "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2], "do_resize": True,
    }  # fmt: skip
    found = read_recipe(clip)
    assert (found.shorter, found.crop, found.result) == (224, (224, 224), (224, 224))
    assert read_recipe({**clip, "size": 224}).resize == (224, 224)
    by_side = read_recipe({**clip, "size": 224, "feature_extractor_type": "CLIPFeatureExtractor"})
    assert by_side == found
    assert read_recipe({"image_processor": clip}) == found
    convnext = {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "do_normalize": False}
    small = read_recipe(convnext)
    assert (small.shorter, small.crop) == (256, (224, 224))
    large = read_recipe({**convnext, "size": {"shortest_edge": 384}})
    assert (large.resize, large.crop) == ((384, 384), None)
    assert read_recipe({"do_resize": False, "do_rescale": False}).factor == 1.0


@pytest.mark.parametrize(
    "config",
    [
        {"size": "big"},
        {"size": {}},
        {"size": -5},
        {"size": {"height": 10**6, "width": 10**6}},
        {"size": 4, "resample": 77},
        {"do_normalize": True, "image_mean": [0.5], "image_std": [0, 0, 0]},
        {"do_normalize": True},
        {"do_normalize": True, "image_mean": [1, 2], "image_std": [1, 2]},
    ],
)
def test_a_preparation_that_makes_no_sense_is_refused_at_load(config):
    with pytest.raises(ModelUnavailable, match=r"preprocessor_config\.json makes no sense"):
        read_recipe(config)


def test_a_small_image_is_laid_in_the_middle_of_a_larger_crop():
    recipe = read_recipe({"do_resize": False, "do_center_crop": True, "crop_size": 6})
    made = prepare(encoded(Image.new("RGB", (3, 2), (255, 255, 255))), recipe)
    assert made.shape == (3, 6, 6)
    assert made[0, 2:4, 2:5].min() == pytest.approx(1)
    assert made[0].sum() == pytest.approx(6)


def change(folder, **members):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


def test_images_of_another_size_than_the_graphs_are_refused_at_load(tmp_path):
    tiny_images.write_classifier(tmp_path)
    change(tmp_path, crop_size={"height": 31, "width": 32})
    with pytest.raises(ModelUnavailable, match="31 x 32"):
        open_image(read_folder(tmp_path), CPU)


def test_more_labels_than_classes_are_refused_at_load(folder):
    with pytest.raises(ModelUnavailable, match="7 labels for the 6 classes"):
        open_image(read_folder(folder), CPU, labels=[*"abcdefg"])


def test_a_graph_that_cannot_compute_is_refused_at_load(tmp_path):
    tiny_images.write_classifier(tmp_path)
    folder = read_folder(tmp_path)
    value = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["b", 3, "h", "w"])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 6])
    node = helper.make_node("Reshape", ["pixel_values", "shape"], ["logits"])
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [7, 6])
    graph = helper.make_graph([node], "g", [value], [out], [shape])
    opsets = [helper.make_opsetid("", 20)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(made, tmp_path / "model.onnx")
    with pytest.raises(ModelUnavailable, match="first image"):
        open_image(folder, CPU)


# --- through the server --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(folder, tmp_path_factory):
    """``aiproxy serve`` with a classifier, a CLIP with labels, and the demo model."""
    from served import serve

    clip = tiny_images.write_clip(tmp_path_factory.mktemp("clip"), towers=True)
    rows = [
        {"name": "eyes", "path": str(folder), "capabilities": ["image-classification"]},
        {
            "name": "clip",
            "path": str(clip),
            "capabilities": ["image-classification", "embeddings"],
            "labels": ["abc", "xyz"],
        },
        {"name": "demo", "path": "builtin:demo"},
    ]
    config = {"providers": {"local": {"type": "local", "models": rows}}}
    with serve(tmp_path_factory.mktemp("served"), config) as server:
        yield server


def predict(served, model, given, **routing):
    body = {"model": model, "input": given, **({"routing": routing} if routing else {})}
    return served.post("/aiproxy/predict", body)


@req("AIP-API-017", "AIP-API-011", "AIP-PROV-001")
def test_the_server_classifies_right(served):
    """All of 30 pictures with true answers, through POST /aiproxy/predict."""
    for image, label in tiny_images.examples(30, seed=5):
        got = predict(served, "eyes", {"image": tiny_images.base64(image), "top_k": 2})
        assert got.status == 200, got
        assert got.json["output"][0]["label"] == label
        assert len(got.json["output"]) == 2
    told = got.json["metadata"]
    assert told["provider"] == "local"
    assert told["tokens"] == {"input": 0, "output": 0, "total": 0}
    assert told["cost"] == {"amount": 0, "currency": "USD"}


def test_the_server_chooses_among_any_labels(served):
    image = {"image": tiny_images.base64(draw("red", "cross", 1))}
    own = predict(served, "clip", image)
    assert {row["label"] for row in own.json["output"]} == {"abc", "xyz"}
    other = predict(served, "clip", {**image, "labels": ["hello", "you", "there"]})
    assert {row["label"] for row in other.json["output"]} == {"hello", "you", "there"}
    words = predict(served, "clip", "a text")
    assert len(words.json["output"]) == tiny_images.CLIP_SIZE


@req("AIP-API-017", "AIP-API-018")
def test_the_server_refuses_what_is_no_image(served):
    wrong = predict(served, "eyes", {"image": "AAAA"})
    assert (wrong.status, wrong.error["code"], wrong.error["param"]) == (
        400,
        "invalid_value",
        "input.image",
    )
    text = predict(served, "demo", {"image": tiny_images.base64(draw("red", "cross", 1))})
    assert (text.status, text.error["code"]) == (400, "unsupported_capability")
    elsewhere = predict(served, "eyes", {"image": "https://example.com/x.png"})
    assert (elsewhere.status, elsewhere.error["code"]) == (400, "unsupported_parameter")
    chat = served.chat(model="eyes")
    assert (chat.status, chat.error["code"]) == (400, "unsupported_capability")


def test_no_client_reaches_the_internal_path(served):
    """It would pass by the router, its limits and its records."""
    body = {"model": "eyes", "image": tiny_images.base64(draw("red", "cross", 1))}
    for path in ("/v1/images/classifications", "/v1/images/classifications/"):
        got = served.post(path, body)
        assert (got.status, got.error["code"]) == (404, "not_found"), got
