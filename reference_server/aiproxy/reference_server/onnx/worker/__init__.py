"""A model in a process of its own, so that a fault of its device ends that process alone."""
