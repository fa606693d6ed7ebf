"""What the world shows of the method: variants, how they are measured, and the report."""
