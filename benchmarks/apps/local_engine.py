"""The adapter of a text model by itself, on the device and with the adapter the server would take.

    python local_engine.py FOLDER DEVICE TOKENS PROMPT IN_FLIGHT...

Prints one JSON object: tokens a second by sequences in flight.
"""

import json
import sys
from pathlib import Path

from local_raw import speed

from aiproxy.reference_server.onnx.devices import devices
from aiproxy.reference_server.onnx.folders import TextFolder, read_folder
from aiproxy.reference_server.onnx.text.genai import open_genai
from aiproxy.reference_server.onnx.text.runner import Runner
from aiproxy.reference_server.onnx.text.slots import open_slots


def open_runner(folder: Path, wanted: str, slots: int) -> Runner:
    device = devices().choose(wanted)
    found = read_folder(folder, device=device.kind)
    if not isinstance(found, TextFolder):
        raise SystemExit(f"{folder} holds no text model")
    if found.paged:
        return open_genai(found, device, slots=slots)
    return open_slots(found, device, slots=slots, context=None, cache_tokens=None)


def main(folder: Path, device: str, tokens: int, prompt: int, counts: list[int]) -> None:
    runner = open_runner(folder, device, max(counts))
    ids = tuple(40 + at % 900 for at in range(prompt))
    speed(runner, max(counts), 1, 8, ids)
    found = {count: speed(runner, count, 3, tokens, ids) for count in counts}
    runner.close()
    print(json.dumps(found))


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[3:]]
    main(Path(sys.argv[1]), sys.argv[2], numbers[0], numbers[1], numbers[2:])
