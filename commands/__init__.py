"""The command line, a file for each group of commands: each parses, gathers, calls one function and prints."""
