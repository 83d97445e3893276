"""From a log call to an event line."""
