"""Soaks: Sentinel and Cluster under load while their servers die, freeze, change places and hand over slots."""
