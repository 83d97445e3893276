"""Bundles on their way: folder, archive, object storage, signatures, verification."""
