"""The formats that node and hub agree on: chunks, manifests, receipts, run envelopes, and when they are complete.

Invariant: this wing depends on neither side. It reads bytes and files, returns values, and writes nothing.

Data flow: a chunk's name and lines (`chunk`, `reader`) are summarised for the manifest (`chunk_stats`, `manifest`),
checked line by line at the hub (`line_check`), and acknowledged in a `receipt`; `completeness` finds what is missing.

Other wings also use `legacy` (how first-generation files differ), `run_paths` and `run_envelope`.
"""
