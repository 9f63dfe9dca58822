"""The GPU agent: one on each node with GPUs, which reports their memory, health, holders and processes.

`program` looks and writes. What it looks at: `driver` (NVML), `pod_resources` (kubelet) and `node_files` (/proc);
the rest is pure: `attribution` says whose a process is, `health` what is wrong with a GPU, `status` puts it into
words, and `writing` decides whether they are worth a write.
"""
