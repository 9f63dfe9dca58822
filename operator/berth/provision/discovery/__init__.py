"""Which models lie on a volume already: caches of Hugging Face, stores of Ollama, Berth's own artifacts, loose files.

`scan` walks the volume and tells what looks like a whole model, `examining` opens what a page has room for, and
`pages` fits findings into termination messages. Everything is read as if a stranger had written it.
"""
