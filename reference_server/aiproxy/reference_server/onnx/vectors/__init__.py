"""Models that answer with vectors: embeddings and image classification."""
