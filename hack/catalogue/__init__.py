"""The catalogue of well-known models in charts/models: what is checked of it, and what is generated from it."""
