"""What the two mounts need beside their own effects: branches and mirrors."""
