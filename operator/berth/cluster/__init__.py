"""The Kubernetes API at the edge: gateway, election, errors."""
