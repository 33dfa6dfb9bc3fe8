"""Who may see what: levels and attestations, tags of parts, and keeping parts apart."""
