"""General helpers, which know nothing of events, chunks or bundles.

Invariant: nothing of ours but `errors` stands below; no module but `files` writes, syncs, renames or deletes.

Other wings use `files` (the door to the disk), `reading` (names, blocks, hashes), `parallel` (several files at once),
`locks`, `times` (UTC texts), `text` (counts in words), `ranges` and `validation`.
"""
