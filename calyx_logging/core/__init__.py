"""General helpers that know nothing about events, chunks or bundles.

Invariant: the only module of this package they import is `errors`; only `files` writes, syncs, renames or deletes.

Other wings use `files` (the door to the disk), `reading` (names, blocks, hashes), `carriers` (what zip programs, shares
and sync programs do to files), `parallel` (several files at once), `locks`, `times` (UTC texts), `text` (counts in
words), `ranges` and `validation`.
"""
