"""From rows to images: versions in memory, the queue, the lanes, the engines."""
