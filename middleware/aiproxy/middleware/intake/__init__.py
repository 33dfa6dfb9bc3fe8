"""What comes in: callers, paths, bodies and other APIs' shapes, up to one request that can be understood."""
