"""What the farm can do: one use case, one function, one transaction."""
