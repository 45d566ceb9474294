"""What the service tells of itself: metrics, statistics, traces, logs."""
