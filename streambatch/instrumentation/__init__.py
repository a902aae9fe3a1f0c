"""Listeners for logs, metrics and traces."""
