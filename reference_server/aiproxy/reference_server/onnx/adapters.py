"""The adapters of text models by name, opened the same way here and in a worker process."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # an adapter needs the onnx extra; its name does not
    from aiproxy.reference_server.onnx.devices import Device
    from aiproxy.reference_server.onnx.folders import TextFolder
    from aiproxy.reference_server.onnx.text.runner import Runner


def open_adapter(
    adapter: str,
    folder: "TextFolder",
    device: "Device",
    *,
    slots: int | None,
    context: int | None,
    cache_tokens: int | None,
) -> "Runner":
    """Return the runner of ``folder`` by ``slots`` or ``genai``; sizes are as ``open_slots`` and ``open_genai`` take them.

    Raises:
        ModelUnavailable: the adapter does not take it.
    """
    if adapter == "genai":
        from aiproxy.reference_server.onnx.text.genai import open_genai

        return open_genai(
            folder,
            device,
            slots=slots,
            context=context,
            cache_tokens=cache_tokens,
            memory_limit=device.memory_limit,
        )
    assert adapter == "slots", f"no adapter is named {adapter}"
    from aiproxy.reference_server.onnx.text.slots import open_slots

    return open_slots(folder, device, slots=slots, context=context, cache_tokens=cache_tokens)
