"""Prompts from masks: drawn by counters on the masks' device, recorded, replayed. Knows no model and no stream."""
