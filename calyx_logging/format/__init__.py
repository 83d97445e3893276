"""The formats that node and hub agree on: chunks, manifests, receipts, run envelopes, and when they are complete.

Invariant: knows neither side. It reads bytes and files and gives values; it writes nothing.

The way: a chunk's name and lines (`chunk`, `reader`) are summed up for the manifest (`chunk_stats`, `manifest`),
checked line by line at the hub (`line_check`), and acknowledged in a `receipt`; `completeness` tells what is missing.

Other wings also use `legacy` (what is read otherwise in first-generation files), `run_paths` and `run_envelope`.
"""
