"""What the accelerator passes share: which operations it has, what a layer of it is, how a layer is cut into tiles."""
