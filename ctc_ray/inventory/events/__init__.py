"""Source rows become capture events: their order, values, observations and images."""
