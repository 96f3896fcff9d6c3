"""How long the trainer waits before it says so."""

LOG_INTERVAL_S = 15.0
"""Seconds between log lines that say what is being waited for, or how far something long has come."""
