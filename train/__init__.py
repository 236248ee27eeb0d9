"""Makes runs and uses them: training here, batches in data/, evaluation in reading/, export/. Needs no open_clip."""
