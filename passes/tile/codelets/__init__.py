"""From operations to codelet calls: places in memory, step programs, packed weights, and one file per family of operations."""
