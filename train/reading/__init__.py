"""Uses a run: reads memories, word images and picture files, evaluates, shows misread words and attention maps."""
