"""The inference servers: one file each says how it is started, probed, measured and drained."""
