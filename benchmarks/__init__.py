"""Throughput and latency beside their floors: ``python -m benchmarks``, see README.md here.

What measures belongs here. What must hold belongs in the tests: nothing here passes or fails.
"""
