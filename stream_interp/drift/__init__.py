"""Online tests: what each claims, its recurrence, and its source. Pure; numpy float64; no state of their own."""
