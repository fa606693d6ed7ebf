"""From a dataset to the cache that training reads: one file a layout, one for a clip, one for the cache."""
