"""What a process shows of itself: /livez, /readyz, /metrics, structured logs."""
