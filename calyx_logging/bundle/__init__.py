"""Make, check, sign, pack, send and receive bundles.

Invariant: nothing in a bundle is trusted before its hashes are checked, and its paths lead only into staging.

Data flow: `folder` writes a manifest and verifies a folder, `signing` signs it, `archive` packs it, `object_store`
sends it; at the hub, `staging` finds and copies it (`_unpacking` out of an archive), and `verification` reports all its
faults at once.

Other wings use `verify` and `check` (`folder`), `Fault` and `judge` (`verification`), `bring` and `bundles_in`
(`staging`), `write_archive` (`archive`), `sign` and `verify_signature` (`signing`), and `send` (`object_store`).
"""
