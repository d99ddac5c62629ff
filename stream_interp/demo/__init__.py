"""`stream-interp demo`: a real model, a real SAE, a real Kafka, and a market shift that must be found.

Applications (`applications`) go through a network (`credit_model`) with an SAE on its hidden layer (`sae_training`);
`traffic` streams them, `workers` are ENCODE and DETECT, `watch` reads back what they say, `verdict` judges it,
`table` and `narrative` show it, `story` is the order of things.
"""
