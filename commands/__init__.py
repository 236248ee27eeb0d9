"""The command line, a file per group of commands: each parses, gathers its inputs, calls one function and prints."""
