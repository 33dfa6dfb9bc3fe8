"""From OpenAI bodies to what models take, and back."""
