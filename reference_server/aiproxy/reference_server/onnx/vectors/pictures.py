"""From the bytes of an image to the numbers a model takes, as its preprocessor_config.json says.

Images come from anybody: only still-image formats without a program inside are read, their size is
looked at before a pixel is decoded, and whatever Pillow cannot read is the client's fault (400).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from aiproxy.reference_server.onnx.errors import ModelUnavailable, RequestRefused
from aiproxy.reference_server.onnx.vectors.session import Array

if TYPE_CHECKING:
    from PIL.Image import Image

#: Formats read, by Pillow's names.
FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_BYTES: Final = 32 * 1024 * 1024
#: Width times height. Decoding so many takes 190 MB in RGB, 380 MB in other modes or turned by EXIF,
#: 750 MB of WEBP.
MAX_PIXELS: Final = 50_000_000
#: Resizing takes 32 bytes and more for each pixel of a side.
_LONGEST: Final = 100_000
#: A side after resizing; a strip of 1 x 1000000 pixels would grow to one otherwise.
_MAX_SIDE: Final = 8192
#: Pixels brought into RGB at a time.
_TILE: Final = 1 << 18
_RESCALE: Final = 1 / 255
#: Image processors whose plain ``size: 224`` is the shorter side; for all others it is both.
_BY_SHORTER_SIDE: Final = (
    "clip", "convnext", "efficientformer", "levit", "mobilenet", "mobilevit", "perceiver",
    "poolformer", "videomae",
)  # fmt: skip
_BICUBIC: Final = 3
_BILINEAR: Final = 2
_PALETTE_ALPHA: Final = ("P", "PA", "LA", "La", "RGBa")
#: Modes with more than eight bits a grey value.
_DEEP: Final = ("I", "I;16", "I;16B", "I;16L", "I;16N")

Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to an image, in this order. Sizes are (height, width); ``shorter`` is the length
    of the shorter side; None leaves a step out. ``mean`` and ``std`` are by channel, after
    ``factor``."""

    resize: Size | None = None
    shorter: int | None = None
    longest: int | None = None
    resample: int = _BICUBIC
    crop: Size | None = None
    factor: float = _RESCALE
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @property
    def result(self) -> Size | None:
        """The size of every prepared image; None where it depends on the image."""
        return self.crop or self.resize


def read_recipe(config: Mapping[str, Any]) -> Recipe:
    """Return what a preprocessor_config.json (or the part of a processor_config.json) says.

    Raises:
        ModelUnavailable: it makes no sense.
    """
    nested = config.get("image_processor")
    if isinstance(nested, Mapping):
        config = nested
    try:
        return _recipe(config)
    except (TypeError, ValueError, KeyError, IndexError) as wrong:
        raise ModelUnavailable("preprocessor_config.json makes no sense") from wrong


def _recipe(config: Mapping[str, Any]) -> Recipe:
    resize: Size | None = None
    shorter = longest = None
    crop = _size(config.get("crop_size")) if config.get("do_center_crop") else None
    if config.get("do_resize", "size" in config):
        resize, shorter, longest = _resizing(config)
        share = config.get("crop_pct")
        if shorter is not None and share and crop is None:
            # ConvNeXt: resized to a little more than is used; large ones are squeezed instead.
            crop = (shorter, shorter) if shorter < 384 else None
            resize = None if crop else (shorter, shorter)
            shorter = int(shorter / share) if crop else None
    factor = (
        float(config.get("rescale_factor", _RESCALE)) if config.get("do_rescale", True) else 1.0
    )
    normal = config.get("do_normalize", "image_mean" in config)
    found = Recipe(
        resize=resize,
        shorter=shorter,
        longest=longest,
        resample=int(config.get("resample", _BILINEAR)),
        crop=crop,
        factor=factor,
        mean=_channels(config["image_mean"]) if normal else (0.0, 0.0, 0.0),
        std=_channels(config["image_std"]) if normal else (1.0, 1.0, 1.0),
    )
    sides = [*(resize or ()), *(crop or ()), *([shorter] if shorter else [])]
    if not 0 <= found.resample <= 5 or 0 in found.std or not all(0 < s <= _MAX_SIDE for s in sides):
        raise ValueError
    return found


def _resizing(config: Mapping[str, Any]) -> tuple[Size | None, int | None, int | None]:
    """Return the size of both sides, or of the shorter one and the longest the other may get."""
    size = config["size"]
    if isinstance(size, Mapping):
        if "shortest_edge" in size:
            longest = size.get("longest_edge")
            return None, int(size["shortest_edge"]), None if longest is None else int(longest)
        return (int(size["height"]), int(size["width"])), None, None
    if isinstance(size, list | tuple):
        return (int(size[0]), int(size[1])), None, None
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    if kind.lower().startswith(_BY_SHORTER_SIDE):
        return None, int(size), None
    return (int(size), int(size)), None, None


def _size(value: Any) -> Size:
    if isinstance(value, Mapping):
        if "shortest_edge" in value:
            return int(value["shortest_edge"]), int(value["shortest_edge"])
        return int(value["height"]), int(value["width"])
    if isinstance(value, list | tuple):
        return int(value[0]), int(value[1])
    return int(value), int(value)


def _channels(values: Any) -> tuple[float, ...]:
    found = tuple(float(v) for v in (values if isinstance(values, list | tuple) else [values]))
    if len(found) not in (1, 3):
        raise ValueError
    return found * 3 if len(found) == 1 else found


def check_pillow() -> None:
    """Make Pillow and its formats ready; two first images at once would race for that.

    Raises:
        ModelUnavailable: it is not installed.
    """
    try:
        from PIL import Image
    except ImportError as missing:
        raise ModelUnavailable("pillow is missing; pip install 'aiproxy[onnx]'") from missing
    Image.init()


def prepare(data: bytes, recipe: Recipe) -> Array:
    """Return float32 (3, height, width) of an encoded image.

    Raises:
        RequestRefused: 400 when it is too large, or none that can be read.
    """
    if len(data) > MAX_BYTES:
        raise _refused(f"the image has more than {MAX_BYTES // 1024 // 1024} MiB")
    pixels = np.asarray(_resized(_decoded(data), recipe), dtype=np.float32)
    cut = pixels if recipe.crop is None else _centre(pixels, recipe.crop)
    scaled = cut * np.float32(recipe.factor)
    mean, std = (np.asarray(v, dtype=np.float32) for v in (recipe.mean, recipe.std))
    scaled = (scaled - mean) / std
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), dtype=np.float32)


def _decoded(data: bytes) -> "Image":
    """Return the image upright, in RGB."""
    from PIL import Image, ImageOps

    try:
        with Image.open(BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise _refused(f"the image is {width} x {height} pixels; at most {MAX_PIXELS}")
            if max(width, height) > _LONGEST:
                raise _refused(f"the image has more than {_LONGEST} pixels on a side")
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)
            return _rgb(opened)
    except RequestRefused:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as huge:
        raise _refused(f"the image has more than {MAX_PIXELS} pixels") from huge
    except Exception as broken:  # a decoder fails in a dozen ways on bytes made to break it
        raise _refused(f"the image is damaged, or none of {', '.join(FORMATS)}") from broken


def _rgb(image: "Image") -> "Image":
    """Return RGB; what is transparent becomes white, as on a page. Tile by tile: a whole picture
    in the modes between would take several times its size."""
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    top = 255.0
    if image.mode in _DEEP:
        deep = any(np.asarray(image.crop(box)).max() > 255 for box in _tiles(image.size))
        top = 65535.0 if deep else 255.0
    made = Image.new("RGB", image.size)
    for box in _tiles(image.size):
        made.paste(_tile_rgb(image.crop(box), top), box)
    return made


def _tiles(size: Size) -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes of ``_TILE`` pixels at most that cover (width, height)."""
    width, height = size
    wide = min(width, _TILE)
    high = _TILE // max(1, wide)
    for top in range(0, height, high):
        for left in range(0, width, wide):
            yield left, top, min(left + wide, width), min(top + high, height)


def _tile_rgb(image: "Image", top: float) -> "Image":
    from PIL import Image

    if image.mode in _DEEP:  # converting would cut at 255 instead of scaling
        grey = np.asarray(image).astype(np.float64)
        image = Image.fromarray(np.clip(grey * 255.0 / top, 0, 255).astype(np.uint8))
    clear = image.mode in _PALETTE_ALPHA and (image.mode != "P" or "transparency" in image.info)
    if clear or (image.mode in ("RGB", "L") and "transparency" in image.info):
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        page = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(page, image)
    return image.convert("RGB")


def _resized(image: "Image", recipe: Recipe) -> "Image":
    from PIL.Image import Resampling

    width, height = image.size
    if recipe.resize is not None:
        height, width = recipe.resize
    elif recipe.shorter is not None:
        short, long = sorted((width, height))
        grown = int(recipe.shorter * long / short)
        shorter = recipe.shorter
        if recipe.longest is not None and grown > recipe.longest:
            shorter, grown = int(recipe.longest * short / long), recipe.longest
        if grown > _MAX_SIDE or shorter < 1:
            raise _refused(f"the image is {width} x {height} pixels, too long for its breadth")
        width, height = (shorter, grown) if width <= height else (grown, shorter)
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Resampling(recipe.resample))


def _centre(pixels: Array, size: Size) -> Array:
    """Return the middle of (height, width, 3), black where ``size`` is larger."""
    spans = []
    for have, want in zip(pixels.shape[:2], size, strict=True):
        if want <= have:
            start = (have - want) // 2
            spans.append((slice(start, start + want), slice(0, want)))
        else:
            start = (want - have + 1) // 2
            spans.append((slice(0, have), slice(start, start + have)))
    (from_y, to_y), (from_x, to_x) = spans
    found = np.zeros((*size, pixels.shape[2]), dtype=np.float32)
    found[to_y, to_x] = pixels[from_y, from_x]
    return found


def _refused(message: str) -> RequestRefused:
    return RequestRefused("invalid_value", message, "input.image")
