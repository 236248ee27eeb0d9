"""Makes runs and uses them: pre-training and fine-tuning here, batches in data/, reading/ and export/. No open_clip."""
