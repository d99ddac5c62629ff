"""Incidents to look-ups: the Redis view that DETECT writes and the client that anyone reads it with."""
