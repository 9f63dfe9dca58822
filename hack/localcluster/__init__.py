"""A local Kubernetes for development and tests, also where there is no container engine.

Kubernetes is built from its Go modules and run as plain processes in namespaces of their own, so that
several clusters live side by side and nothing of one outlives it. `hack/cluster` is the command;
`localcluster.api` is for tests and the demo.
"""
