"""What a rerun says of a network: several seeds, paired images."""
