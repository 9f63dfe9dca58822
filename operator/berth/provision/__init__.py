"""The download program: brings the files of one artifact onto a volume, whole, verified and resumable, or removes them.

`paths`, `listing`, `choosing`, `wishes`, `plan`, `space`, `retrying`, `answers` and `termination` decide; `volume`,
`partial`, `client`, `sources`, `inspection`, `transfer` and `removal` do. `run` has the steps of one download in order.
huggingface_hub and botocore list and sign; neither of them fetches, for they begin a file anew after a kill.
"""
