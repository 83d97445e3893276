"""From an event line to a sealed chunk: a pool of writers, each with its own chunks and its own `seq`.

Invariant: once `WriterPool.submit` has returned, the event is in the kernel, or counted in a gap. No two calls use one
writer at once, and no two processes one chunk.

The way through: `pool.submit` encodes the event and takes a writer from `seats`; `writer` gives the line its `seq` and
writes it into its `chunk_file`, which `chunk_series` names and seals; `gaps` counts what is lost, and `background` runs
the housekeeping thread. Handlers and `harness.mirror` use `pool.WriterPool` and `options.WriterOptions`; the package
itself offers `background.seal`. Nothing here knows of `logging`.
"""
