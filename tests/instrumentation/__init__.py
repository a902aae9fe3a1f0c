"""Tests of the listeners for metrics and traces, with real exporters."""
