"""Incidents to people: a Faust app on `interp.alerts`, pure rules of what is told when, one file per sink."""
