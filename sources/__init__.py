"""Where words, photographs and labelled word images come from: files, folders, LMDBs, `datasets`."""
