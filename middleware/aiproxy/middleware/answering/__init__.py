"""From a plan to an answer: attempts, what becomes of their faults, and how an answer is told."""
