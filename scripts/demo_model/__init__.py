"""Parts of the demo model's build: facts, phrasings, network, training, ONNX graph."""
