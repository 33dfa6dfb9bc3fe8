"""The whole check of local models on a GPU, in one run: python benchmarks/local_gpu.py [--out F.json]

1. Builds a Llama of 1B shape with random weights (torch, transformers) and exports it with
   onnxruntime-genai's model builder as a paged fp16 folder. ``--model DIR`` takes one that is there.
2. The adapter by itself at 1, 8 and 32 sequences in flight (``apps/local_engine.py``).
3. The server in front of the same folder at 1, 8 and 32 streams: tokens a second over one at a time,
   its share of the adapter, times to the first text.
4. transformers' ``generate`` (one, and padded batches) and ``generate_batch`` with the same weights.
5. Overload: how fast a full provider says busy. kill -9 of the model's process while it streams: the
   other provider serves, and the model comes back.

Needs an environment with torch, transformers, onnxruntime-gpu, onnxruntime-genai-cuda and this package.
``--device cpu`` runs the same steps on any machine with the slot adapter, to try the
script itself; transformers is left out where it is not installed.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import processes
from local import lag, serve
from peers import HERE
from streaming import ask, streamed
from tables import table

sys.path.insert(0, str(HERE.parent / "tests" / "support"))

from tiny_models import Shape, make_tiny_llama, tokenizer_json

IN_FLIGHT: Final = (1, 8, 32)
#: Targets: over one at a time, at 8 and at 32; the server over the adapter; milliseconds to "busy".
GAINS: Final = {8: 4.0, 32: 10.0}
SHARE: Final = 0.9
BUSY_MS: Final = 50.0
#: The shape of Llama 3.2 1B.
LLAMA_1B: Final[dict[str, Any]] = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 1012,
    # No token of the tokenizer, and one of 128256 in the model: answers hardly ever end early.
    "eos_token_id": 128255,
    "pad_token_id": 1017,
}
Json = dict[str, Any]


def build(folder: Path, device: str) -> tuple[Path, Path | None]:
    """Make the ONNX folder, and the one transformers reads; the second is None without torch."""
    if device == "cpu":
        made = make_tiny_llama(folder / "onnx", paged=False, shape=Shape(context=1024))
        return made, None
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    source, target = folder / "hf", folder / "onnx"
    torch.set_default_dtype(torch.float16)
    with torch.device("cuda"):  # drawing a billion weights on the CPU takes minutes
        model = LlamaForCausalLM(LlamaConfig(**LLAMA_1B))
    torch.set_default_dtype(torch.float32)
    model.to("cpu").save_pretrained(source)
    del model
    torch.cuda.empty_cache()
    like = make_tiny_llama(folder / "like", paged=False)  # for its tokenizer
    (source / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (source / name).write_bytes((like / name).read_bytes())
    options = {
        "use_paged_attention": "true",
        "prune_lm_head": "true",
        "enable_cuda_graph": "true",
        "max_batch_size": "64",
        "max_scheduled_tokens": "1024",
        "num_blocks": "512",
    }
    argv = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source)]
    argv += ["-o", str(target), "-p", "fp16", "-e", "cuda", "-c", str(folder / "cache")]
    argv += ["--extra_options", *(f"{name}={value}" for name, value in options.items())]
    subprocess.run(argv, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if not (target / name).exists():
            (target / name).write_bytes((source / name).read_bytes())
    return target, source


def adapter(model: Path, device: str, tokens: int, prompt: int) -> dict[int, float]:
    """Tokens a second of the adapter in a process of its own, by sequences in flight."""
    argv = [HERE / "apps" / "local_engine.py", model, device, tokens, prompt, *IN_FLIGHT]
    out = subprocess.run(
        [sys.executable, *map(str, argv)], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(out.stdout.splitlines()[-1])
    return {int(count): speed for count, speed in found.items()}


def with_transformers(source: Path, tokens: int, prompt: int) -> dict[str, float]:
    """Tokens a second of transformers with the same weights, greedy, answers of equal length."""
    import torch
    from transformers import GenerationConfig, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(source, dtype=torch.float16).to("cuda").eval()
    settings = GenerationConfig(
        max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=1017
    )
    found: dict[str, float] = {}
    for count in IN_FLIGHT:
        ids = torch.randint(40, 1000, (count, prompt), device="cuda")
        mask = torch.ones_like(ids)
        model.generate(ids, attention_mask=mask, generation_config=settings)
        torch.cuda.synchronize()
        began = time.perf_counter()
        model.generate(ids, attention_mask=mask, generation_config=settings)
        torch.cuda.synchronize()
        found[f"generate, {count}"] = count * tokens / (time.perf_counter() - began)
    # The library's own continuous batching; its surface moves, so that it may be missing.
    with contextlib.suppress(AttributeError, ImportError, ValueError):
        model.set_attn_implementation("sdpa_paged")
        inputs = [torch.randint(40, 1000, (prompt,)).tolist() for _ in range(IN_FLIGHT[-1])]
        model.generate_batch(inputs=inputs, generation_config=settings)
        began = time.perf_counter()
        model.generate_batch(inputs=inputs, generation_config=settings)
        seconds = time.perf_counter() - began
        found[f"generate_batch, {len(inputs)}"] = len(inputs) * tokens / seconds
    return found


def configuration(model: Path, device: str, cloud: int, slots: int, queue: int) -> Json:
    """A local provider first, and a fake cloud with the same model behind it."""
    local = {
        "type": "local",
        "priority": 1,
        "device": device,
        "worker": "process",
        "max_concurrency": slots,
        "max_queue": queue,
        "models": [{"name": "llama", "path": str(model)}],
    }
    other = {
        "type": "openai_compatible",
        "priority": 2,
        "endpoint": f"http://127.0.0.1:{cloud}/small/v1",
        "models": [{"name": "llama", "model": "mock", "cost_per_1k_tokens": 0.001}],
    }
    alone = {**local, "models": [{"name": "alone", "path": str(model)}]}
    return {
        "providers": {"local": local, "other": other} if queue == 0 else {"local": alone},
        "routing": {"default_provider": "local"},
        "observability": {"logging": {"level": "warn"}},
    }


async def through_server(folder: Path, model: Path, device: str, tokens: int, prompt: int) -> Json:
    """Throughput and times to the first text, by streams at once."""
    text = "gate " * max(1, prompt // 2)
    found: Json = {}
    async with _server(folder, configuration(model, device, 0, 64, 256)) as (port, _):
        await streamed(port, "alone", IN_FLIGHT[-1], 1, 8, text)
        for count in IN_FLIGHT:
            lag(port)
            seen = await streamed(port, "alone", count, 3, tokens, text)
            found[str(count)] = {
                "tokens/s": seen.speed,
                "first p50, ms": seen.first(0.5),
                "first p99, ms": seen.first(0.99),
                "loop p99, ms": lag(port)["p99"],
            }
    return found


async def in_trouble(folder: Path, model: Path, device: str, cloud: int) -> Json:
    """A full provider, and one whose process is killed."""
    found: Json = {}
    async with _server(folder, configuration(model, device, cloud, 1, 0)) as (port, pid):
        predict = {"model": "llama", "input": "count the gates", "max_tokens": 64}
        await ask(port, "/aiproxy/predict", predict)
        took: list[float] = []
        reasons: set[str] = set()
        for _ in range(10):
            # One place and no queue: of four at once three must go elsewhere.
            for ms, routing in await asyncio.gather(*(_predicted(port, predict) for _ in range(4))):
                if routing["failovers"]:
                    took.append(ms)
                    reasons.add(str(routing["reason"]))
        found["busy, answered by the other"] = len(took)
        found["busy, answered by the other, worst ms"] = max(took, default=float("inf"))
        found["busy, reasons"] = sorted(reasons)
        [worker] = _workers(pid)
        os.kill(worker, signal.SIGKILL)
        began = time.perf_counter()
        providers: list[str] = []
        while time.perf_counter() - began < 300:
            providers.append((await _predicted(port, predict))[1]["provider"])
            if providers[-1] == "local" and len(providers) > 1:
                break
            await asyncio.sleep(0.2)
        found["killed, back after s"] = time.perf_counter() - began
        found["killed, answered by the other"] = providers.count("other")
        found["killed, came back"] = providers[-1] == "local"
    return found


async def _predicted(port: int, body: Json) -> tuple[float, Json]:
    """Milliseconds a predict took, and how it was routed."""
    began = time.perf_counter()
    status, answer, _ = await ask(port, "/aiproxy/predict", body)
    ms = 1e3 * (time.perf_counter() - began)
    if status != 200:
        raise RuntimeError(answer[:1000].decode(errors="replace"))
    metadata = json.loads(answer[answer.index(b"\r\n\r\n") + 4 :])["metadata"]
    return ms, {**metadata["routing"], "provider": metadata["provider"]}


def _workers(pid: int) -> list[int]:
    """The processes of models below the server ``pid``."""
    found = []
    for child in processes.tree(pid):
        with contextlib.suppress(OSError):
            if b"onnx.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


@contextlib.asynccontextmanager
async def _server(folder: Path, config: Json) -> Any:
    port = processes.free_port()
    path = folder / f"server-{port}.json"
    path.write_text(json.dumps(config))
    server = serve(path, port, folder / "server.log")
    try:
        # A model of this size takes its time to load and to warm up.
        await asyncio.to_thread(processes.wait_for_port, port, server, 300)
        yield port, server.pid
    except Exception:
        print((folder / "server.log").read_text()[-6000:], file=sys.stderr)
        raise
    finally:
        processes.stop(server)


def hardware() -> Json:
    """What the figures belong to."""
    found: Json = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
    }
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        found["gpu"] = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    for name in (
        "onnxruntime-gpu",
        "onnxruntime-genai-cuda",
        "onnxruntime",
        "torch",
        "transformers",
    ):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def missed(found: Json) -> list[str]:
    """What did not reach its target."""
    server, raw = found["server"], found["adapter"]
    faults = []
    for count, least in GAINS.items():
        gain = server[str(count)]["tokens/s"] / server["1"]["tokens/s"]
        if gain < least:
            faults.append(f"{count} streams give {gain:.1f} x one, less than {least:g}")
    for count, speed in raw.items():
        share = server[str(count)]["tokens/s"] / speed
        if share < SHARE:
            faults.append(f"at {count} the server reaches {share:.2f} of the adapter")
    trouble = found["trouble"]
    if trouble["busy, answered by the other, worst ms"] > BUSY_MS:
        faults.append("busy took longer than 50 ms")
    if "local_gpu_busy" not in trouble["busy, reasons"]:
        faults.append("no request was told local_gpu_busy")
    if not trouble["killed, came back"]:
        faults.append("the killed model did not come back")
    return faults


async def main(options: argparse.Namespace) -> Json:
    found: Json = {"hardware": hardware()}
    cloud = processes.free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        upstream = processes.start(
            [sys.executable, HERE / "fake_upstream.py", cloud],
            processes.LOAD_CPU,
            folder / "upstream.log",
        )
        try:
            model, source = (
                (options.model, None) if options.model else build(folder, options.device)
            )
            each = (options.tokens, options.prompt)
            found["adapter"] = adapter(model, options.device, *each)
            found["server"] = await through_server(folder, model, options.device, *each)
            found["trouble"] = await in_trouble(folder, model, options.device, cloud)
            if source is not None:
                found["transformers"] = with_transformers(source, *each)
        finally:
            processes.stop(upstream)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--model", type=Path, help="a folder that is there already")
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt, about")
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    figures = asyncio.run(main(wanted))
    print(json.dumps(figures, indent=1))
    rows = [
        [count, figures["adapter"].get(int(count), float("nan")), *row.values()]
        for count, row in figures["server"].items()
    ]
    heads = ["in flight", "adapter, tokens/s", "server, tokens/s", "first p50, ms"]
    print(table([*heads, "first p99, ms", "loop p99, ms"], rows))
    if wanted.out:
        wanted.out.write_text(json.dumps(figures, indent=1))
    faults = missed(figures)
    for fault in faults:
        print(f"MISSED: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)
