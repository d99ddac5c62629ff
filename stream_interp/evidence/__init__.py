"""What is left of an incident for those who ask later: its story, its replay, a pack that shows if it was edited."""
