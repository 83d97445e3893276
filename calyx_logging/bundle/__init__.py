"""A bundle on its way: made, checked, packed, sent, fetched.

Invariant: nothing of a bundle is believed before its hashes are checked, and its paths lead nowhere but into staging.

The way: `folder` writes a manifest and verifies a folder, `signing` signs it, `archive` packs it, `object_store` sends
it; where it arrives, `staging` finds and copies it, and `verification` says every fault at once.

Other wings use `verify` and `check` (`folder`), `Fault` and `judge` (`verification`), `bring` and `bundles_in`
(`staging`), `write_archive` (`archive`), `sign` and `verify_signature` (`signing`), and `send` (`object_store`).
"""
