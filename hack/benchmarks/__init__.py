"""Benchmarks of Berth on a control plane of their own. Ratios are taken within one run: machines are noisy."""
