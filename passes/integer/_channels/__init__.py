"""Parts of `remove-zero-channels`: which axis holds channels, which channels are constant, which are needed, and the smaller layers."""
