"""Uses a run: reads memories, word images and picture files, measures, shows what was misread and where it looked."""
