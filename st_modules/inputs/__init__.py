"""What a caller may pass, brought into one form, and images read within limits."""
