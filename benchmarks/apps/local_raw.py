"""The adapter of a local model by itself, without scheduler and server: what the gateway is
compared with in ``local.py``.

    python local_raw.py FOLDER SLOTS CONTEXT TOKENS

Prints one JSON object: tokens a second with one sequence at a time and with SLOTS of them.
"""

import json
import sys
import time
from pathlib import Path

from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.folders import TextFolder, read_folder
from aiproxy.reference_server.onnx.text.runner import Runner, Sequence
from aiproxy.reference_server.onnx.text.slots import open_slots


def speed(runner: Runner, at_once: int, each: int, tokens: int, prompt: tuple[int, ...]) -> float:
    """Tokens a second when ``at_once`` sequences are kept running until ``each`` of every lane."""
    left, made, key, running = at_once * each, 0, 0, set[int]()
    began = time.perf_counter()
    while left or running:
        while left and len(running) < at_once:
            runner.add(Sequence(key, prompt, tokens))
            running.add(key)
            key, left = key + 1, left - 1
        for produced in runner.step(1.0):
            made += len(produced.tokens)
            if produced.finish is not None:
                running.discard(produced.key)
    return made / (time.perf_counter() - began)


def main(folder: Path, slots: int, context: int, tokens: int) -> dict[str, float]:
    found = read_folder(folder)
    if not isinstance(found, TextFolder):
        raise SystemExit(f"{folder} holds no text model")
    runner = open_slots(found, Device(), slots=slots, context=context, cache_tokens=None)
    prompt = tuple(range(40, 72))
    speed(runner, slots, 1, 4, prompt)
    found_alone = speed(runner, 1, 2, tokens, prompt)
    found_together = speed(runner, slots, 2, tokens, prompt)
    runner.close()
    return {"alone": found_alone, "together": found_together}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *(int(word) for word in sys.argv[2:]))))
