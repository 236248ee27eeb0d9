"""What tests of several rooms make by hand."""
