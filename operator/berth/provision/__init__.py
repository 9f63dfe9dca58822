"""The download program: brings the files of one artifact onto a volume, whole, verified and resumable.

`paths`, `listing`, `plan`, `space`, `retrying` and `answers` decide; `volume`, `partial`, `client`, `sources` and
`transfer` do. huggingface_hub is not used: it begins a file anew after its process was killed.
"""
