"""What tests of several rooms build by hand."""
