"""From an event line to a sealed chunk."""
