"""Text generation: from prompts as tokens to text as it comes."""
